"""The panel by clicks, against a real HTTP server that misbehaves as told."""

from __future__ import annotations

import hashlib
import re
import struct
import time
import zlib

import numpy as np
import pytest
import slicer
from PrivDiffLib.Nrrd import encodeNrrd
from PySide6.QtCore import Qt

from tests.slicer.driving import User
from tests.slicer.fixtures import MODULE, ROOT
from tests.slicer.radiographs import Database, addDicom, addPixels
from tests.unit.scripted_server import Reply, running

API = "/privdiff/v1"
CELL = {"linkage_auc": 0.746, "interval": [0.718, 0.778], "findings_auc": 0.581, "n": 239}
MODEL = {
    "id": "m-1",
    "default": True,
    "problem": "",
    "bundle": {
        "name": "m",
        "version": "1",
        "profiles": ["standard", "fast"],
        "operating_points": {"standard": {"strength": 0.7}, "fast": {"strength": 0.8}},
        "measured": {"standard": {"0.7": CELL}},
    },
}
FIGURES = {
    "identity_similarity": 0.31,
    "findings_before": {"Effusion": 0.81, "Mass": 0.1, "Edema": 0.7},
    "findings_after": {"Effusion": 0.32, "Mass": 0.12, "Edema": 0.72},
    "text_boxes": 1,
}
CONTENT = encodeNrrd(np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1)), (1.4, 1.4))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def picture() -> bytes:
    """Return a grey PNG."""
    lines = b"".join(b"\0" + bytes(range(256)) for _ in range(256))
    header = struct.pack(">IIBBBBB", 256, 256, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


PICTURE = picture()


@pytest.fixture
def server():
    with running() as found:
        found.on(f"GET {API}/health", {"status": "ok", "version": "0.1"})
        found.on(f"GET {API}/me", {"name": "ann", "role": "reviewer", "store": True})
        found.on(f"GET {API}/models", {"default": "m-1", "models": [MODEL]})
        found.on(f"GET {API}/jobs", {"jobs": [], "next": None, "counts": {"awaiting_review": 1}})
        found.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201))
        headers = {"X-PrivDiff-SHA256": SHA256}
        found.on(f"GET {API}/jobs/0f/result", Reply(CONTENT, headers=headers))
        for route in (f"GET {API}/jobs/0f", f"POST {API}/jobs/0f/claim"):
            found.on(route, job("awaiting_review", figures=FIGURES))
        yield found


@pytest.fixture
def user(application, scene, server, monkeypatch):
    monkeypatch.setattr("PrivDiffLib.privdiff_client.transport.WAIT_SECONDS", (0.01,))
    monkeypatch.setattr("PrivDiffLib.Anonymizing.POLL_SECONDS", 0.05)
    monkeypatch.setattr("PrivDiffLib.Anonymizing.SILENT_POLL_SECONDS", 0.05)
    application.userSettings().clear()
    widget = application.open(MODULE)
    yield User(application, widget, ROOT / "build" / "slicer" / "panel")
    if widget.panel is not None:
        application.close(widget)


@pytest.fixture
def ready(user, server):
    """A user who is connected, has consented, and has checked the first sample."""
    user.connect(server.url)
    user.tick("consentBox")
    user.click("sampleButton")
    user.check(0)
    return user


def job(state: str, **fields: object) -> dict[str, object]:
    known = {"id": "0f", "state": state, "batch": "", "sha256": SHA256, "linkage_limit": 0.6}
    return {**known, **fields}


def finish(server, state: str = "awaiting_review", **fields: object) -> None:
    server.on(f"GET {API}/jobs/0f", job(state, figures=FIGURES, **fields))


def anonymize(user, server) -> None:
    user.click("anonymizeButton")
    finish(server)
    user.waitFor(lambda: user.ui.approveButton.enabled)


def test_buttons_say_what_is_missing(user, server):
    assert user.ui.anonymizeButton.toolTip == "Connect to a server first"

    user.connect(server.url)
    assert "Agree above" in user.ui.anonymizeButton.toolTip
    user.tick("consentBox")
    assert "Load a radiograph" in user.ui.anonymizeButton.toolTip
    user.click("sampleButton")
    user.check()
    assert "Check the images" in user.ui.anonymizeButton.toolTip
    user.check(1)
    assert user.ui.anonymizeButton.enabled and user.ui.anonymizeButton.text == "Anonymize (1)"
    assert user.ui.publishButton.toolTip == "No image is approved"


