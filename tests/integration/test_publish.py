"""From a store to a store: query, anonymize, approve, publish; and what can go wrong."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner, Result

from privdiff_infer import publish as publish_module
from privdiff_infer.cli import app
from privdiff_infer.dicom import web_session
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.dicom.web import DicomwebStore, open_store
from privdiff_infer.dicom.web_session import Access
from privdiff_infer.published_ledger import PublishedLedger
from tests.integration.orthanc import Orthanc, needs_orthanc, running_orthanc
from tests.integration.test_dicomweb_sources import STUDY, query, radiograph
from tests.integration.unruly_proxy import Answer, Forward, Proxy, Request, running_proxy
from tests.unit.outputs import AUDIT_KEY, read_crosswalk

pytestmark = needs_orthanc

IMAGES = 3
SECRETS = ("s3cret", "Doe", "PHI-4711", STUDY)


@pytest.fixture(autouse=True)
def quick_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_session, "WAIT_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(publish_module, "WAIT_SECONDS", (0.01,) * 3)
    monkeypatch.setenv("PRIVDIFF_LEDGER_FILE", str(tmp_path / "ledger"))


@pytest.fixture
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("target")) as store:
        yield store


@pytest.fixture
def proxy(target: Orthanc) -> Iterator[Proxy]:
    with running_proxy(target.url.removesuffix("/dicom-web")) as running:
        yield running


def fill(store: Orthanc) -> None:
    store.clear()
    for number in range(IMAGES):
        store.add(radiograph(number, number, InstanceNumber=number, ViewPosition="AP"))


@pytest.fixture(scope="module")
def approved_run(
    shared_orthanc: Orthanc, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run over a store, whose results are all approved; for copying only."""
    folder = tmp_path_factory.mktemp("approved")
    key = folder / "audit-key"
    key.touch(0o600)
    key.write_bytes(AUDIT_KEY)
    fill(shared_orthanc)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVDIFF_AUDIT_KEY_FILE", str(key))
        return approved(query(shared_orthanc), tiny_bundle, folder / "out")


@pytest.fixture
def out(orthanc: Orthanc, approved_run: Path, tmp_path: Path) -> Path:
    """A run over a store, whose results are all approved."""
    fill(orthanc)
    return Path(shutil.copytree(approved_run, tmp_path / "out"))


def approved(source: str, bundle: Path, out: Path, *options: str) -> Path:
    privdiff("anonymize", source, "-o", str(out), "--model", str(bundle), *options)
    privdiff("review", str(out), "--approve", "--all", "--reviewer", "A. Reader")
    return out


