"""Measure what headers leak after cleaning, and how fast they are cleaned.

Run it from the root of the repository with the extra ``test`` installed:

    OMP_NUM_THREADS=1 PYTHONPATH=. python scripts/measure_confidentiality.py

Every row of Table E.1-1 carries a marker, at depth 0 to 3 of sequences that the table does not
list, next to markers in private, overlay and curve groups, in the file meta information and in the
preamble. What is counted are markers whose bytes are in the file that a tool writes.
"""

from __future__ import annotations

import functools
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable
from io import BytesIO

import pydicom
from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions
from pydicom.dataset import Dataset

from privdiff_infer.dicom.confidentiality import ConfidentialityProfile
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.readers.quiet import silent_pydicom
from tests.unit.dicom_factory import radiograph_dataset, ramp
from tests.unit.marked_header import DEPTHS, MARKER, file_of, marked_dataset, markers

CT = "1.2.840.10008.5.1.4.1.1.2"
REPEATS = 200

Tool = Callable[[Dataset], Dataset]


def ours(dataset: Dataset) -> Dataset:
    return PROFILE.deidentify(dataset, pixels_checked=True)


def dicom_anonymizer(dataset: Dataset, edition: str) -> Dataset:
    rules = functools.partial(initialize_actions, edition)
    anonymize_dataset(dataset, base_rules_gen=rules)
    return dataset


def leaks(tool: Tool) -> dict[str, int]:
    """Return how many markers are left at each depth, and elsewhere."""
    content = file_of(tool(pydicom.dcmread(BytesIO(file_of(marked_dataset(CT))))))
    found: Counter[str] = Counter()
    for depth in DEPTHS:
        tokens = [marker.token for marker in markers(depth) if marker.token is not None]
        found[f"depth {depth}"] = sum(token in content for token in tokens)
    found["preamble and file meta"] = content[:1000].count(MARKER.encode() + b"META")
    found["preamble and file meta"] += content[:128] != bytes(128)
    return dict(found)


def files_per_second(tool: Tool, content: bytes) -> float:
    """Return how many files are read, cleaned and written in a second of CPU time, in memory."""
    start = time.process_time()
    for _ in range(REPEATS):
        file_of(tool(pydicom.dcmread(BytesIO(content))))
    return round(REPEATS / (time.process_time() - start), 1)


def typical_header() -> bytes:
    """Return a radiograph of 128 x 128 pixels with what a header usually has."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "51185008", "SCT", "Chest"
    dataset = radiograph_dataset(ramp(shape=(128, 128)), AnatomicRegionSequence=[item])
    for number, marker in enumerate(markers(0)):
        if number % 10 == 0 and not marker.element.tag.is_private:
            dataset[marker.element.tag] = marker.element
    return file_of(dataset)


PROFILE = ConfidentialityProfile(Pseudonyms(b"a key for measurements, no secret"))
TOOLS: dict[str, Tool] = {
    "privdiff": ours,
    "dicom-anonymizer 2.1.0, 2026c": functools.partial(
        dicom_anonymizer, edition="dicomfields_2026c"
    ),
    "dicom-anonymizer 2.1.0, its default": functools.partial(
        dicom_anonymizer, edition="dicomfields_2023"
    ),
}


def main() -> None:
    """Print the figures as JSON."""
    warnings.simplefilter("ignore")
    header = typical_header()
    planted = {
        f"depth {depth}": sum(marker.token is not None for marker in markers(depth))
        for depth in DEPTHS
    }
    with silent_pydicom():
        figures = {
            name: {"leaks": leaks(tool), "files_per_second": files_per_second(tool, header)}
            for name, tool in TOOLS.items()
        }
    attributes = len(pydicom.dcmread(BytesIO(header)))
    record = {"planted": planted, "attributes_of_a_timed_file": attributes, "tools": figures}
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