def test_consent_names_the_server_and_is_asked_for_each(user, server):
    user.connect(server.url)

    assert server.url in user.ui.consentLabel.text and not user.ui.consentBox.checked
    user.tick("consentBox")
    user.tick("rememberBox")
    with running() as other:
        for route in ("health", "me", "models", "jobs"):
            other.script[f"GET {API}/{route}"] = list(server.script[f"GET {API}/{route}"])
        user.connect(other.url)
        assert not user.ui.consentBox.checked
    user.connect(server.url)
    assert user.ui.consentBox.checked
    user.tick("consentBox")
    assert not user.ui.rememberBox.checked and not user.ui.anonymizeButton.enabled


def test_nothing_is_sent_before_consent(user, server):
    user.click("sampleButton")
    user.connect(server.url)

    assert not user.ui.anonymizeButton.enabled
    assert not [request for request in server.requests if request.method == "POST"]


def test_risk_of_the_setting_stands_beside_it(ready):
    assert "moderate" in ready.ui.riskLabel.text and "0.75" in ready.ui.riskLabel.text

    ready.ui.strengthSlider.value = 0.4
    assert "nearest measured strength, 0.70" in ready.ui.riskLabel.text
    ready.pick("profileBox", "fast")
    assert ready.ui.riskLabel.text == "The risk of this setting was not measured."
    assert ready.ui.strengthSlider.value == 0.8


def test_result_is_shown_and_explained(ready, server):
    anonymize(ready, server)

    assert ready.states()[0] == "To review"
    assert "0.31" in ready.ui.linkageLabel.text and "below the limit" in ready.ui.linkageLabel.text
    assert "1 of 3 findings read differently: Effusion" in ready.ui.findingsLabel.text
    table = ready.ui.findingsTable
    assert [table.item(0, column).text() for column in range(4)] == [
        "Effusion",
        "0.81",
        "0.32",
        "lost",
    ]
    sent = next(r for r in server.requests if r.method == "POST" and r.path == f"{API}/jobs")
    assert b"original" in sent.content and b"Sample" not in sent.content
    assert b'name="output_format"\r\n\r\ndicom\r\n' in sent.content
    ready.look("result")


def test_views_are_linked_in_zoom_pan_and_window(ready, server):
    anonymize(ready, server)
    manager = ready.application.layoutManager()
    views = [manager.sliceWidget(tag) for tag in ("CXROrig", "CXRAnon", "CXRDiff")]
    assert all(view.isVisible() for view in views)
    nodes = [view.sliceLogic().GetSliceNode() for view in views]
    case = ready.panel.anonymizing.cases[0]
    original = ready.panel.images.originalOf(case).GetDisplayNode()
    result = ready.panel.images.resultOf(case).GetDisplayNode()

    before = nodes[0].GetFieldOfView()
    drag(views[0].sliceView(), Qt.MouseButton.RightButton)
    drag(views[0].sliceView(), Qt.MouseButton.MiddleButton)

    assert nodes[0].GetFieldOfView() != before
    for node in nodes[1:]:
        assert node.GetFieldOfView() == pytest.approx(nodes[0].GetFieldOfView())
        assert node.GetXYZOrigin() == pytest.approx(nodes[0].GetXYZOrigin())
    original.SetWindowLevel(100, 60)
    assert result.GetWindow() == pytest.approx(100 / 254, rel=0.05)
    result.SetWindowLevel(0.5, 0.5)
    assert original.GetWindow() == pytest.approx(0.5 * 255, rel=0.05)


def drag(view, button) -> None:
    from PySide6.QtCore import QPoint
    from PySide6.QtTest import QTest

    QTest.mousePress(view, button, pos=QPoint(100, 100))
    QTest.mouseMove(view, QPoint(110, 140))
    QTest.mouseMove(view, QPoint(120, 160))
    QTest.mouseRelease(view, button, pos=QPoint(120, 160))


