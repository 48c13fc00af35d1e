"""The server's own chain of entries: who did what to which job, in ``STATE/audit.jsonl``.

It is the same chain as that of a run, under the same key, so neither an administrator of the
machine without the key nor a later edit can take a step back unseen. The folder of a job has its
own chain besides. An entry names a job, a SHA-256 and the name of the principal: never a source, an
image id nor a UID.
"""

from __future__ import annotations

from typing import Any

from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.audit import Anchor, AuditChain, Event, load_audit_key


class ServerAudit:
    """The open chain of a server; threads and processes may use it at once.

    Parameters
    ----------
    chain
        Of ``STATE/audit.jsonl``; see `open`.
    """

    def __init__(self, chain: AuditChain) -> None:
        self._chain = chain

    @classmethod
    def open(cls, folder: StateFolder) -> ServerAudit:
        """Open the chain of a state folder and check it as a whole, once.

        Raises
        ------
        AuditError
            If an entry was changed, or is not of this key.
        SecretError
            If the audit key cannot be read.
        OutputError
            If the log cannot be read, or another process holds it for too long.
        """
        with AuditChain(folder.audit, load_audit_key()) as chain:
            return cls(chain)

    @property
    def anchor(self) -> Anchor:
        """How long the chain is, and how it ends."""
        return self._chain.anchor

    def record(
        self, event: Event, *, job: str = "", by: str = "", sha256: str = "", **facts: Any
    ) -> None:
        """Write an entry to the disk.

        Parameters
        ----------
        event
            What happened.
        job
            Id of the job, where it is about one.
        by
            Name of the principal; empty for what the server does by itself.
        sha256
            Of the bytes that it holds for.
        facts
            What else the event says, in JSON's types; nothing that names a source or a person.

        Raises
        ------
        OutputError
            If it cannot be written; what it tells of must then not be done.
        AuditError
            If the log was changed.
        """
        always = {"job": job, "by": by, "sha256": sha256}
        self._chain.append(event, **{name: text for name, text in always.items() if text}, **facts)
