"""A server with everything that hostile requests want, and what became of many of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.hostile import (
    CANARY,
    RAW,
    Answer,
    Attack,
    Attacker,
    attacks,
    forged,
    plant_canaries,
)
from tests.integration.oidc_provider import AUDIENCE, OidcProvider, forgeries
from tests.integration.server import RunningServer, running_server
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp

WARM_UP_SECONDS = 600
"""For the first image, whose worker imports and loads a model on a busy machine."""

PATIENT = "Planted-Jane"
"""Part of the name of a patient, in headers and in names of files."""


@dataclass
class Target:
    """A server, its provider, and who attacks it with the token of an administrator."""

    server: RunningServer
    provider: OidcProvider
    attacker: Attacker
    secrets: list[Path]
    image: bytes


@dataclass
class Tally:
    """What came back.

    Attributes
    ----------
    sent
        Requests by kind.
    statuses
        Answers by status.
    wrong
        Requests that were answered by anything but a 4xx; bytes that are no HTTP may also find the
        connection closed.
    leaks
        Requests whose answer had text of a file that is nobody's.
    seconds
        For all of them.
    """

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, kind: str, request: str, answer: Answer) -> None:
        """Count an answer."""
        self.sent[kind] += 1
        self.statuses[answer.status] += 1
        if not (400 <= answer.status < 500 or (kind == "raw" and answer.status == 0)):
            self.wrong.append(f"{answer.status} {request}: {answer.body[:120]!r}")
        if CANARY.encode() in answer.body or b"root:" in answer.body:
            self.leaks.append(request)


@contextmanager
def open_target(folder: Path, bundle: Path) -> Iterator[Target]:
    """Start a provider and a server that believes it; uploads end at 1 MB."""
    studies, provided = folder / "studies", folder / "provider"
    studies.mkdir()
    provided.mkdir()
    image = dicom_bytes(radiograph_dataset(ramp(), PatientName=f"Doe^{PATIENT}"))
    (studies / f"{PATIENT}.dcm").write_bytes(image)
    provider = OidcProvider(provided)
    try:
        options = ["--auth", "oidc", "--oidc-issuer", provider.issuer, "--max-upload-mb", "1"]
        token = provider.token(roles=["privdiff-admin"], exp=int(time.time()) + 3600)
        with running_server(
            folder, studies, *options, "--oidc-audience", AUDIENCE, bundle=bundle, token=token
        ) as server:
            _wait_for_workers(server, image)
            attacker = Attacker(server.port, token)
            yield Target(server, provider, attacker, plant_canaries(folder), image)
            attacker.close()
    finally:
        provider.stop()


def _wait_for_workers(server: RunningServer, image: bytes) -> None:
    """Have one whole image done, whatever its verdict: a broken one waits for the same worker."""
    answer = server.post(
        "/infer/privdiff?output=json", files={"file": ("a.dcm", image)}, timeout=WARM_UP_SECONDS
    )
    assert answer.status_code < 500, answer.text


def besiege(target: Target, seed: int, count: int) -> Tally:
    """Send `count` requests from a seed, and all raw ones and forged tokens besides."""
    tally, began = Tally(), time.monotonic()
    all_attacks: list[Iterable[Attack]] = [
        attacks(seed, count, [target.image], target.secrets),
        forged(forgeries(target.provider)),
    ]
    for some in all_attacks:
        for attack in some:
            tally.add(attack.kind.partition(" ")[0], str(attack), target.attacker.send(attack))
    for raw in RAW:
        tally.add("raw", repr(raw[:60]), target.attacker.send_raw(raw))
    tally.seconds = time.monotonic() - began
    return tally
