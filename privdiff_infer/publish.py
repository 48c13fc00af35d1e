"""Approved bytes to a DICOMweb store, once, with a record of what became of each.

What is sent is what a person approved: the file is read once, its SHA-256 is compared with that of
the decision, and those bytes go out. A failure can mean that the instance arrived and the answer
did not, so the store is asked before anything is sent again. Publishing twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from pathlib import Path

from privdiff_infer.audit import AuditLog, Event, continued_log
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.dicom.web import DicomwebStore
from privdiff_infer.errors import OptionError, PublishError, StoreError
from privdiff_infer.journal import Journal
from privdiff_infer.published_ledger import PublishedLedger
from privdiff_infer.readers.quiet import silent_pydicom
from privdiff_infer.records import write_records
from privdiff_infer.release import OutputFolders, Review
from privdiff_infer.result_states import Decision, decisions_of

WAIT_SECONDS = (1.0, 2.0, 4.0)
"""Before an instance is sent again."""

MAY_LEAVE = (Review.APPROVED, Review.PUBLISHED)
"""What was published once may go to another store, or again to one that lost it."""


class DeliveryState(str, Enum):
    """What became of one result."""

    PUBLISHED = "published"
    ALREADY_THERE = "already_there"
    FAILED = "failed"


@dataclass(frozen=True)
class Delivery:
    """One result that may leave, and what became of it.

    Attributes
    ----------
    output
        Its path below OUT.
    state
        What became of it.
    note
        What the store warned of, or why it failed; without UIDs and secrets.
    """

    output: str
    state: DeliveryState
    note: str = ""


@dataclass(frozen=True)
class _Version:
    """The bytes of an approved result, and who it is."""

    content: bytes
    source: str
    study: str
    series: str
    instance: str


class Publication:
    """The results of one run on their way to one store; see `publication`.

    Attributes
    ----------
    outputs
        Results that may leave, by their path below OUT.
    not_approved
        How many results are there that a person did not approve.
    """

    def __init__(
        self,
        folders: OutputFolders,
        store: DicomwebStore,
        ledger: PublishedLedger,
        journal: Journal,
        log: AuditLog,
    ) -> None:
        self._folders, self._store, self._ledger, self._log = folders, store, ledger, log
        self._sources = {
            outcome.row.output: outcome.row.sop_instance_uid or outcome.source_digest
            for outcome in journal.outcomes
        }
        decisions = decisions_of(log.entries)
        self._decisions: dict[str, Decision] = {
            output: decision
            for output, decision in sorted(decisions.items())
            if decision.state in MAY_LEAVE
        }
        self._recorded = {
            (entry.facts["output"], entry.facts["sha256"])
            for entry in log.entries
            if entry.event is Event.PUBLISHED and entry.facts.get("target") == store.url
        }
        self.not_approved = len(decisions) - len(self._decisions)

    @property
    def outputs(self) -> list[str]:
        """Results that may leave, by their path below OUT."""
        return list(self._decisions)

    def deliver(self, output: str) -> Delivery:
        """Bring one of `outputs` into the store, and record it.

        Raises
        ------
        OutputError
            If audit log or ledger cannot be written.
        """
        try:
            version = self._approved(output)
            delivery = self._bring(output, version)
        except (PublishError, StoreError) as error:
            self._record(Event.PUBLISH_FAILED, output, reason=error.problem)
            return Delivery(output, DeliveryState.FAILED, str(error))
        self._confirm(output, version, delivery.note)
        return delivery

    def report(self, output: str, note: str = "") -> None:
        """Record that somebody else brought one of `outputs` into the store, as they say.

        Parameters
        ----------
        output
            Its path below OUT.
        note
            What the store warned of; without UIDs and secrets.

        Raises
        ------
        PublishError
            If these bytes must not be out there: the file is not the approved one, or another
            version of its source was published. This is recorded.
        OutputError
            If audit log or ledger cannot be written.
        """
        try:
            version = self._approved(output)
            self._claim(version)
        except PublishError as error:
            self._record(Event.PUBLISH_FAILED, output, reason=error.problem)
            raise
        self._confirm(output, version, note)

    def _confirm(self, output: str, version: _Version, note: str) -> None:
        self._ledger.confirm(version.source, version.instance)
        if (output, self._decisions[output].sha256) not in self._recorded:
            self._record(Event.PUBLISHED, output, warning=note)

    def _claim(self, version: _Version) -> None:
        if not self._ledger.claim(version.source, version.instance):
            raise PublishError(
                "another version of its source was published already under this key",
                "publish no second one: versions of one image can be averaged",
            )

    def _approved(self, output: str) -> _Version:
        try:
            content = (self._folders.root / output).read_bytes()
        except OSError as error:
            raise PublishError(
                "the file cannot be read", "restore it, or redraw it with anonymize --resume"
            ) from error
        if hashlib.sha256(content).hexdigest() != self._decisions[output].sha256:
            raise PublishError(
                "the file is not the one that was approved", "see privdiff verify; send nothing"
            )
        return _version(content, self._sources.get(output, ""))

    def _bring(self, output: str, version: _Version) -> Delivery:
        """Send what is not there, until it is there or the store will not have it."""
        if self._is_there(version):
            return Delivery(output, DeliveryState.ALREADY_THERE)
        self._claim(version)
        for wait in (*WAIT_SECONDS, None):
            try:
                note = self._store.store(version.content, version.instance)
                return Delivery(output, DeliveryState.PUBLISHED, note)
            except StoreError as error:
                failure = error
            if self._arrived(version, failure):
                return Delivery(output, DeliveryState.PUBLISHED, "found after a failure")
            if not failure.is_passing:
                self._ledger.give_up(version.source, version.instance)
                raise failure
            if wait is not None:
                time.sleep(max(wait, failure.retry_after))
        raise failure  # the claim stays: it may have arrived

    def _is_there(self, version: _Version) -> bool:
        return self._store.holds(version.study, version.series, version.instance)

    def _arrived(self, version: _Version, failure: StoreError) -> bool:
        """Ask whether a failure of sending was one of the answer alone."""
        try:
            return self._is_there(version)
        except StoreError:
            if failure.is_passing:  # nobody can tell, and sending on would not help
                raise failure from None
            return False

    def _record(self, event: Event, output: str, **facts: str) -> None:
        sha256 = self._decisions[output].sha256
        self._log.append(event, output=output, sha256=sha256, target=self._store.url, **facts)


@contextmanager
def publication(
    out: Path, store: DicomwebStore, pseudonyms: Pseudonyms, ledger: PublishedLedger
) -> Iterator[Publication]:
    """Hold a run while its results are published; write its records and the seal at the end.

    Parameters
    ----------
    out
        Folder of the run.
    store
        The target.
    pseudonyms
        Of the key of the run.
    ledger
        Of that key.

    Raises
    ------
    OptionError
        If the run was made under another key.
    OutputError
        If the folder holds no run, another command works in it, or it cannot be written.
    AuditError
        If audit log or records were changed.
    SecretError
        If there is no audit key.
    """
    folders = OutputFolders(out)
    with continued_log(folders) as log:
        _check_key(folders, pseudonyms)
        journal = Journal(folders, log)
        try:
            yield Publication(folders, store, ledger, journal, log)
        finally:
            write_records(folders, journal.outcomes, log)


def _check_key(folders: OutputFolders, pseudonyms: Pseudonyms) -> None:
    # The records were compared with their seal when the log was opened.
    recorded = json.loads(folders.run.read_text(encoding="utf-8")).get("key_fingerprint")
    if recorded not in (None, pseudonyms.fingerprint):
        raise OptionError(
            f"the run was made under the key {recorded}, and this one is {pseudonyms.fingerprint}",
            "name the key of the run with PRIVDIFF_KEY_FILE",
        )


def _version(content: bytes, source: str) -> _Version:
    import pydicom  # slow to import

    if content[128:132] != b"DICM":
        raise PublishError("the result is no DICOM file", "redraw its source with --format dicom")
    if not source:
        raise PublishError("the journal does not name its source", "redraw it in another folder")
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    with silent_pydicom():
        header = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=[*names])
    if not all(header.get(name) for name in names):
        raise PublishError("the result has no UIDs", "redraw its source with --format dicom")
    study, series, instance = (str(header[name].value) for name in names)
    return _Version(content, source, study, series, instance)
