"""Client of the PrivDiff routes of a server: `requests` and the standard library only, Python 3.9.

Examples
--------
>>> from privdiff_client import PrivDiffClient
>>> PrivDiffClient("http://127.0.0.1:8000/")
PrivDiffClient('http://127.0.0.1:8000')
"""

from .client import PrivDiffClient
from .errors import (
    ApiError,
    Busy,
    Cancelled,
    ClientError,
    Conflict,
    DigestMismatch,
    Forbidden,
    NotFound,
    OptionError,
    Refused,
    ServerFailed,
    StoreRefused,
    Unauthenticated,
    UnexpectedAnswer,
    Unreachable,
)
from .records import (
    Approval,
    Claim,
    Decision,
    Download,
    Figures,
    Job,
    JobPage,
    JobState,
    Measured,
    Model,
    ModelName,
    Options,
    Principal,
    Progress,
    Publication,
    Published,
)
from .stow import DicomwebTarget, StoreAnswer

__all__ = [
    "ApiError",
    "Approval",
    "Busy",
    "Cancelled",
    "Claim",
    "ClientError",
    "Conflict",
    "Decision",
    "DicomwebTarget",
    "DigestMismatch",
    "Download",
    "Figures",
    "Forbidden",
    "Job",
    "JobPage",
    "JobState",
    "Measured",
    "Model",
    "ModelName",
    "NotFound",
    "OptionError",
    "Options",
    "Principal",
    "PrivDiffClient",
    "Progress",
    "Publication",
    "Published",
    "Refused",
    "ServerFailed",
    "StoreAnswer",
    "StoreRefused",
    "Unauthenticated",
    "UnexpectedAnswer",
    "Unreachable",
]