def test_third_view_fades_and_checks(ready, server):
    anonymize(ready, server)
    composite = ready.application.layoutManager().sliceWidget("CXRDiff").sliceLogic()
    composite = composite.GetSliceCompositeNode()
    case = ready.panel.anonymizing.cases[0]

    ready.pick("modeBox", "Fade")
    ready.ui.fadeSlider.value = 30
    assert composite.GetBackgroundVolumeID() == case.volumeID
    assert composite.GetForegroundVolumeID() == case.resultID
    assert composite.GetForegroundOpacity() == pytest.approx(0.3)
    ready.look("fade")
    ready.pick("modeBox", "Checkerboard")
    assert "Checkerboard" in slicer.util.getNode(composite.GetBackgroundVolumeID()).GetName()
    assert composite.GetForegroundVolumeID() is None
    ready.look("checkerboard")


def useLayout(user, number: int) -> None:
    """Choose another layout, as the menu of the application does."""
    user.application.layoutManager().layoutLogic().GetLayoutNode().SetViewArrangement(number)
    assert not user.panel.views.isOpen


@pytest.mark.parametrize(
    "act",
    [
        lambda user: user.pick("modeBox", "Checkerboard"),
        lambda user: setattr(user.ui.fadeSlider, "value", 30),
        lambda user: user.choose(0),
        lambda user: user.click("drawButton") or user.click("lookButton"),
    ],
    ids=["mode", "fade", "row", "region"],
)
def test_comparison_comes_back_after_another_layout(ready, server, act):
    anonymize(ready, server)
    ready.pick("modeBox", "Fade")
    useLayout(ready, 29)
    ready.panel.refresh()
    assert not ready.panel.views.isOpen

    act(ready)

    assert ready.panel.views.isOpen
    views = [ready.application.layoutManager().sliceWidget(tag) for tag in ("CXROrig", "CXRDiff")]
    assert all(view.isVisible() for view in views)
    assert all(view.sliceLogic().GetSliceCompositeNode().GetBackgroundVolumeID() for view in views)


def test_layout_from_before_returns_while_another_module_is_seen(ready, server):
    node = ready.application.layoutManager().layoutLogic().GetLayoutNode()
    before = node.GetViewArrangement()
    ready.click("anonymizeButton")
    ready.choose(0)
    assert ready.panel.views.isOpen

    ready.widget.exit()
    assert node.GetViewArrangement() == before
    finish(server)
    ready.waitFor(lambda: ready.states()[0] == "To review")
    assert node.GetViewArrangement() == before

    ready.widget.enter()
    assert ready.panel.views.isOpen


def test_click_shows_the_image_where_nobody_said_that_the_module_is_seen(ready):
    ready.panel.enter(False)

    ready.choose(0)

    assert ready.panel.views.isOpen
    ready.key(Qt.Key.Key_N)
    assert ready.ui.imagesTable.currentRow() == 1


def test_decision_names_the_bytes_that_are_shown(ready, server):
    anonymize(ready, server)
    server.on(f"POST {API}/jobs/0f/review", job("rejected"))
    ready.type("commentEdit", "a ring")

    ready.click("rejectButton")

    ready.waitFor(lambda: ready.states()[0] == "Rejected")
    said = next(r for r in server.requests if r.path.endswith("/review"))
    assert SHA256.encode() in said.content and b"a ring" in said.content


