"""The errors that this project raises on purpose.

Every message is one line and says what happened, which value caused it and what to do. No message
contains pixel data, a patient attribute or a secret.
"""

from __future__ import annotations


class PrivDiffError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    problem
        What happened, with the offending value.
    remedy
        What the user can do about it.

    Examples
    --------
    >>> print(PrivDiffError("strength 1.4 is outside (0, 1]", "choose a value up to 1"))
    strength 1.4 is outside (0, 1]; choose a value up to 1
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[PrivDiffError], tuple[str, str]]:
        # Worker processes hand errors back by pickling them.
        return type(self), (self.problem, self.remedy)


class ImageRejected(PrivDiffError):
    """The input cannot be read as one chest radiograph; the row becomes ``failed``."""


class ImageHeld(PrivDiffError):
    """The input was read but must not be redrawn or released unseen; the row becomes ``held``."""


class OptionError(PrivDiffError):
    """A command or a call was given a value that it cannot work with."""


class OutputError(PrivDiffError):
    """A result cannot be written (no permission, disk full, folder in use)."""


class BundleError(PrivDiffError):
    """A model bundle is missing, damaged or not meant for the requested use."""


class ConfigError(PrivDiffError):
    """A training configuration has an unknown key or an impossible value."""


class CohortError(PrivDiffError):
    """A cohort cannot be used as it is (patients across splits, unknown findings)."""
