"""De-identified files before two readers that are not pydicom: dciodvfy and dcmdump."""

from __future__ import annotations

import re
import shutil
import subprocess

import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from privdiff_infer.deidentify import Deidentifier
from privdiff_infer.dicom.confidentiality import ConfidentialityProfile, Option
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from tests.conftest import SHARED
from tests.unit.marked_header import MARKER, file_of, marked_dataset

PSEUDONYMS = Pseudonyms(b"a key for tests, which is no secret")


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def deidentified(content: bytes, *options: Option) -> bytes:
    profile = ConfidentialityProfile(PSEUDONYMS, options)
    return Deidentifier(profile, None, accept_unchecked_text=True).deidentify(content).content


def errors_of(path) -> set[str]:
    """Return what dciodvfy calls an error, without the values that it quotes."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    return {re.sub("<[0-9.]+>", "", line) for line in lines if line.startswith("Error")}


@needs("dciodvfy")
@pytest.mark.shared
@pytest.mark.parametrize("options", [(), (Option.RETAIN_MODIFIED_DATES, Option.RETAIN_UIDS)])
def test_cleaning_makes_no_error_that_the_file_did_not_have(tmp_path, options):
    for source in sorted((SHARED / "dicom").glob("*.dcm")):
        result = tmp_path / source.name
        result.write_bytes(deidentified(source.read_bytes(), *options))
        assert errors_of(result) <= errors_of(source)


@needs("dcmdump")
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_dcmdump_reads_the_result_and_finds_no_marker(tmp_path, syntax):
    source, result = tmp_path / "source.dcm", tmp_path / "result.dcm"
    source.write_bytes(file_of(marked_dataset("1.2.840.10008.5.1.4.1.1.2", syntax)))
    result.write_bytes(deidentified(source.read_bytes()))

    before, after = (
        subprocess.run(
            ["dcmdump", "--load-all", "--print-all", path], capture_output=True, check=True
        )
        for path in (source, result)
    )

    assert before.stdout.count(MARKER.encode()) > 1000
    assert MARKER.encode() not in after.stdout
    assert after.stderr == b""


@needs("dcmdump")
@pytest.mark.shared
def test_no_text_of_real_headers_is_left(tmp_path):
    telling = ("PatientID", "PatientBirthDate", "StudyDate", "InstitutionName", "StudyInstanceUID")
    for source in sorted((SHARED / "dicom").glob("*.dcm")):
        dataset = pydicom.dcmread(source, stop_before_pixels=True)
        values = {str(dataset.get(name, "")) for name in telling} - {"", "None"}
        result = tmp_path / source.name
        result.write_bytes(deidentified(source.read_bytes()))
        shown = subprocess.run(
            ["dcmdump", "--print-all", result], capture_output=True, check=True
        ).stdout.decode(errors="replace")
        assert {value for value in values if f"[{value}" in shown} == set()
