"""The page of readers in a real browser, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monailabel_app.lib.settings import ServerSettings
from tests.integration.chromium import running_chromium
from tests.integration.filled_state import fill
from tests.integration.server import RunningServer, running_server
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp

pytestmark = [pytest.mark.browser, pytest.mark.slow]

STUDIES = "/privdiff/v1/reader-studies"


@pytest.fixture
def server(tmp_path: Path, tiny_bundle: Path) -> Iterator[tuple[RunningServer, str]]:
    """A server of one person, and the id of a study over two pairs."""
    images = tmp_path / "studies"
    images.mkdir()
    for number in range(2):
        content = dicom_bytes(radiograph_dataset(ramp(12, (96, 96)) // (1 + number)))
        (images / f"case-{number}.dcm").write_bytes(content)
    settings = ServerSettings(state=tmp_path / "state", studies=str(images))
    jobs = fill(settings, sorted(images.iterdir()), tiny_bundle)
    with running_server(tmp_path, images, bundle=tiny_bundle) as running:
        body = {"title": "Spring", "jobs": [job.id for job in jobs], "findings": ["Edema", "Mass"]}
        answer = running.post(STUDIES, json=body)
        assert answer.status_code == 201, answer.text
        yield running, answer.json()["id"]


def test_a_reader_answers_stops_and_goes_on(server: tuple[RunningServer, str]) -> None:
    running, study = server
    with running_chromium() as browser:
        browser.open(f"{running.url}/privdiff/reader-study")
        browser.until("document.querySelector('#studies button')")
        browser.part("#studies button").click()
        browser.until_text("#progress", "Pair 1 of 2, 2 open")
        sizes = browser.until(
            "[...document.querySelectorAll('.panes img')].map((one) => one.naturalWidth)"
        )
        assert sizes == [64, 64]
        for finding, answer in (("Edema", "adequate"), ("Mass", "not_assessable")):
            choice = f"document.querySelector('[name={finding}][value={answer}]')"
            browser.driver.execute_script(f"{choice}.click()")
        browser.until_text("#progress", "Pair 1 of 2, saved")

        browser.driver.refresh()
        browser.until_text("#studies", "1 of 2 pairs done")
        browser.part("#studies button").click()
        browser.until_text("#progress", "Pair 2 of 2, 2 open")
        browser.press("p")
        browser.until_text("#progress", "Pair 1 of 2, saved")
        assert browser.errors() == []

    found = running.get(f"{STUDIES}/{study}/statistics").json()
    assert (found["answers"], found["expected"]) == (2, 4)
    assert [one["not_assessable"] for one in found["findings"]] == [0, 1]
