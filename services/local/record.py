"""Which platform runs on a data folder: the lock that only one can hold, and `platform.json` for those who look for it."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, Self

from rexis.errors import ConfigurationError

RECORD = "platform.json"
LOCK = "platform.lock"


class FolderLock:
    """An exclusive lock on a data folder; the kernel releases it when this process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            ConfigurationError: another platform holds the folder, or it can not be made or written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{folder} can not be used: {error.strerror}; choose another folder with --data-dir") from error
        if not self._acquire():
            pid = os.pread(self._file, 20, 0).decode()
            os.close(self._file)
            raise ConfigurationError(
                f"a platform (pid {pid}) runs on {folder} already: stop it with `make down`, or choose another folder with --data-dir"
            )
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def _acquire(self) -> bool:
        for _ in range(10):  # `holder` looks by holding the lock for a moment
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
            else:
                return True
        return False

    def release(self) -> None:
        """Let another platform have the folder."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(folder: Path) -> int | None:
    """Pid of the process that runs a platform on `folder`; None if none does."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(file, 20, 0) or b"0") or None
    finally:
        os.close(file)
    return None


def write(folder: Path, record: dict[str, Any]) -> None:
    """Replace the record; a reader sees the old one or the new one."""
    draft = folder / f"{RECORD}.draft"
    draft.write_text(json.dumps(record, indent=2) + "\n")
    draft.replace(folder / RECORD)


def read(folder: Path) -> dict[str, Any] | None:
    """The record of the platform that runs on `folder`, None if none does or it has just begun."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
    except FileNotFoundError:
        return None
    return record if record["pid"] == holder(folder) else None


def remove(folder: Path) -> None:
    """Forget the record."""
    (folder / RECORD).unlink(missing_ok=True)
