"""What is kept between two starts: addresses, choices and consents; never a password or token."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .privdiff_client import OptionError
from .privdiff_client.transport import server_url

KEY = "PrivDiff/settings"
HISTORY = 10
LOCAL = "http://127.0.0.1:8000"


@dataclass
class Settings:
    """Choices of the user.

    Attributes
    ----------
    servers
        Addresses that were used, the last one first.
    consented
        Servers to which images may go without asking again.
    stores
        DICOMweb addresses that were used, the last one first.
    model, profile, strength, compareMode, isOwnStore
        As chosen last; no strength is the choice of the bundle.
    """

    servers: list[str] = field(default_factory=lambda: [LOCAL])
    consented: list[str] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)
    model: str = ""
    profile: str = ""
    strength: float | None = None
    compareMode: str = "difference"
    isOwnStore: bool = False

    @classmethod
    def load(cls, read: Callable[[str], Any]) -> Settings:
        """Return what was kept; what cannot be read counts as absent.

        Parameters
        ----------
        read
            Returns the value of a key, such as `QSettings.value`.
        """
        try:
            kept = json.loads(read(KEY) or "{}")
        except (TypeError, ValueError):
            kept = {}
        defaults = cls()
        known = {
            own.name: kept[own.name]
            for own in fields(cls)
            if isinstance(kept, dict)
            and isinstance(kept.get(own.name), _kind(getattr(defaults, own.name)))
        }
        return cls(**known)

    def save(self, write: Callable[[str, Any], None]) -> None:
        """Keep everything."""
        write(KEY, json.dumps(asdict(self)))

    def remember(self, names: list[str], address: str) -> None:
        """Put an address at the head of a history."""
        if address in names:
            names.remove(address)
        names.insert(0, address)
        del names[HISTORY:]

    def mayReceive(self, url: str) -> bool:
        """Tell whether the user agreed once and for all that images go to this server."""
        try:
            return server_url(url) in self.consented
        except OptionError:
            return False


def _kind(default: Any) -> Any:
    return (int, float) if default is None else type(default)
