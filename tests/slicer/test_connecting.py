"""Servers, consent, and what the panel says of either."""

from __future__ import annotations

import re
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
import slicer
from PrivDiffLib.SceneImages import images, originals

from tests.slicer.fixtures import MODULE
from tests.slicer.scripted import API, anonymize, finish, job
from tests.unit.scripted_server import Reply, running


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


def test_job_outlives_a_restart_of_the_server(ready, server):
    server.on(f"GET {API}/jobs/0f", job("running"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")

    server.on(f"GET {API}/jobs/0f", Reply(None, cut=True))
    ready.waitFor(lambda: "does not answer now" in ready.ui.statusLabel.text)
    finish(server)
    ready.waitFor(lambda: ready.states()[0] == "To review")

    assert "Connected" in ready.ui.statusLabel.text


def test_module_opens_without_a_main_window(application, scene, monkeypatch):
    monkeypatch.setattr(application, "topLevelWidgets", lambda: [])
    monkeypatch.setattr(application, "layoutManager", lambda: None)
    made = []
    monkeypatch.setattr("qt.QShortcut", made.append)

    application.close(application.open(MODULE))

    assert made == []


def test_samples_are_where_users_of_slicer_look_for_them(application, scene):
    import SampleData

    widget = application.open(MODULE)
    slicer.modules.sampleDataSources = {}
    application.tellStarted()
    (source,) = slicer.modules.sampleDataSources["PrivDiff"]

    volumes = SampleData.SampleDataLogic().downloadSamples(source.sampleName)

    application.waitUntil(lambda: widget.panel.anonymizing.cases)
    assert len(volumes) == len(source.fileNames) == 3
    assert originals(scene) == [] and images(scene) == volumes
    assert Path(source.thumbnailFileName).is_file()
    assert all(Path(url2pathname(urlsplit(uri).path)).is_file() for uri in source.uris)
    application.close(widget)


def test_self_test_of_the_module_passes(application, scene):
    widget = application.open(MODULE)
    import PrivDiff

    PrivDiff.PrivDiffTest().runTest()

    application.close(widget)