def test_queue_is_counted_and_walked_round(user, server, monkeypatch):
    monkeypatch.setattr("PrivDiffLib.Reviewing.COUNT_SECONDS", 0.1)
    server.on(f"GET {API}/jobs", {"jobs": [], "next": None, "counts": {}})
    user.connect(server.url)
    user.waitFor(lambda: "Awaiting review on the server: 0" in user.ui.queueLabel.text)
    assert not user.ui.queueButton.enabled
    server.on(f"GET {API}/jobs", {"jobs": [], "next": None, "counts": {"awaiting_review": 2}})
    user.waitFor(lambda: user.ui.queueButton.enabled)

    for name in ("a1", "b2"):
        server.on(
            f"GET {API}/jobs/{name}/result",
            Reply(CONTENT, headers={"X-PrivDiff-SHA256": SHA256}),
        )
        server.on(f"GET {API}/jobs/{name}/source", Reply(PICTURE))
    end = Reply({"error": "not_found", "message": "m", "hint": "h"}, 404)
    found = [job("awaiting_review", id=name, figures=FIGURES) for name in ("a1", "b2")]
    server.on(f"POST {API}/review/next", *found, end, found[0])
    for name in ("a1", "b2", "a1"):
        user.waitFor(lambda: user.ui.queueButton.enabled)
        user.click("queueButton")
        user.waitFor(lambda name=name: name in user.ui.caseLabel.text)

    asked = [r.path.partition("?")[2] for r in server.requests if "/review/next" in r.path]
    assert asked == ["", "after=a1", "after=b2", ""]


def test_held_image_says_why(ready, server):
    why = "this does not look like an upright frontal chest radiograph; check view"
    finish(server, "held", reason=why)
    ready.click("anonymizeButton")

    ready.waitFor(lambda: ready.states()[0] == "Held")

    shown = "This does not look like an upright frontal chest radiograph. Check view."
    assert ready.ui.reasonLabel.text == shown and ready.ui.reasonLabel.visible
    assert "held" in ready.ui.approveButton.toolTip
    assert ready.ui.imagesTable.cellWidget(0, 2) is None
    ready.look("held")


def test_malformed_header_stops_no_other_image(ready, server, monkeypatch, tmp_path, caplog):
    database = Database()
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    _volume, content = addDicom(database, tmp_path, "film", WindowCenter=2047, WindowWidth=4095)
    path = next(tmp_path.glob("*.dcm"))
    path.write_bytes(content.replace(b"2047", b"x047"))
    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 4)
    ready.check(0, 3)

    ready.click("anonymizeButton")
    finish(server)

    ready.waitFor(lambda: ready.states()[0] == "To review")
    assert ready.states()[3] == "Failed" and "unexpected" in ready.tooltips()[3]
    assert "x047" not in caplog.text and "Doe" not in caplog.text


def test_image_that_is_cancelled_on_its_way_is_cancelled_there_too(ready, server):
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201, silence=0.3))
    server.on(f"DELETE {API}/jobs/0f", job("cancelled"))
    ready.click("anonymizeButton")

    ready.click("cancelButton")

    assert ready.states()[0] == "Cancelled"
    ready.waitFor(lambda: any(request.method == "DELETE" for request in server.requests))
    assert ready.states()[0] == "Cancelled" and ready.ui.anonymizeButton.enabled


@pytest.mark.parametrize("how", ["consent", "server", "cancel"])
def test_original_that_waits_does_not_leave_any_more(ready, server, how):
    ready.check(0, 1, 2)
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201, silence=1.5))
    server.on(f"DELETE {API}/jobs/0f", job("cancelled"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: uploads(server) == 1)

    if how == "consent":
        ready.tick("consentBox")
    elif how == "server":
        ready.type("serverBox", "http://127.0.0.1:9")
        ready.click("connectButton")
    else:
        ready.click("cancelButton")

    assert ready.states() == ["Cancelled"] * 3
    ready.waitFor(lambda: any(request.method == "DELETE" for request in server.requests))
    time.sleep(0.5)
    assert uploads(server) == 1


def test_original_is_not_sent_again_after_cancelling(ready, server, monkeypatch):
    monkeypatch.setattr("PrivDiffLib.privdiff_client.transport.WAIT_SECONDS", (0.3,))
    server.on(f"POST {API}/jobs", Reply(None, 503))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: uploads(server) == 1)

    ready.click("cancelButton")
    time.sleep(0.6)

    assert uploads(server) == 1


def uploads(server) -> int:
    return len([r for r in server.requests if r.method == "POST" and r.path == f"{API}/jobs"])


def test_other_server_is_not_asked_about_a_job(ready, server):
    anonymize(ready, server)
    with running() as other:
        for route in ("health", "me", "models", "jobs"):
            other.script[f"GET {API}/{route}"] = list(server.script[f"GET {API}/{route}"])
        ready.connect(other.url)
        ready.choose(0)

        assert server.url in ready.ui.approveButton.toolTip
        assert not ready.ui.approveButton.enabled
        assert not [r for r in other.requests if "0f" in r.path]
    ready.connect(server.url)
    assert ready.ui.approveButton.enabled


