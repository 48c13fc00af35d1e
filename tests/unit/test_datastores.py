"""What a server lists, and the labels that it keeps."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monailabel_app.lib.datastores.cache import forget_old_files
from monailabel_app.lib.datastores.dicomweb import DicomwebStudies
from monailabel_app.lib.datastores.folder import FolderStudies
from monailabel_app.lib.datastores.labels import Labels
from monailabel_app.lib.datastores.studies import Listing
from monailabel_app.lib.errors import BadRequest, NotFound
from monailabel_app.lib.infers.params import job_options, parse_params
from monailabel_app.lib.sessions import Sessions
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import OptionError, StoreError
from privdiff_infer.vocabulary import Profile
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp

PSEUDONYMS = Pseudonyms(b"a key of tests, which are no secret")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one image of every kind, and what is none."""
    root = tmp_path / "studies"
    (root / "Doe^Jane").mkdir(parents=True)
    for name in ("a.png", "b.JPG", "c.nii.gz", "d.nrrd", "e.dcm", "notes.txt", ".hidden.png"):
        (root / "Doe^Jane" / name).write_bytes(b"content")
    (root / "IM0001").write_bytes(dicom_bytes(radiograph_dataset(ramp())))
    return root


def names(studies: FolderStudies) -> list[str]:
    return sorted(path.name for path in studies.entries().values())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestFolder:
    def test_lists_images_of_every_kind_and_nothing_else(self, root: Path) -> None:
        listed = names(FolderStudies(root, PSEUDONYMS))

        assert listed == ["IM0001", "a.png", "b.JPG", "c.nii.gz", "d.nrrd", "e.dcm"]

    def test_ids_tell_nothing_and_stay(self, root: Path) -> None:
        first = FolderStudies(root, PSEUDONYMS).entries()
        again = FolderStudies(root, PSEUDONYMS).entries()
        other = FolderStudies(root, Pseudonyms(b"another key of tests, no secret.")).entries()

        assert first == again
        assert not first.keys() & other.keys()
        assert not any("Doe" in image_id or "/" in image_id for image_id in first)

    def test_links_out_of_the_folder_are_refused(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "outside.png").write_bytes(b"content")
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "x.png").write_bytes(b"content")
        (root / "link.png").symlink_to(tmp_path / "outside.png")
        (root / "folder").symlink_to(tmp_path / "more")

        assert not {"link.png", "x.png"} & set(names(FolderStudies(root, PSEUDONYMS)))

    def test_a_file_that_becomes_a_link_is_no_longer_given(
        self, root: Path, tmp_path: Path
    ) -> None:
        studies = FolderStudies(root, PSEUDONYMS)
        image = next(i for i, path in studies.entries().items() if path.name == "a.png")
        (tmp_path / "outside.png").write_bytes(b"secret")
        (root / "Doe^Jane" / "a.png").unlink()
        (root / "Doe^Jane" / "a.png").symlink_to(tmp_path / "outside.png")

        with pytest.raises(NotFound):
            studies.file(image)

    @pytest.mark.parametrize("image_id", ["", "..", "Doe^Jane/a.png", "/etc/passwd", "img-0"])
    def test_only_an_id_names_an_image(self, root: Path, image_id: str) -> None:
        with pytest.raises(NotFound):
            FolderStudies(root, PSEUDONYMS).sources(image_id)

    def test_a_new_file_is_found_when_it_is_asked_for(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Listing, "LOOK_AGAIN_SECONDS", 0.0)
        studies = FolderStudies(root, PSEUDONYMS)
        studies.entries()
        (root / "new.png").write_bytes(b"content")

        assert studies.file(PSEUDONYMS.image_id("new.png")) == root / "new.png"

    def test_no_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="no folder"):
            FolderStudies(tmp_path / "missing", PSEUDONYMS)


