"""Keys in files, and the names that are made under them."""

from __future__ import annotations

import os
import pickle
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID, UID_dictionary

from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import SecretError
from privdiff_infer.keys import load_key

KEY = b"a key for tests, which is no secret"
PSEUDONYMS = Pseudonyms(KEY)
OTHER = Pseudonyms(b"another key for tests, which is none")

uids = st.lists(st.integers(0, 10**12), min_size=3, max_size=6).map(
    lambda parts: "1.3." + ".".join(map(str, parts))
)


@pytest.fixture
def configuration(tmp_path, monkeypatch):
    """The user's configuration folder, without a key."""
    monkeypatch.delenv("PRIVDIFF_KEY_FILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "privdiff"


@given(st.sets(uids, min_size=2, max_size=20))
def test_uids_map_consistently_to_new_valid_ones(originals):
    mapped = [PSEUDONYMS.uid(uid) for uid in originals]

    assert mapped == [PSEUDONYMS.uid(f"{uid}\0") for uid in originals]
    assert len(set(mapped)) == len(originals)
    assert not set(mapped) & originals
    assert all(UID(uid).is_valid and len(uid) <= 64 for uid in mapped)
    assert not set(mapped) & {OTHER.uid(uid) for uid in originals}


def test_uids_of_the_standard_stay():
    assert [uid for uid in UID_dictionary if PSEUDONYMS.uid(uid) != uid] == []


def test_uids_that_devices_append_to_those_of_the_standard_do_not_stay():
    uid = "1.2.840.10008.5.1.4.1.1.1.20240131.123456"
    assert PSEUDONYMS.uid(uid).startswith("2.25.")


def test_a_pseudonym_is_that_of_patient_and_issuer():
    one = PSEUDONYMS.patient_id("4711", "A")
    assert one == PSEUDONYMS.patient_id(" 4711 ", "A") and re.fullmatch("anon-[0-9a-f]{20}", one)
    assert len({one, PSEUDONYMS.patient_id("4711", "B"), PSEUDONYMS.patient_id("4711A")}) == 3
    assert PSEUDONYMS.patient_id("") == ""


@given(st.text(max_size=10), st.text(max_size=10))
def test_dates_move_by_whole_days_into_the_past(patient, issuer):
    shift = PSEUDONYMS.date_shift(patient, issuer)
    assert shift == timedelta(days=shift.days) and -3650 <= shift.days <= -1


def test_other_parts_give_another_instance():
    made = {PSEUDONYMS.instance_uid("1.2", *parts) for parts in (("a", "b"), ("ab",), ("a",), ())}
    assert len(made) == 4
    assert PSEUDONYMS.instance_uid("1.2") != PSEUDONYMS.uid("1.2")


def test_key_is_not_shown():
    shown = repr(PSEUDONYMS) + str(PSEUDONYMS) + PSEUDONYMS.fingerprint
    assert KEY.decode() not in shown and KEY.hex()[:16] not in shown
    assert re.fullmatch("[0-9a-f]{16}", PSEUDONYMS.fingerprint)
    assert pickle.loads(pickle.dumps(PSEUDONYMS)).uid("1.2.3") == PSEUDONYMS.uid("1.2.3")


def test_short_keys_are_refused():
    with pytest.raises(SecretError, match="fewer than 32"):
        Pseudonyms(b"short")


def test_key_is_made_on_first_use_for_its_owner_alone(configuration):
    key = load_key("PRIVDIFF_KEY_FILE", "key")

    assert len(key) == 64 and load_key("PRIVDIFF_KEY_FILE", "key") == key
    assert stat.S_IMODE((configuration / "key").stat().st_mode) == 0o600
    assert [path.name for path in configuration.iterdir()] == ["key"]
    assert load_key("PRIVDIFF_AUDIT_KEY_FILE_OF_NOBODY", "audit-key") != key


def test_processes_that_start_together_get_one_key(configuration):
    code = "from privdiff_infer.keys import load_key; print(load_key('UNSET', 'key').hex())"

    def ask(_):
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, text=True
        ).stdout

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"x" * 31 + b"\n", 0o600, "does not hold 32"),
        (b"x" * 5000, 0o600, "does not hold 32"),
        (b"x" * 64, 0o640, "open to other users"),
        (b"x" * 64, 0o604, "open to other users"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_unfit_key_files_are_refused(tmp_path, monkeypatch, content, mode, reason):
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
        os.chmod(file, mode)
    monkeypatch.setenv("PRIVDIFF_KEY_FILE", str(file))

    with pytest.raises(SecretError, match=reason) as caught:
        Pseudonyms.load()

    assert "xxxx" not in str(caught.value)
    assert file.exists() == (content is not None)  # a name may be a slip