def test_job_of_another_server_can_be_let_go(ready, server):
    server.on(f"GET {API}/jobs/0f", job("running"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")
    with running() as other:
        for route in ("health", "me", "models", "jobs"):
            other.script[f"GET {API}/{route}"] = list(server.script[f"GET {API}/{route}"])
        ready.connect(other.url)
        ready.click("cancelButton")

        assert ready.states()[0] == "Cancelled" and server.url in ready.tooltips()[0]
        assert not [r for r in other.requests if "0f" in r.path]


def test_cancelled_fetching_can_be_followed_by_another_run(ready, server):
    headers = {"X-PrivDiff-SHA256": SHA256}
    server.on(f"GET {API}/jobs/0f/result", Reply(CONTENT, headers=headers, silence=0.5))
    finish(server)
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Fetching")

    ready.click("cancelButton")

    assert ready.states()[0] == "Failed" and "was cancelled" in ready.tooltips()[0]
    server.on(f"GET {API}/jobs/0f/result", Reply(CONTENT, headers=headers))
    anonymize(ready, server)


@pytest.mark.parametrize("batch", ["", "b"])
def test_job_that_the_server_does_not_have_any_more_ends(ready, server, batch):
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued", batch=batch)]}, 201))
    gone = {"error": "not_found", "message": "m", "hint": "h"}
    server.on(f"GET {API}/jobs/0f", Reply(gone, 404))

    ready.click("anonymizeButton")

    ready.waitFor(lambda: ready.states()[0] == "Failed")
    assert "has no job" in ready.tooltips()[0] and ready.ui.anonymizeButton.enabled


def test_cancel_reaches_the_server(ready, server):
    server.on(f"DELETE {API}/jobs/0f", job("cancelled"))
    server.on(
        f"GET {API}/jobs/0f", job("running", progress={"step": 1, "steps": 4, "fraction": 0.25})
    )
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")

    ready.click("cancelButton")

    ready.waitFor(lambda: ready.states()[0] == "Cancelled")
    assert ready.ui.anonymizeButton.enabled and not ready.ui.cancelButton.enabled


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply({"error": "e", "message": "no token came", "hint": "give one"}, 401), "Give one"),
        (Reply(b"<html>", 500), "status 500"),
        (Reply(None, 302, {"Location": "http://x/"}), "another address"),
        (Reply(b"<html>hello</html>"), "no JSON"),
        (Reply({"error": "e", "message": "m", "hint": "h"}, 404), "no PrivDiff server"),
    ],
)
def test_server_that_does_not_let_us_in_is_explained(user, server, reply, words):
    server.on(f"GET {API}/me", reply)

    user.connect(server.url, "a-token")

    assert words in user.ui.statusLabel.text and "a-token" not in user.ui.statusLabel.text
    server.on(f"GET {API}/me", {"name": "ann", "role": "user"})
    user.click("connectButton")
    user.waitFor(lambda: "Connected" in user.ui.statusLabel.text)
    assert "role reviewer" in user.ui.queueButton.toolTip


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "hospital", "http://h.example.org"])
def test_address_without_a_server_is_explained(user, address):
    user.connect(address, "a-token")

    assert re.search("Check the address|Write https|Use an https", user.ui.statusLabel.text)
    assert user.ui.connectButton.enabled


def test_another_attempt_replaces_one_that_hangs(user, server):
    with running() as mute:
        mute.on(f"GET {API}/health", Reply({"version": "0"}, silence=3))
        user.type("serverBox", mute.url)
        user.click("connectButton")
        begin = time.monotonic()

        user.connect(server.url)

        assert time.monotonic() - begin < 3 and server.url in user.ui.statusLabel.text


