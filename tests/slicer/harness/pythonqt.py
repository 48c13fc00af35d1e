"""The module `qt`: PySide6 classes that are used as PythonQt's are.

Properties are attributes (``label.text = "a"``) and not methods, signals are connected by their
signature, and names that do not exist are refused.
"""

from __future__ import annotations

import ctypes
import inspect
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets

LIBRARIES = (QtWidgets, QtGui, QtCore, QtNetwork, QtUiTools)

NOT_PROPERTIES = frozenset(
    {"sizeHint", "minimumSizeHint", "singleShot", "metaObject", "parent", "children"}
)

PLENTY = 1 << 40


def keepSingletons() -> None:
    """Give None, True and False so many references that they last.

    PySide 6.12 hands them out as Python 3.12 does, where they are immortal: without a reference of
    its own. On an older Python their count falls with every call, until "deallocating None".
    """
    if sys.version_info >= (3, 12):
        return
    for one in (None, True, False):
        ctypes.c_ssize_t.from_address(id(one)).value += PLENTY


_made: dict[type, type] = {}
_connectSignal = QtCore.QObject.connect
_disconnectSignal = QtCore.QObject.disconnect


class PythonQtObject:
    """What PythonQt gives every QObject."""

    def __getattribute__(self, name: str) -> Any:
        # PySide looks these two up past the classes of Python.
        if name in ("connect", "disconnect"):
            return partial(getattr(PythonQtObject, f"_{name}"), self)
        return super().__getattribute__(name)

    def _connect(self, signature: str, listener: Callable[..., Any]) -> bool:
        """Connect a signal by its signature; an unknown one is an error."""
        known = self._signal(signature)
        arguments = known.partition("(")[2].rstrip(")")
        given = len(arguments.split(",")) if arguments else 0
        wanted = _accepted(listener)

        def slot(*values: Any) -> None:
            listener(*values[: given if wanted is None else min(given, wanted)])

        self.__dict__.setdefault("_connections", []).append((known, listener, slot))
        _connectSignal(self, QtCore.SIGNAL(known), slot)
        return True

    def _disconnect(self, signature: str, listener: Callable[..., Any]) -> bool:
        """End a connection."""
        known = self._signal(signature)
        connections = self.__dict__.get("_connections", [])
        for connection in list(connections):
            if connection[0] == known and connection[1] == listener:
                connections.remove(connection)
                _disconnectSignal(self, QtCore.SIGNAL(known), connection[2])
                return True
        return False

    @property
    def name(self) -> str:
        """The object's name."""
        return str(QtCore.QObject.objectName(self))

    @name.setter
    def name(self, name: str) -> None:
        QtCore.QObject.setObjectName(self, name)

    def className(self) -> str:
        """Name of the Qt class."""
        return str(self.metaObject().className())

    def delete(self) -> None:
        """Delete the object, as PythonQt can."""
        self.deleteLater()

    def _signal(self, signature: str) -> str:
        wanted = signature
        for word in ("vtkMRMLScene*", "vtkMRMLNode*", "qSlicerIO::IOProperties"):
            wanted = wanted.replace(word, "PyObject")
        normalized = bytes(QtCore.QMetaObject.normalizedSignature(wanted).data()).decode()
        if self.metaObject().indexOfSignal(normalized) < 0:
            raise ValueError(f"{self.className()} has no signal {signature}")
        return normalized

    def __setattr__(self, name: str, value: Any) -> None:
        # A stand-in keeps things for itself, and PySide puts the children of a form into its root.
        isOurs = name.startswith("_") or isinstance(value, QtCore.QObject)
        if not isOurs and not hasattr(type(self), name) and type(self) in _made.values():
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        super().__setattr__(name, value)


def make(cls: type) -> type:
    """Return the subclass of a Qt class that behaves as PythonQt does."""
    if cls not in _made:
        body: dict[str, Any] = {}
        meta = cls.staticMetaObject
        for index in range(meta.propertyCount()):
            name = meta.property(index).name()
            # Those of stand-ins are attributes already.
            isOfStandIn = isinstance(inspect.getattr_static(cls, name, None), QtCore.Property)
            if name not in NOT_PROPERTIES and not isOfStandIn:
                body[name] = _property(cls, name, meta.property(index).isWritable())
        if hasattr(cls, "exec"):
            body["exec_"] = cls.exec
        metaclass = type(cls)
        _made[cls] = metaclass(cls.__name__, (PythonQtObject, cls), body)
    return _made[cls]


def _property(cls: type, name: str, isWritable: bool) -> property:
    capital = name[0].upper() + name[1:]
    getter = next(
        (
            getattr(cls, candidate)
            for candidate in (name, f"is{capital}", f"has{capital}")
            if callable(getattr(cls, candidate, None))
        ),
        None,
    )
    setter = getattr(cls, f"set{capital}", None)

    def read(self: Any) -> Any:
        if getter is None:
            return cls.property(self, name)
        try:
            return getter(self)
        except TypeError:
            return getter()  # a static one

    def write(self: Any, value: Any) -> None:
        if setter is not None:
            setter(self, value)
        else:
            cls.setProperty(self, name, value)

    return property(read, write if isWritable or setter is not None else None)


def _accepted(listener: Callable[..., Any]) -> int | None:
    """Return how many arguments a listener takes, None for any number."""
    try:
        parameters = inspect.signature(listener).parameters.values()
    except (TypeError, ValueError):
        return 0
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in parameters)


def _fileDialog() -> type:
    made = make(QtWidgets.QFileDialog)

    class QFileDialog(made):  # type: ignore[misc,valid-type]
        """Its static functions return the path alone."""

        @staticmethod
        def getOpenFileName(*arguments: Any) -> str:
            """Return the path."""
            return str(QtWidgets.QFileDialog.getOpenFileName(*arguments)[0])

    return QFileDialog


def module() -> types.ModuleType:
    """Return the module `qt`."""
    qt = types.ModuleType("qt")

    def lookUp(name: str) -> Any:
        if name == "QFileDialog":
            found: Any = _fileDialog()
        elif name == "QUiLoader":
            from tests.slicer.harness.uiloader import UiLoader

            found = UiLoader
        elif name == "Signal":
            raise AttributeError("qt.Signal crashes in PythonQt; use a Signal of your own")
        else:
            found = _find(name)
            if isinstance(found, type) and issubclass(found, QtCore.QObject):
                found = make(found)
        setattr(qt, name, found)
        return found

    qt.__getattr__ = lookUp  # type: ignore[method-assign]
    return qt


def _find(name: str) -> Any:
    for library in LIBRARIES:
        if hasattr(library, name):
            return getattr(library, name)
    raise AttributeError(f"module 'qt' has no attribute '{name}'")
