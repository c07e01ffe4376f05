"""Heavy bytes: one object store per service, on a folder, in memory, or on S3.

An object appears whole or not at all, and what a name stands for never changes: `put_new` refuses an existing name.
The server's own failures become `UnavailableError`; a missing object is `FileNotFoundError`, an existing one `FileExistsError`.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, S3Store

from rexis.errors import ConfigurationError, UnavailableError

# Lower case only: a folder on macOS and Windows can not tell two names apart that differ in case. No name starts with a dot.
KEY = re.compile(r"[a-z0-9_][a-z0-9._-]*(/[a-z0-9_][a-z0-9._-]*)*")
MAX_KEY_LENGTH = 512

# A part of an S3 multipart upload has at least 5 MiB; this much is held in memory for each stream.
S3_PART_BYTES = 5 << 20
LOCAL_CHUNK_BYTES = 1 << 20

# The server answers in the first case; in the second it is not there.
REQUEST_TIMEOUT = timedelta(seconds=60)
CONNECT_TIMEOUT = timedelta(seconds=5)
RETRY_TIMEOUT = timedelta(seconds=30)


class StoredObject(NamedTuple):
    """One entry of a listing; `size` in bytes."""

    key: str
    size: int
    last_modified: datetime


def checked_key(key: str) -> str:
    """`key`, if it is a relative name in lower case without empty, hidden or parent segments.

    Raises:
        ValueError: it is not; keys are made by this program, so that is the caller's mistake.
    """
    if len(key) > MAX_KEY_LENGTH or not KEY.fullmatch(key):
        raise ValueError(f"an object key has segments of a-z 0-9 . _ - and at most {MAX_KEY_LENGTH} characters, got {key[:80]!r}")
    return key


class ObjectStore:
    """The few operations that Rexis needs, the same on every backend."""

    def __init__(self, store: LocalStore | MemoryStore | S3Store, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder
        self._chunk_bytes = S3_PART_BYTES if isinstance(store, S3Store) else LOCAL_CHUNK_BYTES

    def put_new(self, key: str, data: bytes) -> None:
        """Store `data` under a name that does not exist yet.

        Raises:
            FileExistsError: something is stored under `key`; it stays as it is.
        """
        with _named_errors(key):
            obstore.put(self._store, checked_key(key), data, mode="create")

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store what `chunks` yields without holding it whole; if `chunks` raises, nothing is stored and the exception passes through.

        The name must be a fresh random one: a stream to an existing name would replace the object.
        """
        with _named_errors(key):
            await obstore.put_async(self._store, checked_key(key), chunks, chunk_size=self._chunk_bytes, max_concurrency=1)

    def get(self, key: str) -> bytes:
        """A whole small object."""
        with _named_errors(key):
            return bytes(obstore.get(self._store, checked_key(key)).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer at the end of the object; `start` lies inside it."""
        with _named_errors(key):
            return bytes(obstore.get_range(self._store, checked_key(key), start=start, length=length))

    def open_stream(self, key: str, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The object's bytes in chunks of at least `chunk_bytes` but for the last one."""
        with _named_errors(key):
            for chunk in obstore.get(self._store, checked_key(key)).stream(min_chunk_size=chunk_bytes):
                yield bytes(chunk)

    def delete(self, key: str) -> None:
        """Remove one object; a missing one is no error, so that a clean-up can be repeated."""
        with _named_errors(key):
            try:
                obstore.delete(self._store, checked_key(key))
            except FileNotFoundError:
                return

    def delete_folder(self, prefix: str) -> None:
        """Remove every object below `prefix/`, and on a folder also what an interrupted write left there."""
        for stored in self.list(prefix):
            self.delete(stored.key)
        if self._folder is not None:
            shutil.rmtree(self._folder / checked_key(prefix), ignore_errors=True)

    def list(self, prefix: str | None = None) -> Iterator[StoredObject]:
        """The objects below `prefix/`, or all of them."""
        with _named_errors(prefix or ""):
            for batch in obstore.list(self._store, checked_key(prefix) if prefix else None):
                for found in batch:
                    yield StoredObject(found["path"], found["size"], found["last_modified"])

    def check(self) -> None:
        """Ask the server for its first name, for /readyz.

        Raises:
            UnavailableError: no answer, or no access.
        """
        if self._folder is not None and not self._folder.is_dir():
            raise UnavailableError(f"the object store's folder {self._folder} is gone")
        next(self.list(), None)


@contextmanager
def _named_errors(key: str) -> Iterator[None]:
    try:
        yield
    except AlreadyExistsError as error:
        raise FileExistsError(f"there is already an object {key}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no object {key}") from error
    except BaseError as error:
        # The library's message carries addresses and answers of the server: it goes to the log with the cause, not to the caller.
        raise UnavailableError("the object store does not answer") from error


def open_store(url: str) -> ObjectStore:
    """Open the store behind `file:///folder`, `memory://` or `s3://bucket/prefix`.

    S3 takes its credentials, region and endpoint from the standard `AWS_…` variables.

    Raises:
        ConfigurationError: another scheme, or a missing bucket or folder.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return ObjectStore(MemoryStore())
    if parts.scheme == "file" and not parts.netloc and parts.path:
        folder = Path(unquote(parts.path))
        return ObjectStore(LocalStore(folder, mkdir=True), folder)
    if parts.scheme == "s3" and parts.netloc:
        allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1")
        return ObjectStore(
            S3Store(
                parts.netloc,
                prefix=parts.path.strip("/") or None,
                # Client options set here replace the variable's effect, hence it is read again.
                client_options={"timeout": REQUEST_TIMEOUT, "connect_timeout": CONNECT_TIMEOUT, "allow_http": allow_http},
                retry_config={"max_retries": 4, "retry_timeout": RETRY_TIMEOUT},
            )
        )
    raise ConfigurationError(f"REXIS_OBJECT_STORE_URL must be file:///folder, s3://bucket/prefix or memory://, got {parts.scheme}://…")
