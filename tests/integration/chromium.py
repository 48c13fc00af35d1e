"""A real browser for tests: headless Chromium through its driver."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PROGRAM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

SECONDS = 30
"""How long a page may take on a busy machine."""


class Browser:
    """One window with storage of its own.

    Parameters
    ----------
    driver
        Of selenium.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def part(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(
            self.driver.execute_script(
                "return document.querySelector(arguments[0]).textContent", selector
            )
        ).strip()

    def press(self, keys: str) -> None:
        """Press keys as somebody does who has clicked nowhere."""
        self.driver.execute_script("document.activeElement.blur()")
        self.part("body").send_keys(keys)

    def until(self, script: str, *arguments: object) -> object:
        """Wait until an expression of JavaScript is true; return its value."""

        def value(driver: webdriver.Chrome) -> object:
            return driver.execute_script(f"return {script}", *arguments)

        try:
            return WebDriverWait(self.driver, SECONDS, 0.05).until(value)
        except TimeoutException:
            shown = self.part("body").text[:500]
            raise AssertionError(f"{script} stays false; {self.errors()}; {shown}") from None

    def until_text(self, selector: str, words: str) -> None:
        """Wait until a part of the page says something."""
        self.until(
            "document.querySelector(arguments[0])?.textContent.includes(arguments[1])",
            selector,
            words,
        )

    def offline(self, off: bool) -> None:
        """Pull the plug, or put it back."""
        speed = {"latency": 0, "download_throughput": -1, "upload_throughput": -1}
        self.driver.set_network_conditions(offline=off, **speed)

    def errors(self) -> list[str]:
        """Return what the browser complained of since the last time, refused requests apart."""
        entries = [entry["message"] for entry in self.driver.get_log("browser")]
        return [text for text in entries if "Failed to load resource" not in text]


@contextmanager
def running_chromium(width: int = 1280, height: int = 800) -> Iterator[Browser]:
    """Start a browser; it ends with the context."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(PROGRAM)
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-dev-shm-usage",
        "--force-device-scale-factor=1",
        "--lang=en-GB",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        # The size of the page, without what a window has around it.
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        yield Browser(driver)
    finally:
        driver.quit()
