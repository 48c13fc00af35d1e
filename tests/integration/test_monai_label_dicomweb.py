"""A real `privdiff serve` whose studies lie in a real DICOMweb store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread

from monailabel_app.lib.datastores.studies import Listing
from tests.integration.orthanc import Orthanc, needs_orthanc, running_orthanc
from tests.integration.server import RunningServer, running_server
from tests.integration.test_dicomweb_sources import radiograph
from tests.integration.test_monai_label import client_of, originals

pytestmark = [needs_orthanc, pytest.mark.filterwarnings("ignore:'cgi' is deprecated")]

INVERTED = radiograph(series=2, Modality="DX", PhotometricInterpretation="MONOCHROME1")


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as store:
        for file in (
            radiograph(series=1, Modality="CR"),
            INVERTED,
            radiograph(series=3, Modality="CT"),
            radiograph(0, series=4, Modality="DX"),
            radiograph(1, series=4, Modality="DX"),
        ):
            store.add(file)
        yield store


@pytest.fixture(scope="module")
def server(
    pacs: Orthanc, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, pacs.url, bundle=tiny_bundle) as running:
        yield running


def image_with(server: RunningServer, file: bytes) -> str:
    """Return the id of the image that is this very file."""
    for image in originals(server):
        answer = server.get(f"/datastore/image?image={image}")
        if answer.content == file:
            return image
    raise AssertionError("no image is this file")


def test_series_of_chest_images_are_listed_and_nothing_is_fetched_before(
    server: RunningServer,
) -> None:
    assert server.get("/info/").json()["datastore"]["originals"] == 3
    assert list((server.state / "cache").glob("*")) == []


def test_a_reviewer_gets_the_very_bytes_and_the_cache_is_private(server: RunningServer) -> None:
    image_with(server, INVERTED)

    cached = list((server.state / "cache").glob("*"))
    assert cached
    assert all(path.stat().st_mode & 0o077 == 0 for path in (server.state / "cache", *cached))


def test_that_an_original_was_shown_is_in_the_audit_log(server: RunningServer) -> None:
    image_with(server, INVERTED)

    assert '"original_shown"' in (server.state / "audit.jsonl").read_text()


def test_the_stock_client_gets_a_derived_object(server: RunningServer, tmp_path: Path) -> None:
    image = image_with(server, INVERTED)

    file, params = client_of(server, tmp_path).infer("privdiff", image, {"profile": "fast"})

    derived = dcmread(file)
    assert params["state"] == "awaiting_review"
    assert derived.PhotometricInterpretation == "MONOCHROME2"
    assert "DERIVED" in derived.ImageType
    assert "Doe" not in str(derived)


def test_output_format_is_obeyed(server: RunningServer, tmp_path: Path) -> None:
    image = image_with(server, INVERTED)

    file, _ = client_of(server, tmp_path).infer("privdiff", image, {"output_format": "png"})

    assert Image.open(file).format == "PNG"


def test_a_series_of_several_images_is_not_one_answer(server: RunningServer) -> None:
    refused = [
        server.post(f"/infer/privdiff?image={image}").status_code for image in originals(server)
    ]

    assert sorted(refused) == [200, 200, 409]


@pytest.mark.parametrize("image", ["1.2.826.0.1.3680043.8.498.1.1", "img-0"])
def test_neither_a_uid_nor_an_unknown_id_is_an_image(server: RunningServer, image: str) -> None:
    assert server.post(f"/infer/privdiff?image={image}").status_code == 404


def test_no_uid_is_told(server: RunningServer) -> None:
    told = [server.get(path).text for path in ("/info/", "/datastore/?output=all")]

    assert not any("1.2.826" in text for text in [*told, server.logs()])


def test_a_new_study_is_listed(server: RunningServer, pacs: Orthanc) -> None:
    added = radiograph(series=9, Modality="CR")
    pacs.add(added)
    time.sleep(Listing.LOOK_AGAIN_SECONDS)
    server.post("/infer/privdiff?image=img-0")  # is not listed, so the server looks again

    assert image_with(server, added)