def test_decision_does_not_wait_for_uploads(ready, server):
    anonymize(ready, server)
    server.on(f"POST {API}/jobs/0f/review", job("rejected"))
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued", id="1f")]}, 201, silence=5))
    ready.check(1)
    ready.click("anonymizeButton")
    ready.choose(0)

    ready.click("rejectButton")

    ready.waitFor(lambda: ready.states()[0] == "Rejected")
    assert ready.states()[1] == "Sending"


def test_interface_lives_while_the_server_is_slow(ready, server):
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201, silence=1.0))
    begin = time.monotonic()

    ready.click("anonymizeButton")
    pressed = time.monotonic() - begin
    ready.choose(1)

    assert pressed < 0.7 and ready.states()[0] == "Sending"
    ready.waitFor(lambda: ready.states()[0] != "Sending")


@pytest.mark.parametrize("status", [400, 429, 500])
def test_failed_upload_says_why_and_can_be_repeated(ready, server, status):
    server.on(f"POST {API}/jobs", Reply({"error": "e", "message": "why", "hint": "do"}, status))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Failed")
    assert ready.tooltips()[0] == "Why. Do."

    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201))
    anonymize(ready, server)


def test_job_outlives_a_restart_of_the_server(ready, server):
    server.on(f"GET {API}/jobs/0f", job("running"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")

    server.on(f"GET {API}/jobs/0f", Reply(None, cut=True))
    ready.waitFor(lambda: "does not answer now" in ready.ui.statusLabel.text)
    finish(server)
    ready.waitFor(lambda: ready.states()[0] == "To review")

    assert "Connected" in ready.ui.statusLabel.text


def test_other_bytes_than_named_are_not_shown(ready, server):
    server.on(f"GET {API}/jobs/0f/result", Reply(b"x", headers={"X-PrivDiff-SHA256": SHA256}))
    ready.click("anonymizeButton")
    finish(server)
    ready.waitFor(lambda: ready.states()[0] == "Failed")

    assert "not those of the record" in ready.tooltips()[0]
    assert not ready.ui.approveButton.enabled


def test_another_run_withdraws_the_approval(ready, server):
    anonymize(ready, server)
    server.on(f"POST {API}/jobs/0f/review", job("approved"))
    ready.click("approveButton")
    ready.waitFor(lambda: ready.ui.publishButton.enabled)
    finish(server, "approved")
    server.on(f"POST {API}/jobs/0f/review", job("rejected"))
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued", id="1f")]}, 201))
    server.on(f"GET {API}/jobs/1f", job("running", id="1f"))

    ready.click("anonymizeButton")

    assert not ready.ui.publishButton.enabled
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")
    assert b"replaced by another run" in server.requests_to("/review")[-1].content


def approve(user, server, name: str = "approved", **fields: object) -> None:
    anonymize(user, server)
    server.on(f"POST {API}/jobs/0f/review", job(name, **fields))
    user.click("approveButton")
    user.waitFor(lambda: server.requests_to("/review") and not user.panel.reviewing.isBusy)
    finish(server, name, **fields)
    server.on(f"POST {API}/jobs/0f/review", job("rejected"))
    server.on(f"GET {API}/jobs/1f", job("running", id="1f"))


def test_approval_is_withdrawn_by_the_run_after_one_that_failed(ready, server):
    approve(ready, server)
    server.on(f"GET {API}/jobs/0f", Reply(None, 500))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Failed")
    finish(server, "approved")
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued", id="1f")]}, 201))

    ready.click("anonymizeButton")

    ready.waitFor(lambda: ready.states()[0] == "Redrawing")
    assert b"replaced by another run" in server.requests_to("/review")[-1].content


def test_another_run_withdraws_the_first_of_two_approvals(ready, server):
    approve(ready, server, "awaiting_review", approvals=["ann"])
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued", id="1f")]}, 201))

    ready.click("anonymizeButton")

    ready.waitFor(lambda: ready.states()[0] == "Redrawing")
    assert b"replaced by another run" in server.requests_to("/review")[-1].content


def test_user_who_may_not_withdraw_an_approval_is_told(ready, server):
    approve(ready, server)
    refusal = {"error": "forbidden", "message": "m", "hint": "h"}
    server.on(f"POST {API}/jobs/0f/claim", Reply(refusal, 403))
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued", id="1f")]}, 201))

    ready.click("anonymizeButton")

    ready.waitFor(lambda: ready.states()[0] == "Redrawing")
    assert "still approved" in ready.tooltips()[0] and "reviewer" in ready.tooltips()[0]


def test_publishing_that_is_refused_can_be_repeated(ready, server):
    anonymize(ready, server)
    server.on(f"POST {API}/jobs/0f/review", job("approved"))
    ready.click("approveButton")
    ready.waitFor(lambda: ready.ui.publishButton.enabled)
    refusal = {"error": "conflict", "message": "the store is full", "hint": "ask who runs it"}
    server.on(f"POST {API}/jobs/0f/publish", Reply(refusal, 409))

    ready.click("publishButton")

    ready.waitFor(lambda: ready.ui.messageFrame.visible)
    assert ready.ui.messageLabel.text == "The store is full. Ask who runs it."
    ready.click("dismissButton")
    answer = {"job": job("published"), "store_answer": "taken"}
    server.on(f"POST {API}/jobs/0f/publish", answer)
    ready.click("publishButton")
    ready.waitFor(lambda: ready.states()[0] == "Published")
    assert ready.ui.imagesTable.item(0, 4).text() == "taken"
    assert "published already" in ready.ui.approveButton.toolTip


def test_marked_region_must_be_looked_at(ready, server):
    anonymize(ready, server)

    ready.click("drawButton")
    assert "marked region" in ready.ui.approveButton.toolTip and ready.ui.rejectButton.enabled
    ready.look("region")
    ready.click("lookButton")

    assert ready.ui.approveButton.enabled and "not looked at: 0" in ready.ui.regionLabel.text
    node = ready.application.layoutManager().sliceWidget("CXRAnon").sliceLogic().GetSliceNode()
    assert min(node.GetFieldOfView()[:2]) < 250


def test_region_that_is_moved_must_be_looked_at_again(ready, server):
    anonymize(ready, server)
    ready.click("drawButton")
    ready.click("lookButton")
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLMarkupsROINode")

    node.SetSize([value * 2 for value in node.GetSize()])
    ready.click("approveButton")

    assert not ready.ui.approveButton.enabled and not server.requests_to("/review")
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    ready.click("lookButton")
    assert ready.ui.approveButton.enabled
    assert ready.application.layoutManager().sliceWidget("CXRAnon").isVisible()


def test_segmentation_can_mark_a_region(ready, server):
    anonymize(ready, server)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "nodule")
    ready.ui.regionSelector.setCurrentNode(node)

    ready.click("addRegionButton")

    assert "not looked at: 1" in ready.ui.regionLabel.text and not ready.ui.approveButton.enabled


def test_keys_go_through_the_images_but_not_while_typing(ready):
    ready.choose(0)

    ready.key(Qt.Key.Key_N)
    assert ready.ui.imagesTable.currentRow() == 1
    ready.key(Qt.Key.Key_P)
    ready.key(Qt.Key.Key_P)
    assert ready.ui.imagesTable.currentRow() == 2
    ready.widget.exit()
    ready.key(Qt.Key.Key_N)
    assert ready.ui.imagesTable.currentRow() == 2


def test_closing_the_scene_ends_jobs_and_empties_the_table(ready, server):
    server.on(f"DELETE {API}/jobs/0f", job("cancelled"))
    server.on(f"GET {API}/jobs/0f", job("running"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")

    slicer.mrmlScene.Clear(0)

    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 0)
    ready.waitFor(lambda: any(request.method == "DELETE" for request in server.requests))
    ready.click("sampleButton")
    assert ready.ui.imagesTable.rowCount == 3


def test_deleting_a_volume_ends_its_job(ready, server):
    server.on(f"DELETE {API}/jobs/0f", job("cancelled"))
    server.on(f"GET {API}/jobs/0f", job("running"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")
    case = ready.panel.anonymizing.cases[0]

    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(case.volumeID))

    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 2)
    ready.waitFor(lambda: any(request.method == "DELETE" for request in server.requests))


def test_deleting_a_result_without_its_original_ends_its_case(ready, server):
    anonymize(ready, server)
    case = ready.panel.anonymizing.cases[0]
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(case.volumeID))
    ready.waitFor(lambda: not case.volumeID)
    assert ready.ui.imagesTable.rowCount == 3

    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(case.resultID))

    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 2)


