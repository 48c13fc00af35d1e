"""Where randomness comes from: one seed per run, one per image derived from it."""

from __future__ import annotations

import hashlib
import re
import secrets

RUN_SEED_BYTES = 32

RELEASE_NAME = re.compile(r"cxr-[0-9a-f]{16}")
"""What `release_name` returns."""


def run_seed(seed: int | None) -> str:
    """Return the seed of a run as text: the user's number, or 256 bits of the operating system.

    Who knows the seed and the bundle can redraw a suspected original and compare; the seed is
    written to private/ only.

    Examples
    --------
    >>> run_seed(7)
    '7'
    >>> len(run_seed(None))
    64
    """
    return str(seed) if seed is not None else secrets.token_hex(RUN_SEED_BYTES)


def image_seed(seed: str, source_digest: str) -> int:
    """Return the seed of one image: SHA-256 over the run's seed and the source's bytes.

    Parameters
    ----------
    seed
        Of the run.
    source_digest
        SHA-256 of the source's bytes, which stands for them.

    Examples
    --------
    >>> image_seed("1", "ab") == image_seed("1", "ab") != image_seed("2", "ab")
    True
    """
    digest = hashlib.sha256(f"{seed}:{source_digest}".encode()).digest()
    return int.from_bytes(digest, "big")


def release_name(seed: int) -> str:
    """Return the name under which an image leaves; it tells nothing without the image's seed.

    Examples
    --------
    >>> release_name(5)
    'cxr-e2f21db99199aafb'
    """
    return f"cxr-{hashlib.sha256(f'name:{seed}'.encode()).hexdigest()[:16]}"
