"""The roles and the person behind a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fastapi import Depends, Request

from monailabel_app.lib.errors import Forbidden, Unauthenticated


class Role(str, Enum):
    """What a person may do; each role may do all that the ones before it may.

    ``USER`` sends images and sees what became of them. ``REVIEWER`` sees originals, decides and
    publishes. ``ADMIN`` trains, runs batches, changes the default model and reads logs.
    """

    USER = "user"
    REVIEWER = "reviewer"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Tell whether this role may do what another one may.

        Examples
        --------
        >>> Role.ADMIN.includes(Role.REVIEWER), Role.USER.includes(Role.REVIEWER)
        (True, False)
        """
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Principal:
    """The person or program behind a request.

    Attributes
    ----------
    name
        As the token says; what the audit log names as the one who did something.
    role
        The highest of their roles.
    """

    name: str
    role: Role


LOCAL = Principal("local", Role.ADMIN)
"""Everyone, where the server knows nobody and listens on this machine alone."""


def principal(request: Request) -> Principal:
    """Return who asks; the middleware has found it out.

    Raises
    ------
    Unauthenticated
        If the middleware let a request pass without anybody.
    """
    found = getattr(request.state, "principal", None)
    if not isinstance(found, Principal):
        raise Unauthenticated
    return found


class Require:
    """A dependency of routes: at least this role.

    Parameters
    ----------
    role
        The lowest that may.
    """

    def __init__(self, role: Role) -> None:
        self.role = role

    def __call__(self, asking: Principal = Depends(principal)) -> Principal:  # noqa: B008
        """Return who asks.

        Raises
        ------
        Forbidden
            If their role is lower.
        """
        if not asking.role.includes(self.role):
            raise Forbidden(self.role.value)
        return asking
