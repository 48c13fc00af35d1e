"""Lets monailabel 0.8.5 be imported beside current packages.

monailabel imports, at the top of modules that everything needs, what only its export of DICOM SEG,
its ITK writer and its client of DSA use: pydicom_seg, which no longer works with pydicom 3, itk and
girder_client. It also uses distutils, which Python 3.12 removed. None of this is used here, so
empty modules stand in for what is not installed. Where upstream does without, nothing happens.

It must run before monailabel is imported, in the server and in every process that monailabel
starts: call it first in `main.py` and in `asgi.py`.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

UNUSED = ("itk", "girder_client", "pydicom_seg")
"""Packages that monailabel imports and that nothing here calls."""

STORAGE_CLASSES = "pydicom._storage_sopclass_uids"
"""What pydicom_seg 0.4.1 imports, should it be installed; pydicom 3 removed it."""

TRUE = frozenset({"y", "yes", "t", "true", "on", "1"})
FALSE = frozenset({"n", "no", "f", "false", "off", "0"})


def install() -> None:
    """Register what is missing; a second call changes nothing."""
    for name in UNUSED:
        _stand_in(name)
    _stand_in("distutils", __path__=[])
    _stand_in("distutils.util", strtobool=_strtobool)
    if not _is_there(STORAGE_CLASSES):
        from pydicom.uid import SegmentationStorage

        _stand_in(STORAGE_CLASSES, SegmentationStorage=SegmentationStorage)


def _stand_in(name: str, **attributes: Any) -> None:
    if _is_there(name):
        return
    module = ModuleType(name)
    # Without a spec, a later `find_spec` raises instead of answering.
    module.__spec__ = ModuleSpec(name, loader=None, is_package="__path__" in attributes)
    vars(module).update(attributes)
    sys.modules[name] = module


def _is_there(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _strtobool(text: str) -> int:
    """Do what `distutils.util.strtobool` did.

    Raises
    ------
    ValueError
        If the text says neither.
    """
    if text.lower() in TRUE:
        return 1
    if text.lower() in FALSE:
        return 0
    raise ValueError(f"invalid truth value {text!r}")
