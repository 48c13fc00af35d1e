"""The Basic Application Level Confidentiality Profile of PS3.15 Annex E with all its options.

The engine goes through every item of every sequence and decides by tag number, so that attributes
which the dictionary of pydicom does not know yet are treated like all others; what is to be removed
is not even parsed. It builds a new data set: only what a rule lets through can be in it.

It is stricter than the table in these points. Whole groups of curves and overlays go, not their
data and comments alone. Attributes of even groups that neither the table nor the dictionary knows,
those with a VR that the dictionary does not allow, and malformed values go too. A UID in an
attribute that the table does not list is replaced as well unless it names a class, a transfer
syntax or a coding scheme, and so is one in the middle of a text that stays, so that no UID of an
instance survives its replacement. Names of persons, dates and times of day with a date that the
table does not list go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from privdiff_infer import __version__
from privdiff_infer.dicom.cleaning import clean
from privdiff_infer.dicom.dummies import dummy
from privdiff_infer.dicom.profile_table import (
    BASIC_PROFILE,
    MEANINGS,
    Action,
    Option,
    Place,
    Rule,
    attribute_types,
    rules,
    safe_private,
)
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import ImageRejected, OptionError

__all__ = ["ConfidentialityProfile", "Option"]

IMPLEMENTATION_CLASS_UID = UID("2.25.290763155206493834022041106461357853127")
IMPLEMENTATION_VERSION = "PRIVDIFF"

MAX_DEPTH = 32
"""Sequences in sequences. No IOD comes near it; the stack of the interpreter ends far above."""

SPECIFIC_CHARACTER_SET = 0x00080005
UTF_8 = "ISO_IR 192"
PATIENT_NAME, PATIENT_ID, ISSUER = 0x00100010, 0x00100020, 0x00100021
SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID = 0x00080016, 0x00080018, 0x0020000D

KINDS = frozenset(
    {
        0x00041510,  # ReferencedSOPClassUIDInFile
        0x00041512,  # ReferencedTransferSyntaxUIDInFile
        0x0004151A,  # ReferencedRelatedGeneralSOPClassUIDInFile
        SOP_CLASS_UID,
        0x0008001A,  # RelatedGeneralSOPClassUID
        0x0008001B,  # OriginalSpecializedSOPClassUID
        0x00080062,  # SOPClassesInStudy
        0x0008010C,  # CodingSchemeUID
        0x00080117,  # ContextUID
        0x00080118,  # MappingResourceUID
        0x0008040E,  # StoredInstanceTransferSyntaxUID
        0x00081150,  # ReferencedSOPClassUID
        0x0008115A,  # SOPClassesSupported
        0x00083002,  # AvailableTransferSyntaxUID
        0x00340003,  # FlowTransferSyntaxUID
        0x04000010,  # MACCalculationTransferSyntaxUID
        0x04000510,  # EncryptedContentTransferSyntaxUID
        0x30100052,  # PertinentSOPClassesInStudy
        0x30100053,  # PertinentSOPClassesInSeries
    }
)
"""Attributes with UIDs that name a kind of thing and no thing."""

LONG_TEXT_VRS = frozenset({"LO", "LT", "ST", "UC", "UR", "UT"})
"""The others end at 16 characters, before the UID of an instance does."""
UID_IN_TEXT = re.compile(r"(?<![\d.])[0-2](?:\.\d+){5,}(?![\d.]*\d)")
"""Six numbers or more: versions of software have fewer."""
AGE = re.compile(r"\d{3}[DWMY]")
VALID_UID = re.compile(r"[0-9.]{1,64}")

OPTIONS_OF_DATES = frozenset({Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES})


@dataclass(frozen=True)
class _Subject:
    """What the items of one data set have in common.

    Attributes
    ----------
    pseudonym
        Of the patient.
    shift
        Of the patient's dates.
    types
        Of the attributes of the IOD, or None if it is not one that the tables know.
    """

    pseudonym: str
    shift: timedelta
    types: Mapping[Place, str] | None


class ConfidentialityProfile:
    """The Basic Profile with the options that were chosen.

    Parameters
    ----------
    pseudonyms
        The key's replacements of UIDs, patients and dates.
    options
        Exceptions from the Basic Profile (PS3.15 E.3). Clean Pixel Data and Clean Recognizable
        Visual Features are statements on the pixels by who makes them; nothing here looks at
        pixels.

    Raises
    ------
    OptionError
        If both options for dates are given.

    Examples
    --------
    >>> profile = ConfidentialityProfile(Pseudonyms(bytes(32)))
    >>> source = Dataset()
    >>> source.PatientName, source.PatientID, source.Modality = "Doe^Jane", "4711", "CR"
    >>> result = profile.deidentify(source, pixels_checked=False)
    >>> result.PatientName == result.PatientID, result.PatientIdentityRemoved, result.Modality
    (True, 'NO', 'CR')
    """

    def __init__(self, pseudonyms: Pseudonyms, options: Collection[Option] = ()) -> None:
        self.options = frozenset(options)
        if self.options >= OPTIONS_OF_DATES:
            raise OptionError("full dates and modified dates exclude each other", "choose one")
        self._pseudonyms = pseudonyms
        self._rules = rules(self.options)
        self._keeps_uids = Option.RETAIN_UIDS in self.options
        self._safe_private = safe_private() if Option.RETAIN_SAFE_PRIVATE in self.options else {}

    def deidentify(self, dataset: Dataset, *, pixels_checked: bool) -> Dataset:
        """Return a new data set with ``file_meta``; the given one keeps its values.

        Parameters
        ----------
        dataset
            A composite object of any IOD, with ``file_meta`` if it comes from a file. Where it has
            neither Patient ID nor a Study Instance UID, its patient stays without pseudonym.
        pixels_checked
            Whether text burned into the pixels was looked for and removed: without it
            PatientIdentityRemoved is NO, and Clean Pixel Data is not claimed.

        Raises
        ------
        ImageRejected
            If sequences are nested more than 32 deep.
        """
        result = self._cleaned(dataset, self._subject(dataset), ())
        self._state_what_was_done(result, pixels_checked)
        result.SpecificCharacterSet = UTF_8
        result.file_meta = self._file_meta(dataset, result)
        return result

    def _subject(self, dataset: Dataset) -> _Subject:
        patient, issuer = _text(dataset, PATIENT_ID), _text(dataset, ISSUER)
        if not patient:  # unknown patients are not all one patient
            patient, issuer = _text(dataset, STUDY_INSTANCE_UID), "study"
        return _Subject(
            self._pseudonyms.patient_id(patient, issuer),
            self._pseudonyms.date_shift(patient, issuer),
            attribute_types(_text(dataset, SOP_CLASS_UID)),
        )

    def _cleaned(self, source: Dataset, subject: _Subject, way: Place) -> Dataset:
        """Return one item, or the data set itself, with what may stay of it."""
        if len(way) > MAX_DEPTH:
            raise ImageRejected(
                f"sequences are nested more than {MAX_DEPTH} deep", "check how the file was made"
            )
        result = Dataset()
        for tag in sorted(source.keys()):
            element = self._replacement(source, tag, subject, way)
            if element is not None:
                result[element.tag] = element
        return result

    def _replacement(
        self, source: Dataset, tag: BaseTag, subject: _Subject, way: Place
    ) -> DataElement | None:
        if tag.is_private:
            return self._private(source, tag)
        if _is_never_kept(tag):
            return None
        rule = self._rules.get(tag)
        if rule is None:
            return self._unlisted(source, tag, subject, way)
        if rule.kept or rule.cleaned_by:
            element = self._kept(source, tag, rule, subject, way)
            if element is not None:
                return element
        return self._by_basic_profile(source, tag, rule.action, subject, way)

    def _kept(
        self, source: Dataset, tag: BaseTag, rule: Rule, subject: _Subject, way: Place
    ) -> DataElement | None:
        """Return what the options keep of an attribute, or None if that is nothing.

        Dates that are to be moved are moved even where another option would keep them as they are:
        a true date beside moved ones gives the shift away.
        """
        element = self._checked(source, tag)
        if element is None:
            return None
        if element.VR == "SQ":
            element = self._cleaned_sequence(element, subject, way)
        if rule.kept and Option.RETAIN_MODIFIED_DATES not in rule.cleaned_by:
            return _copy(element) if element.VR != "UI" else self._kept_uids(element)
        value = clean(element, rule.cleaned_by, subject.shift)
        return None if value is None else DataElement(tag, element.VR, value)

    def _kept_uids(self, element: DataElement) -> DataElement | None:
        valid = all(VALID_UID.fullmatch(value) for value in _values(element))
        return _copy(element) if valid else None

    def _by_basic_profile(
        self, source: Dataset, tag: BaseTag, action: Action, subject: _Subject, way: Place
    ) -> DataElement | None:
        if action is Action.REMOVE:
            return None
        if tag in (PATIENT_ID, PATIENT_NAME):
            return self._patient(source, tag, subject, way)
        vr = _vr(source, tag)
        kind = subject.types.get((*way, tag)) if subject.types is not None else ""
        if kind is None and not way:  # an IOD that is known does not list it: a type 3
            kind = "3"
        does = _choice(action, kind or "")
        if does is Action.REMOVE or vr is None:
            return None
        if does is Action.EMPTY:
            return _empty(tag, vr)
        if does is Action.NEW_UID:
            return self._with_new_uids(source, tag, subject, way)
        return self._dummy(source, tag, vr, action)

    def _dummy(self, source: Dataset, tag: BaseTag, vr: str, action: Action) -> DataElement | None:
        first_item = None
        if vr == "SQ":
            element = _parsed(source, tag)
            if element is None or element.VR != "SQ" or not element.value:
                return _empty(tag, vr)
            first_item = element.value[0]
        if vr == "UI":
            element = _parsed(source, tag)
            return None if element is None else self._new_uids(element)
        return dummy(tag, vr, first_item, self._pseudonyms.uid)

    def _patient(self, source: Dataset, tag: BaseTag, subject: _Subject, way: Place) -> DataElement:
        pseudonym = subject.pseudonym
        if way:  # an item can speak of another patient
            pseudonym = self._pseudonyms.patient_id(
                _text(source, PATIENT_ID), _text(source, ISSUER)
            )
        return DataElement(tag, dictionary_VR(tag), pseudonym)

    def _with_new_uids(
        self, source: Dataset, tag: BaseTag, subject: _Subject, way: Place
    ) -> DataElement | None:
        element = _parsed(source, tag)
        if element is None:
            return None
        if element.VR == "SQ":
            return self._cleaned_sequence(element, subject, way)
        return self._new_uids(element) if element.VR == "UI" else None

    def _new_uids(self, element: DataElement) -> DataElement:
        return DataElement(
            element.tag, "UI", [self._pseudonyms.uid(value) for value in _values(element)]
        )

    def _unlisted(
        self, source: Dataset, tag: BaseTag, subject: _Subject, way: Place
    ) -> DataElement | None:
        """Return an attribute that the profile does not speak of, if it is what it should be."""
        element = self._checked(source, tag)
        if element is None or element.VR in ("PN", "DA", "DT"):
            return None
        if element.VR == "SQ":
            return self._cleaned_sequence(element, subject, way)
        if element.VR == "UI":
            if tag in KINDS or self._keeps_uids:
                return self._kept_uids(element)
            return self._new_uids(element)
        if element.VR in LONG_TEXT_VRS and not self._keeps_uids:
            return self._without_uids(element)
        return _copy(element)

    def _checked(self, source: Dataset, tag: BaseTag) -> DataElement | None:
        """Return an attribute that the dictionary knows, with a VR that it allows, else None."""
        if not dictionary_has_tag(tag):
            return None
        element = _parsed(source, tag)
        if element is None or element.VR not in _allowed(dictionary_VR(tag)):
            return None
        return element if _is_well_formed(element) else None

    def _without_uids(self, element: DataElement) -> DataElement:
        """Replace UIDs in a text."""
        values = [str(value) for value in _values(element)]
        if not any(UID_IN_TEXT.search(value) for value in values):
            return _copy(element)
        replaced = [
            UID_IN_TEXT.sub(lambda found: self._pseudonyms.uid(found[0]), value) for value in values
        ]
        return DataElement(element.tag, element.VR, [_encodable(value) for value in replaced])

    def _cleaned_sequence(self, element: DataElement, subject: _Subject, way: Place) -> DataElement:
        place = (*way, int(element.tag))
        items = [self._cleaned(item, subject, place) for item in element.value]
        return DataElement(element.tag, "SQ", Sequence(items))

    def _private(self, source: Dataset, tag: BaseTag) -> DataElement | None:
        """Return a private attribute that is known to be safe, or the creator of such ones."""
        if not self._safe_private:
            return None
        if tag.is_private_creator:
            creator, known = _text(source, tag), self._safe_private
            if not any((creator, tag.group) == key[:2] for key in known):
                return None
            return DataElement(tag, "LO", creator)
        creator = _text(source, Tag(tag.group, tag.element >> 8))
        vr = self._safe_private.get((creator, tag.group, tag.element & 0xFF))
        element = _parsed(source, tag) if vr else None
        return _copy(element) if element is not None and element.VR == vr else None

    def _state_what_was_done(self, result: Dataset, pixels_checked: bool) -> None:
        """Write the attributes of PS3.15 E.1.1 step 6 and of the options."""
        done = sorted(self.options)
        if not pixels_checked and Option.CLEAN_PIXEL_DATA in done:
            done.remove(Option.CLEAN_PIXEL_DATA)
        result.PatientIdentityRemoved = "YES" if pixels_checked else "NO"
        result.DeidentificationMethod = [
            f"PrivDiff {__version__}",
            "PS3.15 Annex E, Table E.1-1 of 2026c",
        ]
        result.DeidentificationMethodCodeSequence = [
            _method(code) for code in (BASIC_PROFILE, *(option.value for option in done))
        ]
        result.LongitudinalTemporalInformationModified = _dates_are(self.options)
        if Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES in done:
            result.RecognizableVisualFeatures = "NO"

    def _file_meta(self, source: Dataset, result: Dataset) -> FileMetaDataset:
        """Return file meta information of our own, with the transfer syntax of the source alone."""
        meta = FileMetaDataset()
        if "SOPClassUID" in result:
            meta.MediaStorageSOPClassUID = result.SOPClassUID
        if "SOPInstanceUID" in result:
            meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
        meta.TransferSyntaxUID = _transfer_syntax(source)
        meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
        meta.ImplementationVersionName = IMPLEMENTATION_VERSION
        return meta


def _choice(action: Action, kind: str) -> Action:
    """Return the one thing to do, by the type of the attribute in its IOD.

    Parameters
    ----------
    action
        Of the table.
    kind
        1, 1C, 2, 2C or 3; anything else is taken for 1, which fits every type.
    """
    may = action.value.split("/")
    if len(may) == 1 and action is not Action.EMPTY:
        return action
    if kind == "3" and "X" in may:
        return Action.REMOVE
    if kind in ("2", "2C", "3") and "Z" in may:
        return Action.EMPTY
    if "U*" in may:
        return Action.NEW_UID
    if kind not in ("1", "1C") and "D" not in may:
        return Action.EMPTY
    return Action.DUMMY


def _is_never_kept(tag: BaseTag) -> bool:
    """Tell of command and file elements, group lengths, curves and overlays.

    The character set is not kept either, for all text of the result has one and the same.
    """
    group = tag.group
    return (
        tag.element == 0
        or group in (0x0000, 0x0002)
        or group >> 8 in (0x50, 0x60)
        or tag == SPECIFIC_CHARACTER_SET
    )


def _parsed(source: Dataset, tag: BaseTag) -> DataElement | None:
    """Return an element with its value, or None if it is malformed."""
    try:
        return source[tag]
    except RecursionError:
        raise
    except Exception:  # pydicom raises whatever the bytes lead to
        return None


def _is_well_formed(element: DataElement) -> bool:
    """Tell whether numbers are numbers, which pydicom leaves as text if they are none."""
    if element.VR in ("DS", "IS"):
        return not any(isinstance(value, str) for value in _values(element))
    if element.VR == "AS":
        return all(AGE.fullmatch(str(value)) for value in _values(element))
    return True


def _text(source: Dataset, tag: int) -> str:
    element = _parsed(source, Tag(tag)) if tag in source else None
    return str(element.value or "").strip(" \0") if element is not None else ""


def _vr(source: Dataset, tag: BaseTag) -> str | None:
    """Return the VR of the dictionary, else of the file; the first where there is a choice."""
    if dictionary_has_tag(tag):
        return dictionary_VR(tag)[:2]
    return source.get_item(tag).VR or "UN"


def _allowed(vr: str) -> tuple[str, ...]:
    return ("OB", "OW") if vr in ("OB", "OW") else tuple(vr.split(" or "))


def _values(element: DataElement) -> Iterable[Any]:
    value = element.value
    if value is None or value == "":
        return ()
    return value if isinstance(value, (MultiValue, list)) else (value,)


def _copy(element: DataElement) -> DataElement:
    """Return an element that can be changed without changing the source."""
    value = element.value
    if isinstance(value, MultiValue):
        value = MultiValue(lambda part: part, value)
    elif isinstance(value, str) and not value.isascii():
        value = _encodable(value)
    return DataElement(element.tag, element.VR, value, already_converted=True)


def _encodable(value: str) -> str:
    """Return text without the halves of surrogate pairs that damaged bytes leave."""
    return value.encode(errors="replace").decode()


def _empty(tag: BaseTag, vr: str) -> DataElement:
    return DataElement(tag, vr, Sequence() if vr == "SQ" else None)


def _method(code: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code, "DCM"
    item.CodeMeaning = MEANINGS[code]
    return item


def _dates_are(options: Collection[Option]) -> str:
    if Option.RETAIN_FULL_DATES in options:
        return "UNMODIFIED"
    return "MODIFIED" if Option.RETAIN_MODIFIED_DATES in options else "REMOVED"


def _transfer_syntax(source: Dataset) -> UID:
    meta = getattr(source, "file_meta", None) or {}
    stated = meta.get("TransferSyntaxUID")
    if stated:
        return UID(stated)
    implicit = source.original_encoding[0]
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