def test_result_outlives_the_removal_of_originals(ready, server):
    film = addPixels(shape=(256, 256))
    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 4)
    ready.check(3)
    ready.choose(3)
    anonymize(ready, server)
    case = ready.panel.anonymizing.cases[3]
    result = ready.panel.images.resultOf(case)

    ready.click("removeOriginalsButton")

    ready.waitFor(lambda: not case.volumeID)
    assert ready.panel.images.resultOf(case) is result and ready.states()[3] == "To review"
    roles = [node.GetAttribute("PrivDiff.Role") for node in volumes()]
    assert film not in volumes() and roles.count("anonymized") == 1 and "difference" not in roles
    composite = ready.application.layoutManager().sliceWidget("CXRAnon").sliceLogic()
    assert composite.GetSliceCompositeNode().GetBackgroundVolumeID() == case.resultID
    server.on(f"POST {API}/jobs/0f/review", job("approved"))
    ready.click("approveButton")
    ready.waitFor(lambda: ready.states()[3] == "Approved")


def test_originals_are_not_removed_while_images_are_redrawn(ready, server):
    addPixels()
    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 4)
    server.on(f"GET {API}/jobs/0f", job("running"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")

    assert not ready.ui.removeOriginalsButton.enabled
    assert "being redrawn" in ready.ui.removeOriginalsButton.toolTip


def volumes():
    return slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene)


def test_reload_of_the_module_stops_everything_and_keeps_the_settings(ready, server):
    ready.pick("profileBox", "fast")
    ready.tick("rememberBox")
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201, silence=0.5))
    ready.click("anonymizeButton")

    ready.application.close(ready.widget)
    again = ready.application.open(MODULE)

    panel = again.panel
    assert panel.settings.servers[0] == server.url and panel.settings.profile == "fast"
    assert panel.settings.mayReceive(server.url)
    kept = " ".join(str(qt_value) for qt_value in stored(ready.application))
    assert "token" not in kept
    ready.application.close(again)
    ready.widget.panel = None