class TestListing:
    def test_is_read_anew_in_the_background_when_it_is_old(self) -> None:
        contents = iter([{"a": 1}, {"a": 1, "b": 2}])
        listing = Listing(lambda: next(contents), max_age_seconds=0.0)

        first = listing.entries()
        listing.entries()

        assert first == {"a": 1}
        wait_for(lambda: listing._entries == {"a": 1, "b": 2})

    def test_who_asks_does_not_wait_for_another_reading(self) -> None:
        proceed = threading.Event()
        calls: list[int] = []

        def load() -> dict[str, int]:
            calls.append(1)
            if len(calls) > 1:
                proceed.wait(10)
            return {"a": len(calls)}

        listing = Listing(load, max_age_seconds=0.0)
        listing.entries()
        listing.entries()
        wait_for(lambda: len(calls) == 2)

        assert listing.entries() == {"a": 1}
        proceed.set()

    def test_keeps_what_it_had_when_the_store_fails(self) -> None:
        calls: list[int] = []

        def load() -> dict[str, int]:
            calls.append(1)
            if len(calls) > 1:
                raise StoreError("the store is gone", "wait")
            return {"a": 1}

        listing = Listing(load, max_age_seconds=0.0)
        listing.entries()
        listing.entries()
        wait_for(lambda: len(calls) > 1)

        assert listing.entries() == {"a": 1}

    def test_a_store_that_never_answered_is_an_error(self) -> None:
        def load() -> dict[str, int]:
            raise StoreError("the store is gone", "wait")

        with pytest.raises(StoreError):
            Listing(load, max_age_seconds=1.0).entries()

    def test_a_failure_is_remembered_and_repeated_in_the_background(self) -> None:
        proceed = threading.Event()
        calls: list[int] = []

        def load() -> dict[str, int]:
            calls.append(1)
            if len(calls) > 1:
                proceed.wait(10)
                return {"a": 1}
            raise StoreError("the store is gone", "wait")

        listing = Listing(load, max_age_seconds=0.05)
        with pytest.raises(StoreError):
            listing.entries()
        with pytest.raises(StoreError):
            listing.entries()
        assert len(calls) == 1

        time.sleep(0.1)
        with pytest.raises(StoreError):
            listing.entries()  # does not wait for the second reading, which hangs
        wait_for(lambda: len(calls) == 2)
        proceed.set()
        wait_for(lambda: listing._entries is not None)
        assert listing.entries() == {"a": 1}

    def test_nobody_waits_long_for_a_store_that_hangs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Listing, "PATIENCE_SECONDS", 0.05)
        proceed = threading.Event()

        def load() -> dict[str, int]:
            proceed.wait(10)
            return {"a": 1}

        listing = Listing(load, max_age_seconds=10.0)
        listing.read_ahead()
        wait_for(listing._lock.locked)

        with pytest.raises(StoreError, match="not been listed yet"):
            listing.entries()
        proceed.set()
        wait_for(lambda: not listing._lock.locked())
        assert listing.find("a") == 1


class TestFileName:
    def test_of_a_file_is_its_id_and_kind(self, root: Path) -> None:
        studies = FolderStudies(root, PSEUDONYMS)

        suffixes = {path.name: studies.suffix(image) for image, path in studies.entries().items()}

        assert suffixes["b.JPG"] == ".jpg"
        assert suffixes["c.nii.gz"] == ".nii.gz"
        assert suffixes["IM0001"] == ".dcm"

    def test_of_a_series_is_had_without_fetching_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        studies = DicomwebStudies("https://pacs.example", tmp_path, PSEUDONYMS)
        monkeypatch.setattr(studies, "_listing", Listing(lambda: {"img-1": object()}, 10.0))

        assert studies.suffix("img-1") == ".dcm"  # whatever its instances
        assert not list(tmp_path.iterdir())
        with pytest.raises(NotFound):
            studies.suffix("img-2")


