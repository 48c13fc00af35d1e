"""Decisions, the queue, regions and publishing."""

from __future__ import annotations

import slicer
from PrivDiffLib.privdiff_client import Decision
from PySide6 import QtWidgets

from tests.slicer.scripted import (
    API,
    CONTENT,
    FIGURES,
    PICTURE,
    SHA256,
    anonymize,
    finish,
    job,
)
from tests.unit.scripted_server import Reply


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
    assert "held" in ready.ui.approveButton.toolTip and not ready.ui.rejectButton.enabled
    assert ready.ui.imagesTable.cellWidget(0, 2) is None
    ready.look("held")


WHY = "the result is too similar to its original; queue it again with more strength"


def hold(user, server, **fields: object) -> None:
    figures = {**FIGURES, "identity_similarity": 0.72}
    server.on(f"GET {API}/jobs/0f", job("held", reason=WHY, figures=figures, **fields))
    user.click("anonymizeButton")
    user.waitFor(lambda: user.states()[0] == "Held")


def test_held_result_is_seen_and_rejected_but_not_approved(ready, server):
    hold(ready, server, media_type="application/x-nrrd")
    ready.waitFor(lambda: ready.ui.rejectButton.enabled)

    assert "can be rejected alone" in ready.ui.approveButton.toolTip
    assert not ready.ui.approveButton.enabled and "too similar" in ready.ui.reasonLabel.text
    assert ready.panel.views.isOpen
    ready.look("held-result")
    rejected = job("rejected", reason=WHY, media_type="application/x-nrrd")
    server.on(f"POST {API}/jobs/0f/review", rejected)
    ready.type("commentEdit", "as before")
    ready.click("rejectButton")

    ready.waitFor(lambda: ready.states()[0] == "Rejected")
    said = server.requests_to("/review")[-1].content
    assert b'"rejected"' in said and SHA256.encode() in said and b"as before" in said
    assert not ready.ui.approveButton.enabled
    case = ready.panel.anonymizing.cases[0]
    ready.panel.reviewing.decide(case, Decision.APPROVED, "")
    assert len(server.requests_to("/review")) == 1


def test_image_that_was_held_before_it_was_redrawn_is_not_decided(ready, server):
    hold(ready, server, sha256="")

    assert "nothing to decide" in ready.ui.rejectButton.toolTip
    assert not ready.ui.rejectButton.enabled and not server.requests_to("/result?kind=file")


def test_held_result_is_not_fetched_for_who_may_not_see_it(ready, server):
    server.on(f"GET {API}/me", {"name": "ann", "role": "user"})
    ready.connect(server.url)
    hold(ready, server, media_type="application/x-nrrd")

    assert not server.requests_to("/result?kind=file") and ready.ui.reasonLabel.visible


def test_held_result_leaves_the_scene_with_the_originals(ready, server):
    hold(ready, server, media_type="application/x-nrrd")
    ready.waitFor(lambda: ready.ui.rejectButton.enabled)
    held = ready.panel.images.resultOf(ready.panel.anonymizing.cases[0])

    assert not held.GetSaveWithScene() and held.GetName().startswith("Held")
    ready.click("removeOriginalsButton")
    assert slicer.mrmlScene.GetNodeByID(held.GetID()) is None


def test_held_result_that_comes_too_late_is_left_alone(ready, server):
    headers = {"X-PrivDiff-SHA256": SHA256}
    server.on(f"GET {API}/jobs/0f/result", Reply(b"x", headers=headers, silence=0.5))
    hold(ready, server, media_type="application/x-nrrd")
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued", id="1f")]}, 201))
    server.on(f"GET {API}/jobs/1f", job("awaiting_review", id="1f", figures=FIGURES))
    server.on(f"GET {API}/jobs/1f/result", Reply(CONTENT, headers=headers))

    ready.click("anonymizeButton")

    ready.waitFor(lambda: ready.ui.approveButton.enabled)
    assert ready.states()[0] == "To review" and not ready.ui.messageFrame.visible
    assert len(server.requests_to("/result?kind=file")) == 2 and ready.tooltips()[0] == "To review"


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


def test_publishing_that_is_refused_can_be_repeated(ready, server):
    anonymize(ready, server)
    server.on(f"POST {API}/jobs/0f/review", job("approved"))
    ready.click("approveButton")
    ready.waitFor(lambda: ready.ui.publishButton.enabled)
    refusal = {"error": "conflict", "message": "the store is full", "hint": "ask who runs it"}
    server.on(f"POST {API}/jobs/0f/publish", Reply(refusal, 409))
    area = ready.application.window.findChild(QtWidgets.QScrollArea)
    area.verticalScrollBar().setValue(area.verticalScrollBar().maximum())
    assert area.verticalScrollBar().value() > 0

    ready.click("publishButton")

    ready.waitFor(lambda: ready.ui.messageFrame.visible)
    assert ready.ui.messageLabel.text == "The store is full. Ask who runs it."
    ready.waitFor(lambda: not ready.ui.messageFrame.visibleRegion().isEmpty())
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
