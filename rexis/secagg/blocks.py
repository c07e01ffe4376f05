"""Long vectors, one cache-sized block at a time: masking, digests and chunks of bytes, in one buffer of d entries."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from rexis.encoding import domain_tag
from rexis.protocol.uploads import PART_SIZE, UploadManifest
from rexis.secagg.masks import BLOCK_BYTES, MaskStream, RingVector, Sign, check_ring


def blocks(vector: RingVector) -> Iterator[RingVector]:
    """Slices of a vector [d] that stay in the cache while all masks are added to one."""
    entries = BLOCK_BYTES // vector.dtype.itemsize
    for start in range(0, len(vector), entries):
        yield vector[start : start + entries]


def masked_blocks(vector: RingVector, seeds: Sequence[tuple[bytes, Sign]]) -> Iterator[RingVector]:
    """Add or subtract the keystreams of all seeds, in place, yielding each block when it is done."""
    check_ring(vector)
    streams, buffer = [MaskStream(seed, sign) for seed, sign in seeds], bytearray(BLOCK_BYTES)
    for block in blocks(vector):
        for stream in streams:
            stream.apply(block, buffer)
        yield block


def apply_masks(vector: RingVector, seeds: Sequence[tuple[bytes, Sign]]) -> None:
    """Add or subtract the keystreams of all seeds, in place."""
    for _ in masked_blocks(vector, seeds):
        pass


def vector_digest(vector: RingVector) -> bytes:
    """SHA-256 over tag, entry size and little-endian entries of a vector (32 bytes)."""
    digest = hashlib.sha256(domain_tag("secagg/vector", 1) + b"\0" + bytes([vector.dtype.itemsize]))
    for block in blocks(vector):
        digest.update(block.data.cast("B"))
    return digest.digest()


class UploadDigest:
    """The manifest of an upload, from its bytes in order."""

    def __init__(self) -> None:
        self._size = 0
        self._parts: list[bytes] = []
        self._part = hashlib.sha256()

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes, of any number."""
        rest = memoryview(data)
        while rest.nbytes:
            room = PART_SIZE - self._size % PART_SIZE
            head, rest = rest[:room], rest[room:]
            self._part.update(head)
            self._size += head.nbytes
            if head.nbytes == room:
                self._parts.append(self._part.digest())
                self._part = hashlib.sha256()

    def manifest(self) -> UploadManifest:
        """Of all bytes so far.

        Raises:
            ValueError: there were none.
        """
        last = [self._part.digest()] if self._size % PART_SIZE else []
        return UploadManifest(self._size, tuple(self._parts + last))


def whole_entries(chunks: Iterable[bytes | memoryview], entry: int) -> Iterator[memoryview]:
    """The same bytes in chunks that end on an entry of that many bytes; what is left over at the end comes last."""
    carried = b""
    for chunk in chunks:
        rest = memoryview(chunk).cast("B")
        if carried:
            needed = entry - len(carried)
            carried += bytes(rest[:needed])
            rest = rest[needed:]
            if len(carried) < entry:
                continue
            yield memoryview(carried)
            carried = b""
        whole = len(rest) - len(rest) % entry
        carried = bytes(rest[whole:])
        if whole:
            yield rest[:whole]
    if carried:
        yield memoryview(carried)
