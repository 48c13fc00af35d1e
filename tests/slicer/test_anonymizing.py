"""Images on their way to a server and back, where it misbehaves as told."""

from __future__ import annotations

import pytest
import slicer

from tests.slicer.radiographs import Database, addDicom
from tests.slicer.scripted import API, CONTENT, SHA256, anonymize, finish, job, uploads
from tests.unit.scripted_server import Reply, running


def test_risk_of_the_setting_stands_beside_it(ready):
    assert "moderate" in ready.ui.riskLabel.text and "0.75" in ready.ui.riskLabel.text

    ready.ui.strengthSlider.value = 0.4
    assert "nearest measured strength, 0.70" in ready.ui.riskLabel.text
    ready.pick("profileBox", "fast")
    assert ready.ui.riskLabel.text == "The risk of this setting was not measured."
    assert ready.ui.strengthSlider.value == 0.8


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
    # Sending is undone by the thread that sends, after all that it had to send.
    ready.waitFor(lambda: any(request.method == "DELETE" for request in server.requests))
    assert uploads(server) == 1


def test_original_is_not_sent_again_after_cancelling(ready, server, monkeypatch):
    monkeypatch.setattr("PrivDiffLib.privdiff_client.transport.WAIT_SECONDS", (30,))
    server.on(f"POST {API}/jobs", Reply(None, 503))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: uploads(server) == 1)

    ready.click("cancelButton")

    # Originals leave one after the other: once the second one has left, the first one never will.
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued", id="1f")]}, 201))
    ready.check(1)
    ready.click("anonymizeButton")
    ready.waitFor(lambda: uploads(server) == 2)
    first, second = (r for r in server.requests if r.method == "POST" and "/jobs" in r.path)
    assert len(first.content) != len(second.content)


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


def test_interface_lives_while_the_server_is_slow(ready, server):
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201, silence=1.0))

    ready.click("anonymizeButton")
    ready.choose(1)

    assert ready.states()[0] == "Sending" and ready.ui.imagesTable.currentRow() == 1
    ready.waitFor(lambda: ready.states()[0] != "Sending")


@pytest.mark.parametrize("status", [400, 429, 500])
def test_failed_upload_says_why_and_can_be_repeated(ready, server, status):
    server.on(f"POST {API}/jobs", Reply({"error": "e", "message": "why", "hint": "do"}, status))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Failed")
    assert ready.tooltips()[0] == "Why. Do."

    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201))
    anonymize(ready, server)


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
