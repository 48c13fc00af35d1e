"""A certificate authority for tests, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

NEW_KEY = ("-newkey", "rsa:2048", "-nodes")


class Authority:
    """Makes certificates of 127.0.0.1 in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self.certificate, self._key = folder, folder / f"{name}.pem", folder / name
        made = ["-keyout", self._key, "-out", self.certificate]
        self._openssl("req", "-x509", *NEW_KEY, "-subj", f"/CN={name}", "-days", "2", *made)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return (certificate, key) files."""
        files = [self._folder / f"{name}.{kind}" for kind in ("pem", "key", "csr", "ext")]
        certificate, key, request, extension = files
        extension.write_text("subjectAltName=IP:127.0.0.1")
        made = ["-keyout", key, "-out", request]
        self._openssl("req", *NEW_KEY, "-subj", f"/CN={name}", *made)
        signer = ["-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"]
        made = ["-extfile", extension, "-out", certificate]
        self._openssl("x509", "-req", "-in", request, *signer, "-days", "2", *made)
        return certificate, key

    @staticmethod
    def _openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
