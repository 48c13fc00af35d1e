"""Whether a DICOM header says of its image that it is no frontal chest radiograph.

A header that says nothing passes: the model's own reader looks at every image afterwards. Whatever
is stated must be frontal and the chest, in words that are known here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from pydicom import Dataset

from privdiff_infer.errors import ImageHeld
from privdiff_infer.readers.dicom_header import NOTHING_STATED, text

RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "OT", "SC", "RG", "XA", "RF"})

# Codes are those of PS3.16 in SNOMED CT and, after the commas, in the SNOMED RT of older files. The
# values of the two do not collide, so the coding scheme, which devices misspell, is not compared.
FRONTAL_VIEW_CODES = frozenset(
    {
        *("272479007", "R-10214", "R-40888"),  # postero-anterior (CID 4010)
        *("399348003", "R-10206"),  # antero-posterior (CID 4010)
        *("399033003", "R-10202"),  # frontal (CID 4010)
    }
)
CHEST_CODES = frozenset(
    {
        *("816094009", "51185008", "T-D3000"),  # chest, thorax (CID 4009, CID 4)
        *("43799004", "T-D3200"),  # intra-thoracic (CID 4)
        *("39607008", "T-28000"),  # lung (CID 4)
        *("72410000", "T-D3300"),  # mediastinum (CID 4009)
        *("78904004", "T-D3050"),  # chest wall (CID 4)
        *("113197003", "T-11300"),  # rib (CID 4009)
    }
)

FRONTAL_WORDS = re.compile(
    r"\b(PA|P A|AP|A P|FRONTAL|(POSTERO|POSTERIOR) ?ANTERIOR|(ANTERO|ANTERIOR) ?POSTERIOR)\b"
)
NEUTRAL_WORDS = frozenset(
    "CHEST THORAX VIEW PROJECTION POSITION UPRIGHT SEMIUPRIGHT SEMI ERECT SEMIERECT STANDING "
    "SITTING SUPINE PRONE LYING RECUMBENT PORTABLE MOBILE BED BEDSIDE INSPIRATION EXPIRATION "
    "GRID".split()
)
"""May stand beside a frontal view. AXIAL, LORDOTIC, OBLIQUE and DECUBITUS may not."""

CHEST_WORDS = re.compile(r"CHEST|CXR|THORA|TORA[CKX]|LUNG|PULMO|POUMON|\bRIBS?\b")
BEYOND_CHEST_WORDS = re.compile(r"SPIN|VERTEBR|LUMB|CERVIC|ABD|PELV|NECK|HEAD|LIMB|EXTREM")
"""Regions that reach further than the model's images: CHESTABDPELVIS, THORACIC SPINE."""


def check_modality(dataset: Dataset) -> None:
    """Hold objects of another modality than projection radiography.

    Raises
    ------
    ImageHeld
        If the header states such a modality.
    """
    modality = text(dataset, "Modality")
    if modality and modality.upper() not in RADIOGRAPH_MODALITIES:
        raise ImageHeld(
            "the header states a modality other than CR or DX",
            "name chest radiographs only",
            detail=f"Modality {modality}",
        )


def check_view_and_anatomy(dataset: Dataset) -> None:
    """Hold lateral and oblique views and other body parts.

    ViewPosition and BodyPartExamined are text; DX objects have codes instead (PS3.3 C.8.11.5 and
    C.8.11.2). All that are stated must agree.

    Raises
    ------
    ImageHeld
        If a view is stated that is not frontal, or a body part that is not the chest.
    """
    view = _first_unlike(
        dataset, "ViewPosition", "ViewCodeSequence", FRONTAL_VIEW_CODES, _is_frontal
    )
    if view:
        raise ImageHeld(
            "the header states a view that is not frontal", "name PA or AP images only", detail=view
        )
    part = _first_unlike(
        dataset, "BodyPartExamined", "AnatomicRegionSequence", CHEST_CODES, _is_chest
    )
    if part:
        raise ImageHeld(
            "the header states a body part other than the chest",
            "name chest images only",
            detail=part,
        )


def _first_unlike(
    dataset: Dataset,
    text_keyword: str,
    code_keyword: str,
    known_codes: frozenset[str],
    is_wanted: Callable[[str], bool],
) -> str | None:
    """Return the first statement that is neither a known code nor in wanted words, or None."""
    stated = text(dataset, text_keyword) or ""
    if not is_wanted(stated):
        return f"{text_keyword} {stated}"
    for item in dataset.get(code_keyword) or []:
        code, meaning = text(item, "CodeValue") or "", text(item, "CodeMeaning") or ""
        says_nothing = not code and not meaning
        if not says_nothing and code not in known_codes and not (meaning and is_wanted(meaning)):
            return f"{code_keyword} {code} {meaning}".rstrip()
    return None


def _is_frontal(stated: str) -> bool:
    words = _plain_words(stated)
    others, found = FRONTAL_WORDS.subn("", words)
    return words in NOTHING_STATED or (found > 0 and set(others.split()) <= NEUTRAL_WORDS)


def _is_chest(stated: str) -> bool:
    words = _plain_words(stated)
    names_chest = CHEST_WORDS.search(words) and not BEYOND_CHEST_WORDS.search(words)
    return words in NOTHING_STATED or bool(names_chest)


def _plain_words(stated: str) -> str:
    """Return upper-case words without accents, digits and punctuation, one space between them."""
    letters = unicodedata.normalize("NFKD", stated)
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[^\W\d_]+", bare.upper()))
