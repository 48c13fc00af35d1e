"""DICOM files as results of a run, in processes that each read the key themselves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privdiff_infer.dicom.confidentiality import ConfidentialityProfile, Option
from privdiff_infer.dicom.derived import Derivation, derived_dataset, encode_dicom
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.radiograph import Radiograph

if TYPE_CHECKING:
    from privdiff_infer.anonymizer import AnonymizedImage


class DicomEncoder:
    """Turns the results of a run into DICOM files; holds the key, so each process makes its own.

    Parameters
    ----------
    pseudonyms
        Of the key.
    options
        Of the confidentiality profile.
    derivation
        How results come about.
    """

    def __init__(
        self, pseudonyms: Pseudonyms, options: Collection[Option], derivation: Derivation
    ) -> None:
        self._pseudonyms = pseudonyms
        self._profile = ConfidentialityProfile(pseudonyms, options)
        self._derivation = derivation

    def encode(self, result: AnonymizedImage, source: Radiograph, image_seed: int) -> bytes:
        """Return one file; see `derived_dataset`."""
        return encode_dicom(
            derived_dataset(
                result, source, self._profile, self._pseudonyms, self._derivation, image_seed
            )
        )


@dataclass(frozen=True)
class DicomOutput:
    """What processes need to write DICOM files; the key is not among it, each reads it itself.

    Attributes
    ----------
    derivation
        How results come about.
    options
        Options of the confidentiality profile.
    """

    derivation: Derivation
    options: frozenset[Option] = frozenset()

    def encoder(self) -> DicomEncoder:
        """Read the key.

        Raises
        ------
        SecretError
            If there is no usable key.
        """
        return DicomEncoder(Pseudonyms.load(), self.options, self.derivation)
