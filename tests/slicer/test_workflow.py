"""The whole work of a day by clicks, against a real server and a real DICOMweb store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
import slicer
from PrivDiffLib.privdiff_client import Conflict, PrivDiffClient

from tests.integration.orthanc import Orthanc
from tests.slicer.drawn import drawn
from tests.slicer.driving import User
from tests.slicer.fixtures import MODULE, ROOT
from tests.slicer.house import EMBEDDED, House, needsHouse
from tests.slicer.radiographs import Database, addDicom

SECONDS = 240
"""For five images, on a busy machine."""


@pytest.fixture
def user(application: Any, scene: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """Somebody with the module open."""
    application.userSettings().clear()
    widget = application.open(MODULE)
    yield User(application, widget, ROOT / "build" / "slicer")
    application.close(widget)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    """The DICOM database of the application."""
    found = Database()
    monkeypatch.setattr(slicer, "dicomDatabase", found, raising=False)
    return found


@needsHouse
def test_a_day_of_work(user: User, house: House, database: Database, tmp_path: Path) -> None:
    server, ui = house.server, user.ui
    client = PrivDiffClient(server.url, server.token)

    # Not everybody is let in.
    user.connect(server.url, "not-a-token")
    assert "token" in ui.statusLabel.text and "not-a-token" not in ui.statusLabel.text
    user.look("1-refused")
    user.connect(server.url, server.token)
    assert "as ann, reviewer" in ui.statusLabel.text

    # Three radiographs, one that is cancelled, and one that is none.
    for number in range(1, 5):
        addDicom(database, tmp_path, f"{number}: CHEST PA", **drawn(number, inverted=number == 1))
    addDicom(database, tmp_path, "5: PHANTOM", shape=(256, 256))
    user.waitFor(lambda: ui.imagesTable.rowCount == 5)
    user.check(0, 1, 2, 3, 4)
    assert "Agree" in ui.anonymizeButton.toolTip
    user.tick("consentBox")
    user.pick("profileBox", "fast")
    ui.strengthSlider.value = 0.8
    (measured,) = json.loads((EMBEDDED / "metadata.json").read_text())["measured"]["fast"].values()
    assert f"AUC {measured['linkage_auc']:.2f}" in ui.riskLabel.text
    assert "<b>high</b>" in ui.riskLabel.text and 0.75 <= measured["linkage_auc"] < 0.9
    user.look("2-ready")
    user.click("anonymizeButton")
    user.check(3)
    user.click("cancelButton")
    user.waitFor(lambda: user.states()[3] == "Cancelled")
    user.look("3-work")
    final = {"To review", "Held", "Cancelled"}
    user.waitFor(lambda: set(user.states()) <= final, SECONDS)
    assert user.states()[:3] == ["To review"] * 3
    assert user.states()[4] == "Held"

    # What is shown are the bytes that were received, of the file that was imported.
    user.choose(0)
    user.waitFor(lambda: ui.approveButton.enabled)
    case = user.panel.anonymizing.cases[0]
    received = pydicom.dcmread(BytesIO(case.result.content))
    result = user.panel.images.resultOf(case)
    assert (slicer.util.arrayFromVolume(result)[0] == received.pixel_array).all()
    assert received.PhotometricInterpretation == "MONOCHROME2"
    assert "Doe" not in str(received)
    user.look("4-compare")
    user.choose(4)
    assert ui.reasonLabel.visible and "frontal" in ui.reasonLabel.text
    user.look("5-held")

    # Nothing but what was approved is published.
    assert not ui.publishButton.enabled
    with pytest.raises(Conflict):
        client.publish(case.job.id)
    user.choose(0)
    user.click("approveButton")
    user.waitFor(lambda: user.states()[0] == "Approved")
    user.choose(1)
    user.type("commentEdit", "a ring is left")
    user.click("rejectButton")
    user.waitFor(lambda: user.states()[1] == "Rejected")
    user.click("publishButton")
    user.waitFor(lambda: user.states()[0] == "Published")
    assert names(house.store) == {str(received.PatientName)}
    assert house.store.files() == [case.result.content]

    # From here to a store of one's own; the server's record says so.
    user.choose(2)
    user.click("approveButton")
    user.waitFor(lambda: user.states()[2] == "Approved")
    user.pick("targetBox", "A DICOMweb store of my own")
    user.type("storeBox", house.store.url)
    user.click("publishButton")
    user.waitFor(lambda: user.states()[2] == "Published")
    other = user.panel.anonymizing.cases[2]
    assert other.result.content in house.store.files()
    assert client.job(other.job.id).published is not None
    assert "stored" in ui.imagesTable.item(2, 4).text()
    user.look("6-published")

    # What a batch produced is reviewed here too.
    client.wait(house.ofBatch.id, timeout_seconds=SECONDS)
    user.waitFor(lambda: ui.queueButton.enabled)
    user.click("queueButton")
    user.waitFor(lambda: ui.imagesTable.rowCount == 6)
    user.waitFor(lambda: ui.approveButton.enabled)
    assert ui.caseLabel.text.startswith("<b>Queue")
    user.look("7-queue")
    user.click("rejectButton")
    user.waitFor(lambda: user.states()[5] == "Rejected")

    # Nothing is left behind.
    slicer.mrmlScene.Clear(0)
    user.waitFor(lambda: ui.imagesTable.rowCount == 0)
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene) == []


def names(store: Orthanc) -> set[str]:
    """Return the patients' names that a search of the store finds."""
    answer = requests.get(f"{store.url}/instances?includefield=PatientName", timeout=20).json()
    return {found["00100010"]["Value"][0]["Alphabetic"] for found in answer}