def privdiff(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def publish(out: Path, store: Orthanc | Proxy, code: int = 0) -> dict[str, int]:
    result = privdiff("publish", str(out), "--to", store.url, "--json", code=code)
    return dict(json.loads(result.stdout)["counts"])


def counts(published: int = 0, there: int = 0, failed: int = 0, pending: int = 0) -> dict[str, int]:
    return {
        "published": published,
        "already_there": there,
        "failed": failed,
        "not_approved": pending,
    }


def released(out: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (out / "release" / "images").iterdir())


def events(out: Path, *kinds: str) -> list[dict[str, Any]]:
    lines = (out / "private" / "audit.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] in kinds]


def answering(*answers: Answer | None) -> Callable[[Request, Forward], Answer | None]:
    """Give these answers to what is sent, then behave; what is asked is answered always."""
    left = iter(answers)

    def behave(request: Request, forward: Forward) -> Answer | None:
        if request.method == "POST":
            for answer in left:
                return answer
        return forward(request)

    return behave


def failed_sequence(reason: int) -> Callable[[Request, Forward], Answer | None]:
    """Take the first instance; refuse every other one in the words of PS3.18."""
    sent = 0

    def behave(request: Request, forward: Forward) -> Answer | None:
        nonlocal sent
        if request.method != "POST":
            return forward(request)
        sent += 1
        if sent == 1:
            return forward(request)
        content = request.body.partition(b"\r\n\r\n")[2]
        uid = str(pydicom.dcmread(BytesIO(content), stop_before_pixels=True).SOPInstanceUID)
        item = {
            "00081155": {"vr": "UI", "Value": [uid]},
            "00081197": {"vr": "US", "Value": [reason]},
        }
        body = json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()
        return Answer(409, {"Content-Type": "application/dicom+json"}, body)

    return behave


class TestRoundTrip:
    def test_the_store_holds_the_approved_bytes(
        self, out: Path, orthanc: Orthanc, target: Orthanc
    ) -> None:
        assert publish(out, target) == counts(published=IMAGES)

        assert sorted(target.files()) == released(out)
        assert {row["review"] for row in read_crosswalk(out / "private" / "crosswalk.csv")} == {
            "published"
        }
        assert {entry["target"] for entry in events(out, "published")} == {target.url}
        privdiff("verify", str(out))

    def test_what_is_retrieved_is_equal_in_every_tag_and_pixel(
        self, out: Path, target: Orthanc
    ) -> None:
        publish(out, target)
        store = DicomwebStore(target.url, Access())
        written = {}
        for content in released(out):
            dataset = pydicom.dcmread(BytesIO(content))
            written[dataset.SOPInstanceUID] = dataset

        found = [i for pair in store.series({"Modality": "CR"}) for i in store.instances(*pair)]

        assert {instance.instance for instance in found} == set(written)
        for instance in found:
            dataset = pydicom.dcmread(BytesIO(instance.read()))
            expected = written[instance.instance]
            assert dataset == expected
            assert dataset.file_meta.TransferSyntaxUID == expected.file_meta.TransferSyntaxUID
            np.testing.assert_array_equal(dataset.pixel_array, expected.pixel_array)
            assert not [secret for secret in SECRETS if secret in str(dataset)]

    def test_a_repeat_is_harmless_and_says_so(self, out: Path, target: Orthanc) -> None:
        publish(out, target)

        assert publish(out, target) == counts(there=IMAGES)

        assert len(target.files()) == IMAGES
        assert len(events(out, "published")) == IMAGES
        privdiff("verify", str(out))

    def test_a_second_store_gets_the_same_version(
        self, out: Path, orthanc: Orthanc, target: Orthanc
    ) -> None:
        publish(out, target)

        assert publish(out, orthanc) == counts(published=IMAGES)

        assert {entry["target"] for entry in events(out, "published")} == {orthanc.url, target.url}

    def test_resume_asks_for_nothing_that_is_done(
        self, orthanc: Orthanc, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        for number in range(2):
            orthanc.add(radiograph(number, number))
        with running_proxy(orthanc.url.removesuffix("/dicom-web")) as proxy:
            arguments = ("-o", str(tmp_path / "o"), "--model", str(tiny_bundle))

            def lose_one(request: Request, forward: Forward) -> Answer | None:
                lost = request.path.endswith(f"instances/{STUDY}.1.1")
                return Answer(404) if lost else forward(request)

            proxy.behaviour = lose_one
            privdiff("anonymize", query(proxy), *arguments, code=1)
            proxy.behaviour = lambda request, forward: forward(request)
            asked = len(proxy.requests)

            privdiff("anonymize", query(proxy), *arguments, "--resume")

            retrieved = [r.path for r in proxy.requests[asked:] if "?" not in r.path]
            assert [path.rpartition("/")[2] for path in retrieved] == [f"{STUDY}.1.1"]

    def test_cleaned_headers_go_the_same_way(
        self, orthanc: Orthanc, target: Orthanc, tmp_path: Path
    ) -> None:
        orthanc.add(radiograph())
        out = tmp_path / "cleaned"
        privdiff("deidentify", query(orthanc), "-o", str(out), "--accept-unchecked-text")
        privdiff("review", str(out), "--approve", "--all", "--reviewer", "A. Reader")

        assert publish(out, target) == counts(published=1)

        (content,) = target.files()
        assert [content] == released(out)
        original, cleaned = (pydicom.dcmread(BytesIO(c)) for c in (radiograph(), content))
        assert cleaned.PixelData == original.PixelData
        assert not [secret for secret in SECRETS if secret in str(cleaned)]

    def test_workers_fetch_for_themselves(
        self, orthanc: Orthanc, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        files = {radiograph(number, number) for number in range(3)}
        for file in files:
            orthanc.add(file)

        out = approved(
            query(orthanc), tiny_bundle, tmp_path / "two", "--workers", "2", "--seed", "7"
        )
        one = approved(query(orthanc), tiny_bundle, tmp_path / "one", "--seed", "7")

        assert released(out) == released(one)


class TestOnlyWhatWasApproved:
    def test_pending_and_rejected_results_stay(
        self, orthanc: Orthanc, target: Orthanc, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        for number in range(3):
            orthanc.add(radiograph(number, number))
        out = tmp_path / "out"
        privdiff("anonymize", query(orthanc), "-o", str(out), "--model", str(tiny_bundle))
        names = sorted(path.stem for path in (out / "release" / "images").iterdir())
        privdiff("review", str(out), names[0], "--approve", "--reviewer", "A. Reader")
        privdiff("review", str(out), names[1], "--reject", "--reviewer", "A. Reader")

        assert publish(out, target) == counts(published=1, pending=2)

        assert target.files() == [(out / "release" / "images" / f"{names[0]}.dcm").read_bytes()]

    def test_other_bytes_are_not_sent(self, out: Path, target: Orthanc) -> None:
        file = next((out / "release" / "images").iterdir())
        file.write_bytes(file.read_bytes() + b"\0")

        assert publish(out, target, code=1) == counts(published=IMAGES - 1, failed=1)

        (failure,) = events(out, "publish_failed")
        assert failure["reason"] == "the file is not the one that was approved"

    def test_a_picture_is_no_instance(
        self, pictures: Path, target: Orthanc, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        out = approved(str(pictures), tiny_bundle, tmp_path / "o", "--format", "png")

        result = privdiff("publish", str(out), "--to", target.url, code=1)

        assert result.stderr.count("the result is no DICOM file; redraw its source with") == 3
        assert target.files() == []

    def test_a_second_version_of_a_source_is_refused(
        self, out: Path, orthanc: Orthanc, target: Orthanc, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        other = approved(query(orthanc), tiny_bundle, tmp_path / "other")
        publish(out, target)

        assert publish(other, target, code=1) == counts(failed=IMAGES)
        assert publish(other, orthanc, code=1) == counts(failed=IMAGES)

        assert sorted(target.files()) == released(out)
        reasons = {entry["reason"] for entry in events(other, "publish_failed")}
        assert reasons == {"another version of its source was published already under this key"}

    def test_another_key_is_refused(
        self, out: Path, target: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = tmp_path / "another-key"
        key.touch(0o600)
        key.write_text("another key of tests, which is no secret")
        monkeypatch.setenv("PRIVDIFF_KEY_FILE", str(key))

        result = CliRunner().invoke(app, ["publish", str(out), "--to", target.url])

        assert "the run was made under the key" in str(result.exception)
        assert target.files() == []


class TestFailures:
    def test_passing_ones_are_tried_again(self, out: Path, target: Orthanc, proxy: Proxy) -> None:
        proxy.behaviour = answering(Answer(503), None, Answer(429))

        assert publish(out, proxy) == counts(published=IMAGES)

        assert sorted(target.files()) == released(out)

    @pytest.mark.parametrize("answer", [None, Answer(504), Answer(200, {}, b"<p>Thanks</p>")])
    def test_what_arrived_is_not_sent_twice(
        self, out: Path, target: Orthanc, proxy: Proxy, answer: Answer | None
    ) -> None:
        def lose_the_answer(request: Request, forward: Forward) -> Answer | None:
            real = forward(request)
            return answer if request.method == "POST" else real

        proxy.behaviour = lose_the_answer

        assert publish(out, proxy) == counts(published=IMAGES)

        assert proxy.count("POST") == IMAGES
        assert {entry["warning"] for entry in events(out, "published")} == {"found after a failure"}

    def test_a_store_that_takes_only_some(self, out: Path, target: Orthanc, proxy: Proxy) -> None:
        proxy.behaviour = failed_sequence(0xA700)

        result = privdiff("publish", str(out), "--to", proxy.url, code=1)

        assert result.stderr.count("refuses the instance (failure reason A700H)") == IMAGES - 1
        assert len(target.files()) == 1
        proxy.behaviour = answering()
        assert publish(out, proxy) == counts(published=IMAGES - 1, there=1)

    def test_after_a_refusal_another_version_may_go(
        self, out: Path, orthanc: Orthanc, proxy: Proxy, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        proxy.behaviour = answering(*[Answer(413)] * IMAGES)
        assert publish(out, proxy, code=1) == counts(failed=IMAGES)
        other = approved(query(orthanc), tiny_bundle, tmp_path / "other")

        assert publish(other, proxy) == counts(published=IMAGES)

    def test_after_silence_no_other_version_may_go(
        self, out: Path, orthanc: Orthanc, proxy: Proxy, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        proxy.behaviour = answering(*[Answer(503)] * 4 * IMAGES)
        assert publish(out, proxy, code=1) == counts(failed=IMAGES)
        other = approved(query(orthanc), tiny_bundle, tmp_path / "other")

        assert publish(other, proxy, code=1) == counts(failed=IMAGES)
        assert publish(out, proxy) == counts(published=IMAGES)

    def test_a_store_that_is_down(
        self, out: Path, orthanc: Orthanc, proxy: Proxy, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        proxy.behaviour = lambda *_: None
        assert publish(out, proxy, code=1) == counts(failed=IMAGES)
        privdiff("verify", str(out))

        assert proxy.count("POST") == 0
        proxy.behaviour = answering()
        other = approved(query(orthanc), tiny_bundle, tmp_path / "other")
        assert publish(other, proxy) == counts(published=IMAGES)  # nothing of `out` left

    def test_a_slow_store_costs_its_timeout(
        self, out: Path, target: Orthanc, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import time

        def sleep_over_the_first(request: Request, forward: Forward) -> Answer | None:
            answer = forward(request)
            if request.method == "POST" and proxy.count("POST") == 1:
                time.sleep(2)
            return answer

        monkeypatch.setenv("PRIVDIFF_DICOMWEB_TIMEOUT", "0.5")
        open_store.cache_clear()
        proxy.behaviour = sleep_over_the_first

        assert publish(out, proxy) == counts(published=IMAGES)
        assert proxy.count("POST") == IMAGES

    def test_wrong_credentials(
        self, out: Path, locked_orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_USER", "jane")
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_PASSWORD", "wr0ng-s3cret")

        result = privdiff("publish", str(out), "--to", locked_orthanc.url, code=1)
        assert "refuses the credentials (HTTP 401)" in result.stderr
        assert "s3cret" not in result.output + (out / "private" / "audit.jsonl").read_text()

        open_store.cache_clear()
        user, password = locked_orthanc.credentials or ("", "")
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_USER", user)
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_PASSWORD", password)
        assert publish(out, locked_orthanc) == counts(published=IMAGES)

    def test_a_redirect_is_not_followed(self, out: Path, target: Orthanc, proxy: Proxy) -> None:
        proxy.behaviour = answering(*[Answer(307, {"Location": f"{target.url}/studies"})] * IMAGES)

        result = privdiff("publish", str(out), "--to", proxy.url, code=1)

        assert "the store redirects what is sent to it (HTTP 307)" in result.stderr
        assert target.files() == []

    def test_ctrl_c_leaves_what_can_be_continued(
        self, out: Path, target: Orthanc, proxy: Proxy
    ) -> None:
        def interrupt_the_second(request: Request, forward: Forward) -> Answer | None:
            answer = forward(request)
            if request.method == "POST" and proxy.count("POST") == 2:
                process.send_signal(signal.SIGINT)
            return answer

        proxy.behaviour = interrupt_the_second
        command = [sys.executable, "-m", "privdiff_infer", "publish", str(out), "--to", proxy.url]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Where the tests run in the background, SIGINT is ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        _, stderr = process.communicate(timeout=120)

        assert process.returncode == 130, stderr
        assert b"publish again for the rest" in stderr
        privdiff("verify", str(out))
        proxy.behaviour = answering()
        again = publish(out, proxy)
        assert again["failed"] == 0 and again["published"] + again["already_there"] == IMAGES
        assert sorted(target.files()) == released(out)
        assert len(events(out, "published")) == IMAGES


def test_nothing_private_is_told(
    out: Path,
    proxy: Proxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRIVDIFF_DICOMWEB_TOKEN", "s3cret-token")
    open_store.cache_clear()
    caplog.set_level(logging.DEBUG)
    proxy.behaviour = answering(Answer(413, {}, b"Doe^Jane"), None, Answer(503))

    result = privdiff("publish", str(out), "--to", proxy.url, code=1)

    told = result.output + caplog.text + (out / "private" / "audit.jsonl").read_text()
    for file in (out / "release").rglob("*.*"):
        told += file.read_bytes().decode("latin-1") + file.name
    told += (tmp_path / "ledger").read_bytes().decode("latin-1")
    assert not [secret for secret in SECRETS if secret in told]


def test_the_ledger_holds_keyed_sources_alone(out: Path, target: Orthanc, tmp_path: Path) -> None:
    publish(out, target)

    with sqlite3.connect(tmp_path / "ledger") as database:
        rows = database.execute("SELECT source, instance, confirmed FROM published").fetchall()

    assert len(rows) == IMAGES and all(row[2] == 1 for row in rows)
    assert {row[1] for row in rows} == {
        pydicom.dcmread(BytesIO(content)).SOPInstanceUID for content in released(out)
    }
    assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o600
    ledger = PublishedLedger(tmp_path / "ledger", Pseudonyms.load())
    assert not ledger.claim(f"{STUDY}.0.0", "2.25.1")
