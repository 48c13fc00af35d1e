"""The ledger: one version a source, whoever asks, however many at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import OutputError
from privdiff_infer.published_ledger import PublishedLedger

PSEUDONYMS = Pseudonyms(b"an example, so no secret at all.")
CLAIM = (
    "import sys; from pathlib import Path\n"
    "from privdiff_infer.dicom.pseudonyms import Pseudonyms\n"
    "from privdiff_infer.published_ledger import PublishedLedger\n"
    "key = Pseudonyms(b'an example, so no secret at all.')\n"
    "ledger = PublishedLedger(Path(sys.argv[1]), key)\n"
    "print(sum(ledger.claim(str(n), sys.argv[2]) for n in range(50)))"
)


@pytest.fixture
def ledger(tmp_path: Path) -> PublishedLedger:
    return PublishedLedger(tmp_path / "folder" / "published", PSEUDONYMS)


def test_one_version_may_be_claimed_again_and_no_other(ledger: PublishedLedger) -> None:
    assert ledger.claim("1.2.3", "2.25.1")
    assert ledger.claim("1.2.3", "2.25.1")
    assert not ledger.claim("1.2.3", "2.25.2")
    assert ledger.claim("1.2.4", "2.25.2")


def test_what_was_refused_makes_room(ledger: PublishedLedger) -> None:
    ledger.claim("1.2.3", "2.25.1")
    ledger.give_up("1.2.3", "2.25.1")

    assert ledger.claim("1.2.3", "2.25.2")


def test_what_is_in_a_store_stays(ledger: PublishedLedger) -> None:
    ledger.claim("1.2.3", "2.25.1")
    ledger.confirm("1.2.3", "2.25.1")
    ledger.give_up("1.2.3", "2.25.1")

    assert not ledger.claim("1.2.3", "2.25.2")


def test_another_key_knows_nothing(ledger: PublishedLedger, tmp_path: Path) -> None:
    ledger.claim("1.2.3", "2.25.1")
    other = PublishedLedger(
        tmp_path / "folder" / "published", Pseudonyms(b"another one, which is no secret.")
    )

    assert other.claim("1.2.3", "2.25.2")


def test_it_is_for_its_owner_alone_and_names_nobody(
    ledger: PublishedLedger, tmp_path: Path
) -> None:
    ledger.claim("1.2.826.4711", "2.25.1")
    file = tmp_path / "folder" / "published"

    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert b"4711" not in file.read_bytes()


def test_of_processes_that_race_one_wins_each_source(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM, str(tmp_path / "published")]
    racing = [subprocess.Popen([*command, uid], stdout=subprocess.PIPE) for uid in ("2.1", "2.2")]

    won = [int(process.communicate(timeout=100)[0]) for process in racing]

    assert sum(won) == 50


def test_something_else_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"PNG" * 1000)

    with pytest.raises(OutputError, match=r"the ledger of what was published, .*, cannot be used"):
        PublishedLedger(tmp_path / "picture.png", PSEUDONYMS)
