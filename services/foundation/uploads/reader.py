"""A finished upload as one readable file over its parts."""

import hashlib
import io
import os
from dataclasses import dataclass
from typing import Any

from rexis.errors import DigestMismatchError
from rexis.protocol.uploads import PART_SIZE
from services.foundation.objects import ObjectStore


@dataclass(frozen=True)
class StoredPart:
    """Where one part lies, its size in bytes and its SHA-256."""

    object_key: str
    size: int
    digest: bytes


@dataclass(frozen=True)
class StoredUpload:
    """A finished upload.

    Attributes:
        id: the upload's id.
        owner: checksum address.
        total_bytes: size of the content.
        digest: the manifest's digest (`rexis.protocol.uploads.UploadManifest`).
        parts: in order, `PART_SIZE` bytes each but the last.
    """

    id: str
    owner: str
    total_bytes: int
    digest: bytes
    parts: tuple[StoredPart, ...]

    def open(self, objects: ObjectStore) -> io.BufferedReader:
        """The content as a seekable binary file. One part is held in memory, checked against its digest when it is loaded.

        Raises while reading:
            DigestMismatchError: the store holds other bytes than those that were uploaded.
            UnavailableError: the store does not answer.
        """
        return io.BufferedReader(_PartsReader(self, objects))


class _PartsReader(io.RawIOBase):
    def __init__(self, upload: StoredUpload, objects: ObjectStore) -> None:
        self._upload, self._objects = upload, objects
        self._position = 0
        self._loaded_index, self._loaded = -1, memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._upload.total_bytes}[whence]
        if origin + offset < 0:
            raise ValueError(f"can not seek to {origin + offset}")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        if self._position >= self._upload.total_bytes:
            return 0
        index, offset = divmod(self._position, PART_SIZE)
        found = self._part(index)[offset : offset + len(target)]
        target[: len(found)] = found
        self._position += len(found)
        return len(found)

    def _part(self, index: int) -> memoryview:
        if index != self._loaded_index:
            part = self._upload.parts[index]
            data = self._objects.get(part.object_key)
            digest = hashlib.sha256(data).digest()
            if digest != part.digest:
                raise DigestMismatchError(f"part {index + 1} of upload {self._upload.id}", part.digest, digest)
            self._loaded_index, self._loaded = index, memoryview(data)
        return self._loaded
