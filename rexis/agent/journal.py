"""The agent's journal (wire formats, section 7): one SQLite file that knows what was sent, and what must not be lost.

WAL with synchronous FULL: a row is on disk when the call that wrote it returns, which is *before* what it describes is sent.
`entry` is append-only: triggers refuse to change or delete a row, so an operator sees what happened, not what was left of it.
Salts are sealed (see `sealing`); everything else is public or about to be, so the journal can be read without the passphrase.
The file is readable by its owner only.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from rexis.agent.journal_schema import SCRIPTS
from rexis.agent.sealing import WORK_FACTOR, Lock, Sealer
from rexis.encoding import canonical_json, to_hex
from rexis.errors import ConfigurationError, KeyFileError

VERSION = len(SCRIPTS)
BUSY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Entry:
    """One line of the journal: when, about what, which stage it reached, and public details."""

    id: int
    at: str
    subject: str
    stage: str
    detail: dict[str, Any]


class Journal:
    """An open journal. One per process; several processes may share the file."""

    def __init__(self, path: Path, connection: sqlite3.Connection, sealer: Sealer | None) -> None:
        self.path = path
        self._connection = connection
        self._sealer = sealer

    @classmethod
    def open(cls, path: Path, passphrase: str | None, *, work_factor: int = WORK_FACTOR) -> Self:
        """Open the journal, or create it if there is a passphrase to lock it with.

        Args:
            path: the SQLite file.
            passphrase: opens the sealed fields; None reads what is not sealed.
            work_factor: scrypt's N for a new journal.

        Raises:
            ConfigurationError: no journal and no passphrase, or a file of another version.
            KeyFileError: another passphrase.
        """
        existed = path.exists()
        if not existed:
            if passphrase is None:
                raise ConfigurationError(f"there is no journal at {path} yet; the first `rexis dataset register` creates it")
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Created with its mode before SQLite opens it: SQLite gives the WAL beside it the same one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            # Deleted secrets are overwritten, not only forgotten.
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                connection.execute(f"PRAGMA {pragma}")
            return cls(path, connection, _unlock(path, connection, passphrase, work_factor))
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def sealer(self) -> Sealer:
        """Seals and opens fields.

        Raises:
            KeyFileError: the journal was opened without its passphrase.
        """
        if self._sealer is None:
            raise KeyFileError("the journal was opened for reading only; its passphrase is needed for this")
        return self._sealer

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One unit of work that is on disk when the block ends, or not at all. Other processes wait."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """The rows of one query, outside of any transaction."""
        return self._connection.execute(query, values).fetchall()

    def append(self, connection: sqlite3.Connection, subject: str, stage: str, **detail: Any) -> None:
        """Append an entry inside a transaction. `detail` is public: no salts, keys, rows or counts."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        connection.execute(
            "INSERT INTO entry (at, subject, stage, detail) VALUES (?, ?, ?, ?)", (at, subject, stage, canonical_json(detail).decode())
        )

    def entries(self, *, subject: str | None = None, limit: int = 100) -> list[Entry]:
        """The newest entries, oldest first."""
        rows = self._connection.execute(
            "SELECT * FROM entry WHERE ?1 IS NULL OR subject = ?1 ORDER BY id DESC LIMIT ?2", (subject, limit)
        ).fetchall()
        return [Entry(row["id"], row["at"], row["subject"], row["stage"], json.loads(row["detail"])) for row in reversed(rows)]

    def keep_salts(self, connection: sqlite3.Connection, record: bytes, kind: str, salts: bytes, items: int) -> None:
        """Seal the salts of a tree under its record, inside a transaction."""
        sealed = self.sealer.seal(salts, _salts_place(record))
        connection.execute("INSERT INTO salts (record, kind, items, sealed) VALUES (?, ?, ?, ?)", (record, kind, items, sealed))

    def salts(self, record: bytes) -> bytes:
        """The salts of a tree, one after the other.

        Raises:
            KeyFileError: there are none for this record (they were destroyed, or made elsewhere), or they were changed.
        """
        row = self._connection.execute("SELECT sealed FROM salts WHERE record = ?", (record,)).fetchone()
        if row is None:
            raise KeyFileError(f"the journal has no salts for {to_hex(record)}")
        return self.sealer.open_field(row["sealed"], _salts_place(record))


def _unlock(path: Path, connection: sqlite3.Connection, passphrase: str | None, work_factor: int) -> Sealer | None:
    """Create the tables of a new journal, and open the lock if there is a passphrase."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and passphrase is None:
            raise ConfigurationError(f"the journal {path} is empty; run the command that creates it again")
        if version > VERSION:
            raise ConfigurationError(
                f"{path}: expected a journal of version {VERSION} or earlier, got {version}; install the matching rexis"
            )
        for script in SCRIPTS[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        if version == 0 and passphrase is not None:
            sealer, lock = Sealer.create(passphrase, work_factor=work_factor)
            connection.execute("INSERT INTO lock VALUES (1, ?, ?, ?)", (lock.salt, lock.work_factor, lock.sealed_key))
            connection.execute("COMMIT")
            return sealer
        row = connection.execute("SELECT * FROM lock").fetchone()
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return Sealer.open(passphrase, Lock(row["salt"], row["work_factor"], row["sealed_key"])) if passphrase is not None else None


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _salts_place(record: bytes) -> str:
    return f"salts.sealed:{to_hex(record)}"
