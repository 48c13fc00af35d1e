"""What workers elsewhere must have in common with the run that they work for."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from privdiff_infer import __version__
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import BundleError, ClusterError, SecretError
from privdiff_infer.model.bundle import BundleInfo, verify_bundle
from privdiff_infer.release import PARTIAL, OutputFolders


@dataclass(frozen=True)
class RemoteWorkers:
    """Workers of a scheduler elsewhere, and what is asked of each before it works.

    Attributes
    ----------
    scheduler
        Its address, such as ``tls://host:8786``.
    probe
        What each worker checks.
    """

    scheduler: str
    probe: OutProbe


@dataclass(frozen=True)
class OutProbe:
    """Checked in every worker: it sees the same folder, bundle and key, and runs this version.

    Attributes
    ----------
    out
        Folder of the run, absolute.
    run_sha256
        Of its ``private/run.json``, whose seed no other run has.
    bundle
        Folder of the bundle, absolute; None if the run needs none.
    bundle_sha256
        Of its metadata, which names the hashes of its files.
    key_fingerprint
        Of the pseudonym key; None if the run needs none.
    version
        Of this package.
    """

    out: Path
    run_sha256: str
    bundle: Path | None
    bundle_sha256: str
    key_fingerprint: str | None
    version: str

    @classmethod
    def of(
        cls, folders: OutputFolders, key_fingerprint: str | None, bundle: BundleInfo | None = None
    ) -> OutProbe:
        """Return what workers must see of a run that was begun."""
        return cls(
            out=folders.root.absolute(),
            run_sha256=_sha256(folders.run),
            bundle=bundle.path.absolute() if bundle else None,
            bundle_sha256=bundle.sha256 if bundle else "",
            key_fingerprint=key_fingerprint,
            version=__version__,
        )

    def check(self) -> None:
        """Compare with what this process sees.

        Raises
        ------
        ClusterError
            If something differs; the message says what.
        """
        if self.version != __version__:
            raise ClusterError(
                f"a worker runs privdiff {__version__}, and this is {self.version}",
                "install the same version everywhere",
            )
        self._check_folder()
        self._check_bundle()
        self._check_key()

    def _check_folder(self) -> None:
        folders = OutputFolders(self.out)
        try:
            same = _sha256(folders.run) == self.run_sha256
            with tempfile.TemporaryFile(dir=folders.images, prefix=PARTIAL):
                pass  # it may be written
        except OSError:
            same = False
        if not same:
            raise ClusterError(
                f"a worker cannot read and write the same {self.out}",
                "name a folder on storage that all machines share, under one path and one user",
            )

    def _check_bundle(self) -> None:
        if self.bundle is None:
            return
        try:
            same = verify_bundle(self.bundle).sha256 == self.bundle_sha256
        except (BundleError, OSError):
            same = False
        if not same:
            raise ClusterError(
                f"a worker has no bundle {self.bundle}, or another one",
                "install the same bundle everywhere, or name one on shared storage with --model",
            )

    def _check_key(self) -> None:
        if self.key_fingerprint is None:
            return
        try:
            pseudonyms = Pseudonyms.find()
        except SecretError:
            pseudonyms = None
        if pseudonyms is None or pseudonyms.fingerprint != self.key_fingerprint:
            raise ClusterError(
                f"a worker has another pseudonym key than {self.key_fingerprint}, or none",
                "name the key of the run with PRIVDIFF_KEY_FILE where workers are started",
            )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