class TestDicomweb:
    @pytest.mark.parametrize(
        "url", ["https://user:secret@pacs.example/x", "https://", "https://pacs.example?Nonsense=1"]
    )
    def test_an_impossible_url_is_refused_at_once(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(OptionError) as refused:
            DicomwebStudies(url, tmp_path, PSEUDONYMS)

        assert "secret" not in str(refused.value)

    def test_what_was_fetched_long_ago_is_forgotten(self, tmp_path: Path) -> None:
        old, fresh = tmp_path / "img-1.dcm", tmp_path / "img-2.dcm"
        for path in (old, fresh):
            path.write_bytes(b"original")
        os.utime(old, (0, 0))

        forget_old_files(tmp_path)

        assert not old.exists()
        assert fresh.exists()


class TestVanishingFiles:
    """Files that another request deletes between a look at the folder and a look at them."""

    @pytest.fixture
    def vanishing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        gone = tmp_path / "0"
        listed = Path.iterdir
        monkeypatch.setattr(Path, "iterdir", lambda folder: iter([gone, *listed(folder)]))
        old = tmp_path / "1"
        old.touch()
        os.utime(old, (0, 0))
        return tmp_path

    @pytest.mark.parametrize(
        "tidy", [forget_old_files, lambda folder: Sessions(folder).remove_expired()]
    )
    def test_do_not_end_the_tidying(self, vanishing: Path, tidy: Callable[[Path], object]) -> None:
        tidy(vanishing)

        assert not (vanishing / "1").exists()

    @pytest.mark.parametrize("use", [Sessions.open, Sessions.last_use, Sessions.remove])
    def test_are_no_sessions(self, vanishing: Path, use: Callable[[Sessions, str], object]) -> None:
        with pytest.raises(NotFound):
            use(Sessions(vanishing), "0" * 32)

        assert not list(vanishing.glob("0*"))


class TestLabels:
    @pytest.fixture
    def labels(self, tmp_path: Path) -> Labels:
        (tmp_path / "labels").mkdir()
        return Labels(tmp_path / "labels")

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "upload"
        file.write_bytes(b"mask")
        return file

    def test_a_label_is_kept_by_image_and_tag(self, labels: Labels, file: Path) -> None:
        labels.save("img-1", "final", file, "Doe.seg.nrrd", {"note": "x"})

        assert labels.file("img-1", "final").name == "img-1.seg.nrrd"
        assert labels.file("img-1", "final").read_bytes() == b"mask"
        assert labels.file("img-1", "final").stat().st_mode & 0o077 == 0
        assert labels.info("img-1", "final")["note"] == "x"
        assert labels.images("final") == {"img-1"}
        assert labels.tags_of("img-1") == ["final"]

    def test_a_new_label_replaces_one_of_another_kind(self, labels: Labels, file: Path) -> None:
        labels.save("img-1", "final", file, "a.png", {})
        labels.save("img-1", "final", file, "a.nrrd", {})

        names = {path.name for path in labels.file("img-1", "final").parent.iterdir()}
        assert names == {"img-1.nrrd", "img-1.info"}

    def test_labels_that_come_at_the_same_time_leave_one_of_them(
        self, labels: Labels, file: Path
    ) -> None:
        with ThreadPoolExecutor(8) as several:
            for suffix in ("nrrd", "nii.gz") * 20:
                several.submit(labels.save, "img-1", "final", file, f"a.{suffix}", {})

        kept = labels.file("img-1", "final")
        assert {path.name for path in kept.parent.iterdir()} == {kept.name, "img-1.info"}

    def test_notes_that_come_at_the_same_time_are_all_kept(self, labels: Labels) -> None:
        with ThreadPoolExecutor(8) as several:
            for number in range(20):
                several.submit(labels.update_image, "img-1", {str(number): number})

        assert labels.image_info("img-1") == {str(number): number for number in range(20)}

    def test_a_deleted_label_is_gone(self, labels: Labels, file: Path) -> None:
        labels.save("img-1", "final", file, "a.png", {})
        labels.remove("img-1", "final")

        assert labels.images("final") == frozenset()
        with pytest.raises(NotFound):
            labels.file("img-1", "final")

    @pytest.mark.parametrize(
        ("tag", "name", "info"),
        [
            ("../up", "a.png", {}),
            ("", "a.png", {}),
            (".images", "a.png", {}),
            ("final", "a.exe", {}),
            ("final", "a", {}),
            ("final", "a.png", {"much": "x" * 100_000}),
        ],
    )
    def test_impossible_labels_are_refused_and_leave_nothing(
        self, labels: Labels, file: Path, tag: str, name: str, info: dict[str, str]
    ) -> None:
        with pytest.raises(BadRequest):
            labels.save("img-1", tag, file, name, info)

        assert labels.tags() == []

    def test_nobody_sets_the_suffix_by_information(self, labels: Labels, file: Path) -> None:
        labels.save("img-1", "final", file, "a.png", {"suffix": "/../../x"})
        labels.update("img-1", "final", {"suffix": "/../../x"})

        assert labels.file("img-1", "final").name == "img-1.png"

    def test_notes_of_images_add_up(self, labels: Labels) -> None:
        labels.update_image("img-1", {"a": 1})
        labels.update_image("img-1", {"b": 2})

        assert labels.image_info("img-1") == {"a": 1, "b": 2}
        assert labels.tags() == []


class TestParams:
    def test_options_are_chosen_and_what_stock_clients_send_is_ignored(self) -> None:
        params = {
            "profile": "fast", "strength": "0.6", "seed": 3, "bundle": "b-1",
            "client_id": None, "device": "cuda", "result_dtype": "uint8",
        }  # fmt: skip

        options = job_options(params)

        assert options.profile is Profile.FAST
        assert (options.strength, options.seed, options.model) == (0.6, 3, "b-1")

    def test_default_stands_for_none(self) -> None:
        assert job_options({"strength": "default", "bundle": "default"}) == job_options({})

    @pytest.mark.parametrize(
        "params",
        [{"image": "/etc/passwd"}, {"model": "x"}, {"strength": 7}, {"profile": "x"}, {"x": 1}],
    )
    def test_others_are_refused_without_their_value(self, params: dict[str, object]) -> None:
        with pytest.raises(BadRequest) as refused:
            job_options(params)

        assert "passwd" not in str(refused.value)

    @pytest.mark.parametrize("text", ["[]", "{", "1", "[" * 5000, '"' + "x" * 20_000 + '"'])
    def test_what_is_no_object_is_refused(self, text: str) -> None:
        with pytest.raises(BadRequest):
            parse_params(text)
