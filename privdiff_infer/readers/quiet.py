"""Libraries that print on their own: an error of ours is one line, and theirs quote headers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_pydicom() -> Iterator[None]:
    """Keep pydicom, and gdcm below it, from warning and logging."""
    # Imported here: neither the command line's start nor the other readers need it.
    import gdcm  # type: ignore[import-untyped]

    for switch_off in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        switch_off()
    logger = logging.getLogger("pydicom")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def silence_itk() -> None:
    """Keep ITK from printing warnings to standard error; errors are raised all the same."""
    import SimpleITK as sitk

    sitk.ProcessObject.GlobalWarningDisplayOff()
