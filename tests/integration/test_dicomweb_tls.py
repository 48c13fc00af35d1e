"""TLS to a store: verified always, with an authority and a certificate of one's own."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from privdiff_infer.dicom.web import find_instances
from privdiff_infer.errors import StoreError
from tests.integration.authority import Authority
from tests.integration.orthanc import Orthanc, needs_orthanc
from tests.integration.test_dicomweb_sources import query, radiograph
from tests.integration.unruly_proxy import Proxy, running_proxy

pytestmark = [
    needs_orthanc,
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is absent"),
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("clients"), "clients")


@pytest.fixture
def secured(orthanc: Orthanc, authority: Authority) -> Iterator[Proxy]:
    orthanc.add(radiograph())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue("server"))
    with running_proxy(orthanc.url.removesuffix("/dicom-web"), tls=tls) as proxy:
        yield proxy


@pytest.fixture
def mutual(orthanc: Orthanc, authority: Authority, clients: Authority) -> Iterator[Proxy]:
    orthanc.add(radiograph())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue("server"))
    tls.load_verify_locations(clients.certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    with running_proxy(orthanc.url.removesuffix("/dicom-web"), tls=tls) as proxy:
        yield proxy


def test_an_unknown_authority_is_refused(secured: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVDIFF_DICOMWEB_TOKEN", "tok.en")

    with pytest.raises(StoreError, match="no TLS connection to the store"):
        find_instances(query(secured))

    assert secured.requests == []


def test_ones_own_authority_wins_over_the_usual_variables(
    secured: Proxy, authority: Authority, clients: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVDIFF_DICOMWEB_CA", str(authority.certificate))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(clients.certificate))

    assert [i.read() for i in find_instances(query(secured))] == [radiograph()]


def test_a_certificate_of_another_host_is_refused(
    secured: Proxy, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVDIFF_DICOMWEB_CA", str(authority.certificate))

    with pytest.raises(StoreError, match="no TLS connection to the store"):
        find_instances(query(secured).replace("127.0.0.1", "localhost"))


@pytest.mark.parametrize("in_one_file", [False, True])
def test_a_certificate_of_ones_own(
    mutual: Proxy,
    authority: Authority,
    clients: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_one_file: bool,
) -> None:
    certificate, key = clients.issue("client")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    monkeypatch.setenv("PRIVDIFF_DICOMWEB_CA", str(authority.certificate))
    monkeypatch.setenv("PRIVDIFF_DICOMWEB_CLIENT_CERT", str(both if in_one_file else certificate))
    if not in_one_file:
        monkeypatch.setenv("PRIVDIFF_DICOMWEB_CLIENT_KEY", str(key))

    assert len(find_instances(query(mutual))) == 1


def test_without_a_certificate_the_door_stays_shut(
    mutual: Proxy, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVDIFF_DICOMWEB_CA", str(authority.certificate))

    with pytest.raises(StoreError):
        find_instances(query(mutual))

    assert mutual.requests == []
