"""The closed sets: findings and their states, sexes, age bins, profiles, choices of results."""

from __future__ import annotations

from enum import Enum, IntEnum

FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The 14 findings of NIH ChestX-ray14, in the order of every findings vector."""

NO_FINDING = "No Finding"

FINDING_TOKENS: tuple[str, ...] = (*FINDINGS, NO_FINDING)
"""The 15 diagnostic tokens: 14 findings and the explicit absence of all of them."""


class FindingState(IntEnum):
    """What is known of one finding; the value is its row in the embedding of that finding."""

    UNKNOWN = 0
    ABSENT = 1
    PRESENT = 2


class Sex(IntEnum):
    """Sex as the header or the manifest gives it; the value is its row in the codebook."""

    F = 0
    M = 1


AGE_BIN_EDGES: tuple[int, ...] = (18, 40, 60, 75)
"""Lower edges in years of age bins 1 to 4; bin 0 is below the first edge."""

AGE_BINS = len(AGE_BIN_EDGES) + 1


def age_bin(years: float) -> int:
    """Return the index of the age bin of `years`.

    Examples
    --------
    >>> [age_bin(years) for years in (0, 17.9, 18, 59, 75, 102)]
    [0, 0, 1, 2, 4, 4]
    """
    return sum(years >= edge for edge in AGE_BIN_EDGES)


class Branch(IntEnum):
    """Which condition one row of a denoiser batch carries (method: c in {diag, id, age, sex}).

    The unconditional branch phi is `FINDINGS` with every state unknown.
    """

    FINDINGS = 0
    IDENTITY = 1
    AGE = 2
    SEX = 3


SENSITIVE_BRANCHES: tuple[Branch, ...] = (Branch.IDENTITY, Branch.AGE, Branch.SEX)


DEFAULT_BUNDLE = "privdiff-cxr-256"
"""Name of the bundle that is used where none is named."""


class Profile(str, Enum):
    """Named ways of sampling, from the paper's literal equations to the distilled default."""

    STANDARD = "standard"
    FAST = "fast"
    VANILLA = "vanilla"
    PAPER = "paper"


class Precision(str, Enum):
    """Number format of the networks."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class OutputSize(str, Enum):
    """Matrix of a result: that of the model grid without its padding, or that of the source."""

    MODEL = "model"
    ORIGINAL = "original"


class SideMarkers(str, Enum):
    """What becomes of a lone L or R: it is removed, or a new letter is drawn in its stead."""

    REMOVE = "remove"
    REDRAW = "redraw"
