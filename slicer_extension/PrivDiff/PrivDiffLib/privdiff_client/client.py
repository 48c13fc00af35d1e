"""The routes of a server as methods; docs/explanation/server.md is their contract."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Union
from urllib.parse import quote

from .errors import Cancelled, Conflict, OptionError, UnexpectedAnswer, Unreachable
from .records import (
    Decision,
    Download,
    Job,
    JobPage,
    JobState,
    Model,
    Options,
    Principal,
    Publication,
    record,
)
from .stow import DicomwebTarget
from .studies import ReaderStudies
from .transport import ANSWER_SECONDS, Answer, ShouldStop, Transport, accepted, check_digest

API = "/privdiff/v1"

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 120.0
"""How long waiting goes on without an answer: a server that is restarted loses no job."""

SUFFIXES = (
    (128, b"DICM", ".dcm"),
    (0, b"\x89PNG", ".png"),
    (0, b"NRRD", ".nrrd"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"\x1f\x8b", ".nii.gz"),
)
"""(offset, magic bytes, suffix) of what is sent."""

Upload = Union[bytes, Path]  # noqa: UP007 - evaluated by Python 3.9


class PrivDiffClient:
    """A server of PrivDiff; safe to use from one thread at a time.

    Parameters
    ----------
    url
        Of the server, such as ``https://host:8000``.
    token
        Bearer token, or empty. It is kept out of `repr`, URLs and errors.
    ca
        File of the certificates that are trusted instead of the usual ones. There is no way to
        switch verification off.
    answer_seconds
        Longest silence of the server.

    Raises
    ------
    OptionError
        If the address is impossible, or a token would travel over http:// to another machine.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        ca: Path | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._transport = Transport(url, token, ca, answer_seconds)
        self.reader_studies = ReaderStudies(self._transport)

    def __repr__(self) -> str:
        return f"PrivDiffClient({self.url!r})"

    def __enter__(self) -> PrivDiffClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Address of the server, as it is compared and shown."""
        return self._transport.url

    def close(self) -> None:
        """End the connections."""
        self._transport.close()

    def health(self) -> str:
        """Return the version of the server.

        Raises
        ------
        ServerFailed
            If its queue does not work.
        """
        return str(self._get("/health").get("version", ""))

    def me(self) -> Principal:
        """Return who we are for the server."""
        return record(Principal, self._get("/me"))

    def models(self) -> list[Model]:
        """Return the bundles of the server."""
        return [Model.from_json(model) for model in self._get("/models")["models"]]

    def make_default(self, model_id: str) -> None:
        """Make a bundle the default one; needs an administrator."""
        self._post(f"/models/{_part(model_id)}/default")

    def submit(
        self,
        files: Sequence[Upload] = (),
        *,
        images: Sequence[str] = (),
        options: Options | None = None,
        idempotency_key: str = "",
        cancelled: ShouldStop = lambda: False,
    ) -> list[Job]:
        """Queue images; return their jobs in the order given, uploads first.

        Parameters
        ----------
        files
            Contents, or paths of files. Names of files stay here: they can hold those of patients.
        images
            Ids in the datastore of the server.
        options
            What is chosen for all of them.
        idempotency_key
            The same key gives the same jobs; empty: a new one, so that trying again is harmless.
        cancelled
            Asked before each attempt; what has gone is answered.
        """
        if not files and not images:
            raise OptionError("there is no image to queue", "name a file or an image")
        form = [*(options or Options()).form(), *(("images", image) for image in images)]
        answer = self._json(
            "POST",
            "/jobs",
            repeatable=True,
            cancelled=cancelled,
            headers={"Idempotency-Key": idempotency_key or secrets.token_hex(16)},
            # A form of text alone is made multipart by a part without a file name.
            files=[*_parts(files), *((name, (None, value)) for name, value in form)],
        )
        return [Job.from_json(job) for job in answer["jobs"]]

    def page(
        self,
        *,
        states: Iterable[JobState] = (),
        batch: str = "",
        image: str = "",
        after: str | None = None,
        limit: int = 100,
    ) -> JobPage:
        """Return one page of the list of jobs, with how many there are of each state."""
        query = [("state", JobState(state).value) for state in states]
        query += [("batch", batch), ("image", image), ("limit", str(limit)), ("after", after or "")]
        return JobPage.from_json(
            self._get("/jobs", params=[(name, value) for name, value in query if value])
        )

    def jobs(self, **filters: Any) -> Iterator[Job]:
        """Yield all jobs that match, page by page; filters as those of `page`."""
        after: str | None = None
        while True:
            page = self.page(after=after, **filters)
            yield from page.jobs
            if page.next is None or page.next == after:
                return
            after = page.next

    def job(self, job_id: str) -> Job:
        """Return one job as it is now."""
        return Job.from_json(self._get(_of(job_id)))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that is queued or runs."""
        return Job.from_json(self._json("DELETE", _of(job_id), repeatable=True))

    def wait(
        self,
        job_id: str,
        on_change: Callable[[Job], None] = lambda job: None,
        *,
        cancelled: ShouldStop = lambda: False,
        timeout_seconds: float | None = None,
    ) -> Job:
        """Wait until a job is done; return it.

        Parameters
        ----------
        on_change
            Called with the job whenever something about it is new.
        cancelled
            Asked often; True ends waiting, not the job.
        timeout_seconds
            Longest wait, None for ever.

        Raises
        ------
        Cancelled
            If `cancelled` said so.
        Unreachable
            If the server is silent for `PATIENCE_SECONDS`, or the wait is over.
        """
        begin = heard = time.monotonic()
        last: Job | None = None
        while True:
            try:
                job = self.job(job_id)
            except Unreachable:
                if time.monotonic() - heard > PATIENCE_SECONDS:
                    raise
            else:
                heard = time.monotonic()
                if job != last:
                    on_change(job)
                    last = job
                if not job.state.is_waiting:
                    return job
            if timeout_seconds is not None and time.monotonic() - begin > timeout_seconds:
                raise Unreachable("the job is not done yet", "wait longer, or look at it later")
            _pause(POLL_SECONDS, cancelled)

    def result(
        self, job_id: str, kind: str = "file", *, cancelled: ShouldStop = lambda: False
    ) -> Download:
        """Fetch a result and check it.

        Parameters
        ----------
        kind
            ``file`` for the file of record, the one that is approved and published, or ``dicom``,
            ``nrrd``, ``png`` for a view of it.

        Raises
        ------
        DigestMismatch
            If other bytes arrive than the server names.
        """
        answer = self._fetch(f"{_of(job_id)}/result", kind, cancelled)
        sha256 = answer.headers.get("X-PrivDiff-SHA256", "")
        sent = answer.headers.get("ETag", "").removeprefix("W/").strip('"')
        expected = sha256 if kind == "file" else sent
        if not expected:
            raise UnexpectedAnswer("the result comes without its SHA-256", "update the server")
        check_digest(answer.content, expected)
        return Download(answer.content, sha256, answer.headers.get("Content-Type", ""))

    def source(self, job_id: str, *, cancelled: ShouldStop = lambda: False) -> bytes:
        """Return a PNG of the original; for reviewers, and noted in the server's log."""
        return self._fetch(f"{_of(job_id)}/source", "png", cancelled).content

    def difference(self, job_id: str, *, cancelled: ShouldStop = lambda: False) -> bytes:
        """Return a PNG of the difference; for reviewers."""
        return self._fetch(f"{_of(job_id)}/difference", "png", cancelled).content

    def report(self, job_id: str, kind: str = "json") -> bytes:
        """Return the release report of a job as ``json`` or ``html``."""
        return self._fetch(f"{_of(job_id)}/report", kind, lambda: False).content

    def claim(self, job_id: str) -> Job:
        """Take a job for review, so that nobody else does."""
        return Job.from_json(self._post(f"{_of(job_id)}/claim"))

    def give_back(self, job_id: str) -> Job:
        """End a claim."""
        return Job.from_json(self._json("DELETE", f"{_of(job_id)}/claim", repeatable=True))

    def next_to_review(self, after: str = "") -> Job:
        """Claim and return the oldest job that awaits review and no other reviewer has.

        Parameters
        ----------
        after
            Id of the job after which to look; empty: from the start.

        Raises
        ------
        NotFound
            At the end of the queue.
        """
        query = {"after": after} if after else {}
        return Job.from_json(self._post("/review/next", params=query))

    def review(self, job_id: str, decision: Decision, sha256: str, comment: str = "") -> Job:
        """Decide on the very bytes that `sha256` names.

        Raises
        ------
        Conflict
            If the server has other bytes, or another reviewer has the claim.
        """
        body = {"decision": Decision(decision).value, "comment": comment, "sha256": sha256}
        return Job.from_json(self._post(f"{_of(job_id)}/review", json=body))

    def publish(self, job_id: str) -> Publication:
        """Let the server send an approved image to its store.

        Raises
        ------
        Conflict
            If it is not approved.
        """
        answer = self._post(f"{_of(job_id)}/publish")
        return Publication(Job.from_json(answer["job"]), str(answer.get("store_answer", "")))

    def publish_to(self, target: DicomwebTarget, job_id: str) -> Publication:
        """Send an approved image to a store of our own, and tell the server.

        Raises
        ------
        Conflict
            If it is not approved. Nothing is sent.
        DigestMismatch
            If the bytes are not the approved ones. Nothing is sent.
        OptionError
            If they are no DICOM file. Nothing is sent.
        StoreRefused
            If the store does not take it.
        """
        job = self.job(job_id)
        if job.state is not JobState.APPROVED:
            raise Conflict(
                409,
                "conflict",
                "the image is {state}, not approved",
                "approve it first",
                state=job.state.value,
            )
        result = self.result(job_id)
        check_digest(result.content, job.sha256)
        if _suffix(result.content) != ".dcm":
            raise OptionError(
                "the approved file is no DICOM file, and a store takes nothing else",
                "redraw the image with output format dicom",
            )
        answer = target.store(result.content)
        return Publication(
            self.record_publication(job_id, job.sha256, target.url, answer.text), answer.text
        )

    def record_publication(self, job_id: str, sha256: str, store: str, answer: str) -> Job:
        """Tell the server that we sent the approved bytes to a store, and what that said."""
        body = {"sha256": sha256, "store": store, "answer": answer}
        return Job.from_json(self._post(f"{_of(job_id)}/published", json=body))

    def trainings(self) -> Any:
        """Return what is known of all fine-tunings; needs an administrator."""
        return self._get("/training")

    def training(self, training_id: str) -> Any:
        """Return progress and metrics of one fine-tuning."""
        return self._get(f"/training/{_part(training_id)}")

    def training_sample(self, training_id: str, name: str) -> bytes:
        """Return one of its sample pictures."""
        path = f"/training/{_part(training_id)}/samples/{_part(name)}"
        return accepted(self._transport.ask("GET", API + path, repeatable=True)).content

    def stop_training(self, training_id: str) -> Any:
        """End a fine-tuning early; its bundle is kept."""
        return self._post(f"/training/{_part(training_id)}/stop")

    def _get(self, path: str, **request: Any) -> Any:
        return self._json("GET", path, repeatable=True, **request)

    def _post(self, path: str, **request: Any) -> Any:
        return self._json("POST", path, repeatable=False, **request)

    def _json(self, method: str, path: str, *, repeatable: bool, **request: Any) -> Any:
        return self._transport.json(method, API + path, repeatable=repeatable, **request)

    def _fetch(self, path: str, kind: str, cancelled: ShouldStop) -> Answer:
        query = {"kind": kind}
        return accepted(
            self._transport.ask(
                "GET", API + path, repeatable=True, cancelled=cancelled, params=query
            )
        )


def _of(job_id: str) -> str:
    return f"/jobs/{_part(job_id)}"


def _part(name: str) -> str:
    return quote(name, safe="")


def _parts(files: Sequence[Upload]) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Return uploads as parts of a form, under names that say nothing."""
    parts = []
    for number, upload in enumerate(files, 1):
        content = upload if isinstance(upload, bytes) else _content(upload)
        name = f"image-{number}{_suffix(content)}"
        parts.append(("files", (name, content, "application/octet-stream")))
    return parts


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        # What the system says of it names the file.
        raise OptionError(
            "the file of the image cannot be read", "check that it exists and may be read"
        ) from None


def _suffix(content: bytes) -> str:
    for offset, magic, suffix in SUFFIXES:
        if content[offset : offset + len(magic)] == magic:
            return suffix
    return ".bin"


def _pause(seconds: float, cancelled: ShouldStop) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if cancelled():
            raise Cancelled
        time.sleep(0.02)
