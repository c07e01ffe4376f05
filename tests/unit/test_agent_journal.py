"""The journal: what was written is there after a kill, sealed fields stay sealed, entries stay."""

import json
import multiprocessing
import os
import signal
import sqlite3
import stat
from pathlib import Path

import pytest

from rexis.agent.journal import Journal
from rexis.agent.sealing import Lock, Sealer
from rexis.encoding import from_hex, to_hex
from rexis.errors import ConfigurationError, EncodingError, KeyFileError

PASSPHRASE = "a passphrase for tests"
FAST = 1 << 4
SALTS = bytes(range(48))
RECORD = b"\x11" * 32


def journal_at(folder: Path, passphrase: str | None = PASSPHRASE) -> Journal:
    return Journal.open(folder / "state" / "journal.sqlite", passphrase, work_factor=FAST)


def keep(journal: Journal) -> None:
    with journal.transaction() as connection:
        journal.keep_salts(connection, RECORD, "data", SALTS, 3)
        journal.append(connection, "dataset 0x11", "prepared", rows_committed=True)


def test_salts_come_back_and_are_not_readable_in_the_files(tmp_path: Path) -> None:
    with journal_at(tmp_path) as journal:
        keep(journal)
    with journal_at(tmp_path) as journal:
        assert journal.salts(RECORD) == SALTS
        files = [path.read_bytes() for path in journal.path.parent.iterdir()]
    assert files
    assert not any(SALTS[:16] in content or SALTS[16:32] in content for content in files)


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with journal_at(tmp_path) as journal:
            keep(journal)
            files = list(journal.path.parent.iterdir())
            assert len(files) == 3  # the database, its write-ahead log and the shared memory of the log
            assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    finally:
        os.umask(before)


def test_another_passphrase_does_not_open(tmp_path: Path) -> None:
    with journal_at(tmp_path):
        pass
    with pytest.raises(KeyFileError, match="does not open with this passphrase"):
        journal_at(tmp_path, "another passphrase")


def test_reading_needs_no_passphrase_and_gives_no_salts(tmp_path: Path) -> None:
    with journal_at(tmp_path) as journal:
        keep(journal)
    with journal_at(tmp_path, None) as journal:
        assert [(entry.subject, entry.stage, entry.detail) for entry in journal.entries()] == [
            ("dataset 0x11", "prepared", {"rows_committed": True})
        ]
        with pytest.raises(KeyFileError, match="passphrase is needed"):
            journal.salts(RECORD)


def test_no_journal_is_made_without_a_passphrase(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no journal"):
        journal_at(tmp_path, None)
    assert not (tmp_path / "state").exists()


def test_entries_can_be_neither_changed_nor_removed(tmp_path: Path) -> None:
    with journal_at(tmp_path) as journal:
        keep(journal)
        for statement in ("UPDATE entry SET stage = 'x'", "DELETE FROM entry"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"), journal.transaction() as connection:
                connection.execute(statement)
        assert len(journal.entries()) == 1


def test_a_sealed_field_opens_in_its_own_place_only(tmp_path: Path) -> None:
    with journal_at(tmp_path) as journal:
        keep(journal)
        with journal.transaction() as connection:
            connection.execute("INSERT INTO salts SELECT ?, kind, items, sealed FROM salts", (b"\x22" * 32,))
        with pytest.raises(KeyFileError, match="was changed"):
            journal.salts(b"\x22" * 32)
        with pytest.raises(KeyFileError, match="no salts"):
            journal.salts(b"\x33" * 32)


@pytest.mark.parametrize("position", [0, 12, 20, -1])
def test_a_flipped_bit_in_a_sealed_field_is_noticed(tmp_path: Path, position: int) -> None:
    with journal_at(tmp_path) as journal:
        keep(journal)
        with journal.transaction() as connection:
            sealed = bytearray(connection.execute("SELECT sealed FROM salts").fetchone()[0])
            sealed[position] ^= 1
            connection.execute("UPDATE salts SET sealed = ?", (bytes(sealed),))
        with pytest.raises(KeyFileError, match="was changed"):
            journal.salts(RECORD)


def write_and_fail(journal: Journal) -> None:
    with journal.transaction() as connection:
        journal.append(connection, "x", "prepared")
        journal.append(connection, "x", "signed", half=0.5)  # has no canonical form


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    with journal_at(tmp_path) as journal:
        with pytest.raises(EncodingError):
            write_and_fail(journal)
        assert journal.entries() == []


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    with journal_at(tmp_path) as journal, journal.transaction() as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="got 99"):
        journal_at(tmp_path)


def _write_and_die(folder: Path) -> None:
    journal = journal_at(folder)
    keep(journal)
    with journal.transaction() as connection:
        journal.append(connection, "dataset 0x11", "signed")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_committed_survives_a_kill_and_what_was_not_is_gone(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with journal_at(tmp_path) as journal:
        assert journal.salts(RECORD) == SALTS
        assert [entry.stage for entry in journal.entries()] == ["prepared"]


def test_the_lock_and_a_sealed_field_open_as_the_independent_reference_made_them() -> None:
    vector = json.loads((Path(__file__).parents[1] / "vectors" / "journal.json").read_text())
    lock = Lock(from_hex(vector["lock"]["salt"]), vector["lock"]["workFactor"], from_hex(vector["lock"]["sealedKey"]))
    sealer = Sealer.open(vector["passphrase"], lock)
    assert to_hex(sealer.fingerprint_key) == vector["fingerprintKey"]
    field = vector["field"]
    assert to_hex(sealer.open_field(from_hex(field["sealed"]), field["place"])) == field["plaintext"]
    assert sealer.open_field(sealer.seal(b"again", field["place"]), field["place"]) == b"again"
