"""Names that mean nothing without the key: of instances, of patients, and shifts of their dates.

Everything is HMAC-SHA256 under one secret. A plain hash of an identifier could be enumerated, for
there are few of them; with the key, server, client and batch agree without a shared table.
"""

from __future__ import annotations

import hmac
import re
from datetime import timedelta

from privdiff_infer.errors import SecretError
from privdiff_infer.keys import MIN_LENGTH, find_key, load_key

VARIABLE = "PRIVDIFF_KEY_FILE"
KEY_NAME = "key"

MAX_SHIFT_DAYS = 3650

STANDARD_UID = re.compile(r"1\.2\.840\.10008(\.\d{1,4}){1,9}")
"""UIDs that the standard defines. Some devices append numbers of their own to one, which are
longer: those name an instance."""


class Pseudonyms:
    """What replaces identifiers, under one key.

    Parameters
    ----------
    key
        The secret, at least 32 bytes.

    Attributes
    ----------
    fingerprint
        16 hexadecimal digits that tell keys apart and give none away.

    Raises
    ------
    SecretError
        If the key is too short.

    Examples
    --------
    >>> pseudonyms = Pseudonyms(b"an example, so no secret at all.")
    >>> pseudonyms.uid("1.2.3")
    '2.25.127543018081778291275957724107757978032'
    >>> pseudonyms.uid("1.2.840.10008.1.2")
    '1.2.840.10008.1.2'
    >>> pseudonyms.patient_id("4711", issuer="Hospital")
    'anon-02563b3f8266f2a107d6'
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < MIN_LENGTH:
            raise SecretError(
                f"the key has fewer than {MIN_LENGTH} bytes", "make one with: openssl rand -hex 32"
            )
        self._key = key
        self.fingerprint = self._digest("fingerprint").hex()[:16]

    @classmethod
    def load(cls) -> Pseudonyms:
        """Take the key of the file that ``PRIVDIFF_KEY_FILE`` names, else the user's own.

        Raises
        ------
        SecretError
            As `keys.load_key`.
        """
        return cls(load_key(VARIABLE, KEY_NAME))

    @classmethod
    def find(cls) -> Pseudonyms | None:
        """Take the key as `load` does, but create none; see `keys.find_key`."""
        key = find_key(VARIABLE, KEY_NAME)
        return None if key is None else cls(key)

    def __repr__(self) -> str:
        """Show the fingerprint alone."""
        return f"Pseudonyms(fingerprint={self.fingerprint!r})"

    def uid(self, uid: str) -> str:
        """Return what replaces a UID: ``2.25.`` and a number of 128 bits (PS3.5 B.2).

        UIDs that the standard defines stay, as does an empty value. Padding does not count.
        """
        bare = uid.strip(" \0")
        if not bare or STANDARD_UID.fullmatch(bare):
            return bare
        return self._new_uid("uid", bare)

    def patient_id(self, patient_id: str, issuer: str = "") -> str:
        """Return the pseudonym of a patient, for PatientID and PatientName alike.

        Two issuers may give one ID to two patients, so the issuer counts. An empty ID, which names
        nobody, stays empty. Padding does not count.
        """
        patient = patient_id.strip(" \0")
        if not patient:
            return ""
        digest = self._digest("patient", patient, issuer.strip(" \0"))
        return f"anon-{digest.hex()[:20]}"

    def date_shift(self, patient_id: str, issuer: str = "") -> timedelta:
        """Return how far the dates of a patient move: 1 to 3650 whole days into the past."""
        digest = self._digest("dates", patient_id.strip(" \0"), issuer.strip(" \0"))
        return timedelta(days=-1 - int.from_bytes(digest, "big") % MAX_SHIFT_DAYS)

    def instance_uid(self, source: str, *parts: str) -> str:
        """Return the UID of a new instance; other parts always give another one.

        Parameters
        ----------
        source
            SOP Instance UID of what it was made from, or the hash of its file.
        *parts
            What else its pixels depend on: hash of the bundle, parameters, seed.
        """
        return self._new_uid("instance", source, *parts)

    def image_id(self, source: str) -> str:
        """Return what a server calls an image that its clients must not know by its own name.

        Parameters
        ----------
        source
            Path below the folder of the studies, or UID of the series.
        """
        return f"img-{self._digest('image', source).hex()[:24]}"

    def _new_uid(self, purpose: str, *parts: str) -> str:
        return f"2.25.{int.from_bytes(self._digest(purpose, *parts)[:16], 'big')}"

    def _digest(self, purpose: str, *parts: str) -> bytes:
        """Return the HMAC of the parts; lengths are included, so that they cannot run together."""
        encoded = [part.encode(errors="surrogateescape") for part in (purpose, *parts)]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
        return hmac.digest(self._key, message, "sha256")
