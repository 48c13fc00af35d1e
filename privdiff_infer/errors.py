"""The errors that this project raises on purpose.

Every message is one line and says what happened, which value caused it and what to do. No message
contains pixel data or a secret.

What may leave: `problem` and `remedy` of an `ImageError`, which are constant text. What is private:
its `detail` and `sop_instance_uid`, therefore also ``str(error)``, and the messages of all other
errors, which name what the user typed. Private text goes to the console and to ``private/``, never
to ``release/`` nor to a log.
"""

from __future__ import annotations

from typing import Any


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

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes hand errors back by pickling them.
        return type(self), (self.problem, self.remedy)


class ImageError(PrivDiffError):
    """An input that does not become a result.

    Parameters
    ----------
    problem, remedy
        Constant text, without any value of the file: it may leave with a report.
    detail
        The offending value, such as that of a header. Private.

    Attributes
    ----------
    sop_instance_uid
        Of a DICOM source whose header could be read, else empty. Private.

    Examples
    --------
    >>> print(ImageHeld("this is no radiograph", "name radiographs only", detail="modality MR"))
    this is no radiograph (modality MR); name radiographs only
    """

    def __init__(self, problem: str, remedy: str, *, detail: str = "") -> None:
        super().__init__(problem, remedy)
        self.detail = detail
        self.sop_instance_uid = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.problem}{detail}; {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        private = {"detail": self.detail, "sop_instance_uid": self.sop_instance_uid}
        return type(self), (self.problem, self.remedy), private


class ImageRejected(ImageError):
    """The input cannot be read as one chest radiograph; the row becomes ``failed``."""


class ImageHeld(ImageError):
    """The input was read but must not be redrawn or released unseen; the row becomes ``held``."""


class OptionError(PrivDiffError):
    """A command or a call was given a value that it cannot work with."""


class OutputError(PrivDiffError):
    """A result cannot be written (no permission, disk full, folder in use)."""


class PublishError(PrivDiffError):
    """One result must not be sent; the texts are constant."""


class StoreError(PrivDiffError):
    """A DICOMweb store cannot be reached, refuses, or answers with something else.

    The texts are constant but for the number of an HTTP status or a DICOM failure reason: no URL,
    no UID and no credential is in them.

    Parameters
    ----------
    problem, remedy
        As always.
    is_passing
        Whether the same request can succeed later.
    retry_after
        Seconds that the store asks us to wait.
    """

    def __init__(
        self, problem: str, remedy: str, *, is_passing: bool = False, retry_after: float = 0.0
    ) -> None:
        super().__init__(problem, remedy)
        self.is_passing = is_passing
        self.retry_after = retry_after


class SecretError(PrivDiffError):
    """A key file is missing, too short, or open to others."""


class AuditError(PrivDiffError):
    """What the audit log protects was changed, so that nothing may build on it."""


class BundleError(PrivDiffError):
    """A model bundle is missing, damaged or not meant for the requested use."""


class ClusterError(PrivDiffError):
    """A worker on another machine is not set up as the run needs it."""


class WorkersLost(PrivDiffError):
    """The scheduler of the workers is gone, and with it what it had in work."""

    def __init__(self) -> None:
        super().__init__(
            "the workers cannot be reached",
            "check the scheduler and its address, then continue with --resume",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it without arguments, for it takes none."""
        return type(self), ()


class TextDetectorError(PrivDiffError):
    """The detector of burned-in text is missing or does not load."""


class ConfigError(PrivDiffError):
    """A training configuration has an unknown key or an impossible value."""


class CohortError(PrivDiffError):
    """A cohort cannot be used as it is (patients across splits, unknown findings)."""


class ExportRefused(PrivDiffError):
    """A model that was trained gives its training patients away, so no bundle is made of it."""