def stored(application) -> list[object]:
    settings = application.userSettings()
    return [settings.value(key) for key in settings.allKeys()]


@pytest.mark.parametrize("name", ["scene.mrml", "scene.mrb", "folder"])
def test_saving_a_scene_with_originals_warns(ready, caplog, tmp_path, name):
    path = tmp_path / name
    assert slicer.util.saveScene(str(path)) and path.exists()
    assert "original images" not in caplog.text
    addPixels()

    assert slicer.util.saveScene(str(path))

    assert "holds 1 original images" in caplog.text


def test_unloaded_module_does_not_warn(ready, caplog, tmp_path):
    addPixels()
    ready.application.close(ready.widget)

    assert slicer.util.saveScene(str(tmp_path / "scene.mrml"))

    assert "original images" not in caplog.text


def test_volume_without_display_is_compared(ready, server):
    film = addPixels(shape=(256, 256))
    slicer.mrmlScene.RemoveNode(film.GetDisplayNode())
    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 4)
    ready.check(3)

    ready.choose(3)
    anonymize(ready, server)

    assert ready.states()[3] == "To review" and not ready.ui.messageFrame.visible
    film.GetDisplayNode().SetWindowLevel(100, 60)
    result = ready.panel.images.resultOf(ready.panel.anonymizing.cases[3])
    assert result.GetDisplayNode().GetWindow() == pytest.approx(100 / 254, rel=0.05)


def test_module_opens_without_a_main_window(application, scene, monkeypatch):
    monkeypatch.setattr(application, "topLevelWidgets", lambda: [])
    monkeypatch.setattr(application, "layoutManager", lambda: None)
    made = []
    monkeypatch.setattr("qt.QShortcut", made.append)

    application.close(application.open(MODULE))

    assert made == []


def test_self_test_of_the_module_passes(application, scene):
    widget = application.open(MODULE)
    import PrivDiff

    PrivDiff.PrivDiffTest().runTest()

    application.close(widget)
