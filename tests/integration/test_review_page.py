"""The review page in a real browser, on a real server that publishes to a real store."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import JobState
from monailabel_app.lib.jobs.store import JobStore
from monailabel_app.lib.security.roles import Role
from monailabel_app.lib.security.tokens import TokenFile
from monailabel_app.lib.settings import ServerSettings
from privdiff_infer.dicom.web import DicomwebStore
from privdiff_infer.dicom.web_session import Access
from privdiff_infer.verification import verify
from tests.integration.chromium import Browser, running_chromium
from tests.integration.filled_state import fill
from tests.integration.orthanc import Orthanc, needs_orthanc
from tests.integration.server import RunningServer, running_server
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp
from tests.unit.outputs import AUDIT_KEY

pytestmark = [pytest.mark.browser, pytest.mark.slow]

IMAGES = 7
TRANSFORM = "getComputedStyle(document.querySelector(`[data-pane=${arguments[0]}] img`)).transform"


@dataclass(frozen=True)
class Site:
    """A running server, its people and its jobs."""

    server: RunningServer
    settings: ServerSettings
    tokens: dict[str, str]
    jobs: list[Job]

    def job(self, number: int) -> Job:
        """Return a job as it is now."""
        store = JobStore.open(self.settings)
        try:
            return store.get(self.jobs[number].id)
        finally:
            store.close()

    def set(self, number: int, **values: object) -> None:
        store = JobStore.open(self.settings)
        try:
            store.set(self.jobs[number].id, **values)
        finally:
            store.close()


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, shared_orthanc: Orthanc
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    images = folder / "studies"
    images.mkdir()
    for number in range(IMAGES):
        uid = f"1.2.826.0.1.3680043.8.498.{number + 1}"
        facts = {"SOPInstanceUID": uid, "PatientName": "Doe^Jane", "StudyInstanceUID": f"{uid}.1"}
        dataset = radiograph_dataset(ramp(12, (96, 96)) // (1 + number % 3), **facts)
        dataset.file_meta.MediaStorageSOPInstanceUID = uid
        (images / f"case-{number}.dcm").write_bytes(dicom_bytes(dataset))
    people = TokenFile(folder / "tokens")
    tokens = {name: people.add(name, Role.REVIEWER) for name in ("ada", "ben")}
    tokens |= {"boss": people.add("boss", Role.ADMIN), "uma": people.add("uma", Role.USER)}
    settings = ServerSettings(state=folder / "state", studies=str(images))
    jobs = fill(settings, sorted(images.iterdir()), tiny_bundle)
    assert {job.state for job in jobs} == {JobState.AWAITING_REVIEW}
    environment = {
        "PRIVDIFF_LEDGER_FILE": str(folder / "ledger"),
        "PRIVDIFF_SERVER_TWO_PERSON": "true",
    }
    with running_server(
        folder,
        images,
        bundle=tiny_bundle,
        store=shared_orthanc.url,
        token_file=folder / "tokens",
        token=tokens["ada"],
        environment=environment,
    ) as server:
        yield Site(server, settings, tokens, jobs)


@contextmanager
def signed_in(site: Site, name: str, **size: int) -> Iterator[Browser]:
    with running_chromium(**size) as browser:
        browser.open(f"{site.server.url}/privdiff/review")
        browser.until("!document.querySelector('#sign-in').hidden")
        browser.part("#token").send_keys(site.tokens[name] + "\n")
        browser.until("!document.querySelector('#desk').hidden")
        browser.until("document.querySelectorAll('#jobs button').length")
        yield browser


@pytest.fixture(scope="module")
def shared_browser(site: Site) -> Iterator[Browser]:
    with signed_in(site, "ada") as browser:
        yield browser


@pytest.fixture
def browser(shared_browser: Browser) -> Iterator[Browser]:
    """A window in which ada is signed in; nothing may go wrong in it unseen."""
    yield shared_browser
    assert shared_browser.errors() == []


def choose(browser: Browser, site: Site, number: int, state: str = "Awaiting review") -> None:
    """Open a job from the list, and wait until it can be decided or only looked at."""
    browser.driver.execute_script(
        "const filter = document.querySelector('#filter');"
        "const options = [...filter.options];"
        "filter.selectedIndex = options.findIndex((one) => one.text.startsWith(arguments[0]));"
        "filter.dispatchEvent(new Event('change'))",
        state,
    )
    selector = f"#jobs [data-id='{site.jobs[number].id}']"
    browser.until("document.querySelector(arguments[0])", selector)
    browser.driver.execute_script("document.querySelector(arguments[0]).click()", selector)
    browser.until_text("#title", f"case-{number}")
    browser.until("document.querySelector('[data-pane=redrawn] img').complete")


def is_ready(browser: Browser) -> None:
    browser.until("!document.querySelector('#reject').disabled")


def test_a_wrong_token_and_a_user_are_told_what_to_do(site: Site) -> None:
    with running_chromium() as browser:
        browser.open(f"{site.server.url}/privdiff/review")
        browser.until("!document.querySelector('#sign-in').hidden")
        browser.part("#token").send_keys("privdiff_wrong\n")
        browser.until_text("#sign-in-problem", "Ask your administrator")

        browser.part("#token").send_keys(site.tokens["uma"] + "\n")

        browser.until_text("#sign-in-problem", "needs the role of a reviewer")
        assert browser.part("#desk").is_displayed() is False


def test_next_shows_a_claimed_job_with_the_pixels_of_its_result(
    browser: Browser, site: Site
) -> None:
    browser.press("n")
    is_ready(browser)

    number = int(browser.text("#title").removeprefix("case-"))
    assert site.job(number).claimed_by == "ada"
    assert browser.text("#claim").startswith("Yours for 1")
    shown = browser.driver.execute_script(
        "const image = document.querySelector('[data-pane=redrawn] img');"
        "const canvas = document.createElement('canvas');"
        "[canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];"
        "const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);"
        "return [...context.getImageData(0, 0, canvas.width, canvas.height).data]"
        ".filter((_, place) => place % 4 === 0)"
    )
    answer = site.server.get(f"/privdiff/v1/jobs/{site.jobs[number].id}/result?kind=png")
    picture = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(np.array(shown, np.uint8).reshape(picture.shape), picture)


def test_zoom_pan_and_window_are_the_same_for_both(browser: Browser, site: Site) -> None:
    choose(browser, site, 0)
    is_ready(browser)
    pane = browser.part("[data-pane=original]")
    actions = ActionChains(browser.driver)
    actions.scroll_from_origin(ScrollOrigin.from_element(pane), 0, -300).perform()
    actions.click_and_hold(pane).move_by_offset(40, 25).release().perform()
    browser.press("+")

    original, redrawn = (browser.until(TRANSFORM, name) for name in ("original", "redrawn"))
    browser.press("d")
    difference = browser.until(TRANSFORM, "difference")
    browser.press("d")

    assert original == redrawn == difference
    scale = float(str(original).removeprefix("matrix(").split(",")[0])
    assert scale > 1.5
    browser.driver.execute_script(
        "const level = document.querySelector('#level'); level.value = 30;"
        "level.dispatchEvent(new Event('input'))"
    )
    filters = browser.driver.execute_script(
        "return ['original', 'redrawn', 'difference'].map((name) =>"
        "document.querySelector(`[data-pane=${name}] img`).style.filter)"
    )
    assert filters == ['url("#window")', 'url("#window")', ""]
    browser.press("0")
    assert browser.until(TRANSFORM, "redrawn") == "matrix(1, 0, 0, 1, 0, 0)"


def test_keys_change_what_is_compared(browser: Browser, site: Site) -> None:
    choose(browser, site, 0)
    shown = (
        "[...document.querySelectorAll('[data-pane]')]"
        ".filter((pane) => getComputedStyle(pane).display !== 'none')"
        ".map((pane) => pane.dataset.pane)"
    )
    browser.press("d")
    assert browser.until(shown) == ["original", "difference"]
    browser.press("d")
    assert browser.until(shown) == ["original", "redrawn"]
    browser.press("b")
    opacity = "getComputedStyle(document.querySelector('[data-pane=redrawn] img')).opacity"
    assert browser.until(opacity) == "1"
    browser.press("b")
    assert browser.until(opacity) == "0"
    browser.press("1")
    browser.press("?")
    assert browser.until("document.querySelector('#help').open")
    browser.part("#help button").click()


@needs_orthanc
def test_two_people_approve_and_one_publishes(
    browser: Browser, site: Site, orthanc: Orthanc
) -> None:
    choose(browser, site, 1)
    is_ready(browser)
    browser.press("a")
    browser.until_text("#said", "A second person must approve it too")
    assert site.job(1).state is JobState.AWAITING_REVIEW

    with signed_in(site, "ben") as second:
        choose(second, site, 1)
        is_ready(second)
        assert "ada" in second.text("#facts")
        second.press("a")
        second.until_text("#said", "Approved.")
        choose(second, site, 1, "Approved")
        is_ready(second)
        second.part("#publish").click()
        second.until_text("#said", "Published: the store has taken it")
        assert second.errors() == []

    job = site.job(1)
    assert (job.state, job.first_approver, job.decided_by) == (JobState.PUBLISHED, "ada", "ben")
    store = DicomwebStore(orthanc.url, Access())
    found = [i for pair in store.series({}) for i in store.instances(*pair)]
    folder = site.settings.state / "jobs" / job.id
    assert [instance.read() for instance in found] == [(folder / job.output).read_bytes()]
    assert verify(folder, AUDIT_KEY).findings == []


def test_reject_with_a_comment(browser: Browser, site: Site) -> None:
    choose(browser, site, 2)
    is_ready(browser)
    browser.press("c")
    browser.part("#comment").send_keys("a clip at the left hilum is still there")

    browser.press("r")

    browser.until_text("#said", "Rejected.")
    job = site.job(2)
    assert (job.state, job.comment) == (
        JobState.REJECTED,
        "a clip at the left hilum is still there",
    )
    choose(browser, site, 2, "Rejected")
    browser.until_text("#facts", "a clip at the left hilum")


def test_a_claim_that_ended_decides_nothing_and_says_so(browser: Browser, site: Site) -> None:
    choose(browser, site, 3)
    is_ready(browser)
    site.set(3, claimed_until=1.0)

    browser.press("a")

    browser.until_text("#banner", "Your claim on this job has ended; claim it again")
    assert site.job(3).state is JobState.AWAITING_REVIEW


def test_what_another_reviewer_has_can_only_be_looked_at(browser: Browser, site: Site) -> None:
    with signed_in(site, "ben") as second:
        choose(second, site, 4)
        is_ready(second)

        choose(browser, site, 4)

        browser.until_text("#said", "You can look, but not decide: ben works on this job")
        assert browser.part("#approve").is_enabled() is False


def test_nothing_is_lost_while_the_server_cannot_be_reached(browser: Browser, site: Site) -> None:
    choose(browser, site, 5)
    is_ready(browser)
    browser.press("c")
    browser.part("#comment").send_keys("as before")
    browser.offline(True)
    try:
        browser.press("r")
        browser.until_text("#banner", "The server does not answer; nothing is lost")
    finally:
        browser.offline(False)
    assert browser.part("#comment").get_attribute("value") == "as before"

    browser.press("r")

    browser.until_text("#said", "Rejected.")
    assert site.job(5).comment == "as before"


def test_a_reload_goes_on_with_the_job_and_the_draft(browser: Browser, site: Site) -> None:
    choose(browser, site, 6)
    is_ready(browser)
    browser.part("#comment").send_keys("a draft")

    browser.driver.refresh()

    browser.until_text("#title", "case-6")
    is_ready(browser)
    assert browser.part("#comment").get_attribute("value") == "a draft"
    browser.part("#comment").clear()


def test_everything_has_a_name_and_nothing_comes_from_elsewhere(
    browser: Browser, site: Site
) -> None:
    nameless = browser.driver.execute_script(
        "return [...document.querySelectorAll('button, input, select, textarea')].filter((part) =>"
        "!part.textContent.trim() && !part.labels?.length && !part.hidden).map((part) => part.id)"
    )
    assert nameless == []
    addresses = browser.driver.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert addresses
    assert [a for a in addresses if not a.startswith((site.server.url, "data:", "blob:"))] == []


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (820, 1180)], ids=["desk", "tablet"])
def test_the_page_fits(browser: Browser, site: Site, width: int, height: int) -> None:
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    overflow = browser.until("[document.documentElement.scrollWidth - innerWidth]")
    shown = browser.driver.execute_script(
        "return ['approve', 'reject', 'next'].every((id) => {"
        "const box = document.getElementById(id).getBoundingClientRect();"
        "return box.width > 40 && box.right <= innerWidth && box.bottom <= innerHeight; })"
    )
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    assert overflow[0] <= 0
    assert shown


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("verdict(0.40, 0.45)", "as likely as before"),
        ("verdict(0.10, 0.25)", "more likely than before"),
        ("verdict(0.90, 0.20)", "much less likely than before"),
        ("findingName('Pleural_Thickening')", "Pleural thickening"),
        ("countdown(61.2)", "1:02"),
        ("similarityWords(0.7, 0.6)", "above the limit of 0.60"),
        ("riskSentence([], {model: {}, options: {}, figures: {}})", "was not measured"),
    ],
)
def test_figures_in_words(browser: Browser, call: str, words: str) -> None:
    said = browser.driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        f"import('/privdiff/review/words.js').then((words) => done(words.{call}))"
    )
    assert words in said
