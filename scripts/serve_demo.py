"""`make serve-demo`: a hospital's store, a research store and the server, on images of nobody.

Everything lies in a temporary folder, the keys too, and ends with Ctrl-C.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from privdiff_infer.dicom.derived import encode_dicom  # noqa: E402
from tests.integration.orthanc import MISSING, PLUGIN, PROGRAM, running_orthanc  # noqa: E402

SAMPLE = ROOT / "privdiff_infer" / "sample"

KEYS = ("PRIVDIFF_KEY_FILE", "PRIVDIFF_AUDIT_KEY_FILE")


def as_radiograph(picture: Path, number: int) -> bytes:
    """Return a picture as the DX object of a patient who does not exist."""
    stored = np.asarray(Image.open(picture).convert("L"), np.uint16) << 4
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(None, Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID = f"Nobody^Number {number}", f"DEMO-{number}"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19600101", "O", "060Y"
    dataset.StudyDate, dataset.StudyID = date.today().strftime("%Y%m%d"), str(number)
    dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.ImagerPixelSpacing = dataset.PixelSpacing = [1.4, 1.4]
    dataset.PixelData = stored.tobytes()
    return encode_dicom(dataset)


def demo_environment(folder: Path) -> dict[str, str]:
    """Return this environment with keys and ledger of the demo alone."""
    made = dict(os.environ)
    for name in KEYS:
        file = folder / name.lower()
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
        made[name] = str(file)
    made["PRIVDIFF_LEDGER_FILE"] = str(folder / "published")
    return made


def main() -> int:
    """Run the demo until Ctrl-C."""
    if not PROGRAM or not PLUGIN.exists():
        print(f"serve-demo: {MISSING}", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="privdiff-demo-")))
        (folder / "hospital").mkdir()
        (folder / "research").mkdir()
        hospital = stack.enter_context(running_orthanc(folder / "hospital"))
        research = stack.enter_context(running_orthanc(folder / "research"))
        for number, picture in enumerate(sorted(SAMPLE.glob("*.png")), start=1):
            hospital.add(as_radiograph(picture, number))
        print(f"Hospital's store      {hospital.url}")
        print(f"Research store        {research.url}", flush=True)
        command = [
            *(sys.executable, "-m", "privdiff_infer", "serve", "--state", str(folder / "state")),
            *("--studies", hospital.url, "--store", research.url, *sys.argv[1:]),
        ]
        with subprocess.Popen(command, env=demo_environment(folder)) as server:
            signal.signal(signal.SIGTERM, lambda *_: server.send_signal(signal.SIGINT))
            try:
                return server.wait()
            except KeyboardInterrupt:  # which the server has got too
                return server.wait()


if __name__ == "__main__":
    sys.exit(main())
