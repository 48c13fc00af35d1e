"""Instances of a real store as sources, whatever the store and the line do."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from privdiff_infer.dicom import web, web_session
from privdiff_infer.dicom.web import WebInstance, find_instances, open_store
from privdiff_infer.errors import ImageRejected, StoreError
from privdiff_infer.sources import find_sources, read_source
from tests.integration.orthanc import Orthanc, needs_orthanc, running_orthanc
from tests.integration.unruly_proxy import Answer, Proxy, running_proxy
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp

pytestmark = needs_orthanc

STUDY = "1.2.826.0.1.3680043.8.498.1"


def radiograph(number: int = 0, series: int = 0, **attributes: object) -> bytes:
    facts = {
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.{series}",
        "SOPInstanceUID": f"{STUDY}.{series}.{number}",
        "StudyDate": "20200102",
        "PatientName": "Doe^Jane",
    } | attributes
    dataset = radiograph_dataset(ramp(12), **facts)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dicom_bytes(dataset)


def query(store: Orthanc | Proxy, text: str = "Modality=CR,DX") -> str:
    return f"dicomweb+{store.url}?{text}"


@pytest.fixture
def proxy(orthanc: Orthanc) -> Iterator[Proxy]:
    with running_proxy(orthanc.url.removesuffix("/dicom-web")) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_session, "WAIT_SECONDS", (0.01, 0.01, 0.01))


class TestSearch:
    def test_finds_every_instance_once_and_gives_the_very_bytes(
        self, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web, "PAGE", 3)
        files = [radiograph(number, series) for series in range(4) for number in range(series + 2)]
        for file in files:
            orthanc.add(file)

        found = find_sources([query(orthanc), query(orthanc, "StudyDate=20200101-20200103")])

        assert sorted(map(read_source, found)) == sorted(files)

    def test_takes_the_values_of_a_list_one_by_one(self, orthanc: Orthanc) -> None:
        orthanc.add(radiograph(series=1, Modality="CR"))
        orthanc.add(radiograph(series=2, Modality="DX"))
        orthanc.add(radiograph(series=3, Modality="OT"))

        found = [instance.series for instance in find_instances(query(orthanc))]

        assert sorted(found) == [f"{STUDY}.1", f"{STUDY}.2"]

    @pytest.mark.parametrize("pages_of", [3, 1000])
    def test_ends_where_a_store_knows_no_offset(
        self, orthanc: Orthanc, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, pages_of: int
    ) -> None:
        monkeypatch.setattr(web, "PAGE", pages_of)
        for number in range(7):
            orthanc.add(radiograph(number))
        proxy.behaviour = lambda request, forward: forward(
            type(request)(
                request.method,
                request.path.replace("offset=", "ignored="),
                request.headers,
                request.body,
            )
        )

        assert len(find_instances(query(proxy))) == 7

    def test_nothing_found_is_said(self, orthanc: Orthanc) -> None:
        with pytest.raises(StoreError, match="the query finds no instance"):
            find_instances(query(orthanc, "Modality=MG"))

    def test_a_web_page_is_no_store(self, proxy: Proxy) -> None:
        proxy.behaviour = lambda *_: Answer(200, {"Content-Type": "text/html"}, b"<p>Welcome</p>")

        with pytest.raises(StoreError, match="answer cannot be understood"):
            find_instances(query(proxy))

    def test_results_cannot_lead_elsewhere(self, proxy: Proxy) -> None:
        body = b'[{"0020000E": {"vr": "UI", "Value": ["../../instances"]}}]'
        proxy.behaviour = lambda *_: Answer(200, {"Content-Type": "application/dicom+json"}, body)

        with pytest.raises(StoreError, match="a result without a UID"):
            find_instances(query(proxy))


class TestRetrieve:
    def test_tries_again_after_what_passes(self, orthanc: Orthanc, proxy: Proxy) -> None:
        orthanc.add(radiograph())
        (instance,) = find_instances(query(proxy))
        failures = iter([Answer(503), None, Answer(429, {"Retry-After": "0"})])

        def break_off(request, forward):
            answer = next(failures, "over")
            return forward(request) if answer == "over" else answer

        proxy.behaviour = break_off

        assert instance.read() == radiograph()

    def test_half_an_answer_is_none(self, orthanc: Orthanc, proxy: Proxy) -> None:
        orthanc.add(radiograph())
        (instance,) = find_instances(query(proxy))
        halves = iter([1000, 2000])

        def halve(request, forward):
            whole = forward(request)
            return Answer(whole.status, whole.headers, whole.body, cut=next(halves, None))

        proxy.behaviour = halve

        assert instance.read() == radiograph()

    def test_a_message_without_its_end_is_refused(self, orthanc: Orthanc, proxy: Proxy) -> None:
        orthanc.add(radiograph())
        (instance,) = find_instances(query(proxy))

        def shorten(request, forward):
            whole = forward(request)
            return Answer(whole.status, whole.headers, whole.body[:-40])

        proxy.behaviour = shorten

        with pytest.raises(ImageRejected, match="not one complete DICOM file"):
            instance.read()

    def test_a_dead_store_is_waited_for_once(self, orthanc: Orthanc, proxy: Proxy) -> None:
        orthanc.add(radiograph())
        (instance,) = find_instances(query(proxy))
        proxy.behaviour = lambda *_: None
        before = len(proxy.requests)

        for _ in range(5):
            with pytest.raises(ImageRejected, match="cannot be reached, or broke off"):
                instance.read()

        assert len(proxy.requests) - before == 4 + 4

    def test_a_silent_store_costs_the_timeout(
        self, orthanc: Orthanc, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_TIMEOUT", "0.2")
        monkeypatch.setattr(web_session, "WAIT_SECONDS", (0.01,))
        orthanc.add(radiograph())
        (instance,) = find_instances(query(orthanc))
        proxy.behaviour = lambda *_: time.sleep(1)
        start = time.monotonic()

        with pytest.raises(ImageRejected, match="does not answer in time"):
            WebInstance(proxy.url, instance.study, instance.series, instance.instance).read()

        assert time.monotonic() - start < 1

    def test_an_endless_answer_is_given_up(
        self, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        orthanc.add(radiograph())
        (instance,) = find_instances(query(orthanc))
        monkeypatch.setattr(web_session, "MAX_ANSWER_BYTES", 1000)

        with pytest.raises(ImageRejected, match="more than 1000 bytes"):
            instance.read()

    def test_memory_is_that_of_one_instance(self, orthanc: Orthanc) -> None:
        size = (512, 512)  # 0.5 MB each
        for number in range(200):
            dataset = radiograph_dataset(
                ramp(12, size),
                StudyInstanceUID=STUDY,
                SeriesInstanceUID=f"{STUDY}.1",
                SOPInstanceUID=f"{STUDY}.1.{number}",
            )
            orthanc.add(dicom_bytes(dataset))
        found = find_sources([query(orthanc)])
        read_source(found[0])
        before = psutil.Process().memory_info().rss

        digests = {hashlib.sha256(read_source(source)).digest() for source in found}

        assert len(digests) == 200
        assert psutil.Process().memory_info().rss - before < 20e6


class TestAccess:
    def test_user_and_password(
        self, locked_orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user, password = locked_orthanc.credentials or ("", "")
        locked_orthanc.add(radiograph())
        with pytest.raises(StoreError, match=r"refuses the credentials \(HTTP 401\)"):
            find_instances(query(locked_orthanc))

        open_store.cache_clear()
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_USER", user)
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_PASSWORD", password)

        assert [i.read() for i in find_instances(query(locked_orthanc))] == [radiograph()]

    def test_netrc(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with running_orthanc(tmp_path, credentials=("jane", "s3cret")) as store:
            store.add(radiograph())
            netrc = tmp_path / "netrc"
            netrc.write_text("machine 127.0.0.1 login jane password s3cret\n")
            netrc.chmod(0o600)
            monkeypatch.setenv("NETRC", str(netrc))

            assert len(find_instances(query(store))) == 1

    def test_a_token_wins_over_netrc(
        self, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login jane password s3cret\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_TOKEN", "tok.en")

        with pytest.raises(StoreError):
            find_instances(query(proxy))

        assert {r.headers["Authorization"] for r in proxy.requests} == {"Bearer tok.en"}

    def test_credentials_stay_with_the_host(
        self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_TOKEN", "tok.en")
        with running_proxy("http://127.0.0.1:1") as other:
            elsewhere = other.url.replace("127.0.0.1", "localhost")
            proxy.behaviour = lambda *_: Answer(302, {"Location": f"{elsewhere}/series"})

            with pytest.raises(StoreError, match="redirects to another host"):
                find_instances(query(proxy))

            assert other.requests == []

    def test_another_port_does_not_get_the_credentials(
        self, orthanc: Orthanc, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_TOKEN", "tok.en")
        orthanc.add(radiograph())
        with running_proxy(orthanc.url.removesuffix("/dicom-web")) as other:
            service = other.url.removesuffix("/dicom-web")
            proxy.behaviour = lambda request, _: Answer(307, {"Location": service + request.path})

            assert len(find_instances(query(proxy))) == 1

            assert not any("Authorization" in request.headers for request in other.requests)


@pytest.mark.parametrize("level", [logging.DEBUG])
def test_no_log_and_no_error_tells_uids_or_secrets(
    orthanc: Orthanc,
    proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    level: int,
) -> None:
    monkeypatch.setenv("PRIVDIFF_DICOMWEB_TOKEN", "s3cret-token")
    caplog.set_level(level)
    orthanc.add(radiograph())
    (instance,) = find_instances(query(proxy, "PatientName=Doe*"))
    instance.read()
    said = [repr(instance), repr([instance]), repr(open_store(proxy.url))]

    for answer in (None, Answer(404), Answer(200, {}, b"Doe^Jane"), Answer(302)):
        proxy.behaviour = lambda *_, answer=answer: answer
        with pytest.raises(ImageRejected) as caught:
            instance.read()
        said += [str(caught.value), repr(caught.value)]
        assert caught.value.__context__ is None
        assert caught.value.sop_instance_uid == instance.instance
    open_store.cache_clear()

    text = "\n".join([*said, caplog.text])
    assert not [secret for secret in (STUDY, "Doe", "s3cret") if secret in text]
