"""The module Sample Data, as its documentation tells: who offers samples, and how they are got."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer


@dataclass(frozen=True)
class SampleDataSource:
    """One button of the module; as many files, addresses and nodes."""

    sampleName: str
    uris: list[str]
    fileNames: list[str]
    nodeNames: list[str]
    customDownloader: Callable[[Any], list[Any]]
    thumbnailFileName: str

    def __post_init__(self) -> None:
        if not len(self.uris) == len(self.fileNames) == len(self.nodeNames):
            raise ValueError("all fields of a sample must have the same length")


class SampleDataLogic:
    """Knows the samples, in `slicer.modules.sampleDataSources` by category."""

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", **fields: Any) -> None:
        """Add samples, unless they are there."""
        sources = vars(slicer.modules).setdefault("sampleDataSources", {})
        source = SampleDataSource(**fields)
        if source not in sources.setdefault(category, []):
            sources[category].append(source)

    def downloadSamples(self, sampleName: str) -> list[Any]:
        """Load samples; downloading is not done here."""
        for sources in slicer.modules.sampleDataSources.values():
            for source in sources:
                if source.sampleName == sampleName:
                    return source.customDownloader(source)
        raise ValueError(f"there is no sample {sampleName}")


def module() -> types.ModuleType:
    """Return the module `SampleData`."""
    made = types.ModuleType("SampleData")
    made.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    made.SampleDataSource = SampleDataSource  # type: ignore[attr-defined]
    return made
