"""Encrypted batch, model, gradient and output files (wire formats, section 4).

They are safetensors whose header is checked, alone and against a spec, before a byte of data is used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rexis.commitments.digests import DTYPES, Buffer, TensorDigest, canonical_elements, little_endian_chunks, tensor_bytes, wire_array
from rexis.commitments.tensor_records import tensor_tree
from rexis.encoding import from_hex, parse_json, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.protocol.file_spec import MAX_DIMENSIONS, RECORD_KINDS, FileSpec, check_name

MAX_HEADER_BYTES = 1 << 20
FORMAT = "1"
READ_BYTES = 1 << 20
_METADATA = {"rexis.format", "rexis.kind", "rexis.spec"}
# safetensors writes dtypes in capitals.
_WIRE_NAMES = {name.upper(): name for name in DTYPES}


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a file; `begin` and `end` are byte offsets from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class FileHeader:
    """Checked header of a tensor file.

    Attributes:
        kind: batch, model, gradient or output.
        spec_digest: what the file says its spec is, 32 bytes.
        tensors: in order of offset, without hole or overlap, up to the end of the file.
        data_start: bytes before the first tensor.
        total_bytes: size of the file.
    """

    kind: str
    spec_digest: bytes
    tensors: tuple[TensorEntry, ...]
    data_start: int
    total_bytes: int


@dataclass(frozen=True)
class FileRecord:
    """What was learnt from a whole file.

    Attributes:
        header: its header.
        lengths: the values of `n` and `s`, where its spec has them.
        digests: tensor digest by name, 32 bytes each.
        record: root record over the spec's digest and the tensors, 32 bytes.
    """

    header: FileHeader
    lengths: Mapping[str, int]
    digests: Mapping[str, bytes]
    record: bytes


def header_length(prefix: bytes, total_bytes: int) -> int:
    """Length of the header in bytes, from the first eight bytes of a file.

    Raises:
        MalformedMessageError: longer than `MAX_HEADER_BYTES`, or than the file.
    """
    length = int.from_bytes(prefix[:8], "little")
    if length > MAX_HEADER_BYTES or len(prefix) < 8 or length > total_bytes - 8:
        raise MalformedMessageError(
            f"safetensors: expected a header of at most {MAX_HEADER_BYTES} bytes inside a file of {total_bytes}, got {length}"
        )
    return length


def parse_header(header: bytes, total_bytes: int) -> FileHeader:
    """Check a header by itself: one meaning, known dtypes, offsets that tile the data exactly.

    Args:
        header: the bytes after the eight of the length.
        total_bytes: size of the whole file.

    Raises:
        MalformedMessageError: anything else; nothing has been allocated from the numbers it claims.
    """
    text = header.rstrip(b" ")
    try:
        document = parse_json(text, max_bytes=MAX_HEADER_BYTES)
    except EncodingError as error:
        raise MalformedMessageError(f"safetensors header: {error}") from error
    if not isinstance(document, dict) or not (text.startswith(b"{") and text.endswith(b"}")):
        raise MalformedMessageError("safetensors header: expected a JSON object from the first byte, with nothing but spaces after it")
    metadata = document.pop("__metadata__", None)
    if not isinstance(metadata, dict) or set(metadata) != _METADATA or metadata["rexis.format"] != FORMAT:
        raise MalformedMessageError(f"safetensors header: expected metadata with exactly {', '.join(sorted(_METADATA))}, format {FORMAT}")
    kind = metadata["rexis.kind"]
    if not isinstance(kind, str) or kind not in RECORD_KINDS:
        raise MalformedMessageError(f"safetensors header: expected a kind among {', '.join(RECORD_KINDS)}, got {str(kind)[:40]!r}")
    data_start = 8 + len(header)
    try:
        spec_digest = from_hex(metadata["rexis.spec"], 32)
        tensors = sorted((_parse_entry(name, entry) for name, entry in document.items()), key=lambda entry: (entry.begin, entry.end))
    except (EncodingError, ValueError) as error:
        raise MalformedMessageError(f"safetensors header: {error}") from error
    position = 0
    for entry in tensors:
        if entry.begin != position:
            raise MalformedMessageError(
                f"safetensors header: {entry.name}: expected data from {position}, got {entry.begin} (hole or overlap)"
            )
        position = entry.end
    if data_start + position != total_bytes:
        raise MalformedMessageError(f"safetensors: expected a file of {data_start + position} bytes by its header, got {total_bytes}")
    return FileHeader(kind, spec_digest, tuple(tensors), data_start, total_bytes)


def check_header(header: FileHeader, spec: FileSpec) -> dict[str, int]:
    """Check a header against the spec that was agreed; returns the lengths `n` and `s` that the file chose.

    Raises:
        MalformedMessageError: another kind, spec, name, dtype or shape; a batch of no items.
    """
    if (header.kind, header.spec_digest) != (spec.kind, spec.digest):
        raise MalformedMessageError(
            f"expected a {spec.kind} file of spec {to_hex(spec.digest)}, got a {header.kind} file of spec {to_hex(header.spec_digest)}"
        )
    found = {entry.name: entry for entry in header.tensors}
    expected = {tensor.name for tensor in spec.tensors}
    if set(found) != expected:
        raise MalformedMessageError(f"expected exactly the tensors of the spec, differing: {sorted(set(found) ^ expected)[:8]}")
    lengths: dict[str, int] = {}
    for tensor in spec.tensors:
        entry = found[tensor.name]
        if entry.dtype != tensor.dtype or len(entry.shape) != len(tensor.shape):
            raise MalformedMessageError(
                f"{tensor.name}: expected {tensor.dtype} {list(tensor.shape)}, got {entry.dtype} {list(entry.shape)}"
            )
        for length, wanted in zip(entry.shape, tensor.shape, strict=True):
            expected_length = lengths.setdefault(wanted, length) if isinstance(wanted, str) else wanted
            if length != expected_length or length == 0:
                raise MalformedMessageError(
                    f"{tensor.name}: expected the shape {list(tensor.shape)} with n, s > 0, got {list(entry.shape)}"
                )
    return lengths


@dataclass
class TensorFileDigest:
    """Checks and digests a file as it streams by; keeps at most the header in memory.

    Raises (`update`, `finish`):
        MalformedMessageError: the header is wrong (raised before any byte of data is used), or the size.
        EncodingError: a tensor has no canonical form (NaN, infinity).
    """

    spec: FileSpec
    total_bytes: int
    _head: bytearray = field(default_factory=bytearray, init=False, repr=False)
    _header: FileHeader | None = field(default=None, init=False)
    _lengths: dict[str, int] = field(default_factory=dict, init=False)
    _digests: dict[str, TensorDigest] = field(default_factory=dict, init=False, repr=False)
    _current: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)

    def update(self, data: Buffer) -> None:
        """Take the next bytes of the file, in pieces of any length."""
        view = memoryview(data)
        self._seen += len(view)
        if self._seen > self.total_bytes:
            raise MalformedMessageError(f"expected a file of {self.total_bytes} bytes, got more")
        view = self._take_header(view)
        if self._header is None:
            return
        position = self._seen - len(view) - self._header.data_start
        while len(view):
            entry = self._header.tensors[self._current]
            piece = view[: entry.end - position]
            try:
                self._digests[entry.name].update(piece)
            except EncodingError as error:
                raise EncodingError(f"tensor {entry.name}: {error}") from error
            view, position = view[len(piece) :], position + len(piece)
            if position == entry.end:
                self._current += 1

    def finish(self) -> FileRecord:
        """The record, once the whole file has been seen."""
        if self._header is None or self._seen != self.total_bytes:
            raise MalformedMessageError(f"expected a file of {self.total_bytes} bytes, got {self._seen}")
        digests = {name: digest.digest() for name, digest in self._digests.items()}
        record = tensor_tree(RECORD_KINDS[self._header.kind], self._header.spec_digest, digests).record
        return FileRecord(self._header, self._lengths, digests, record)

    def _take_header(self, view: memoryview) -> memoryview:
        if self._header is not None:
            return view
        known = len(self._head)
        self._head += view[: 8 + MAX_HEADER_BYTES - known]
        if len(self._head) < 8:
            return view[len(view) :]
        end = 8 + header_length(bytes(self._head[:8]), self.total_bytes)
        if len(self._head) < end:
            return view[len(view) :]
        header = parse_header(bytes(self._head[8:end]), self.total_bytes)
        self._lengths = check_header(header, self.spec)
        self._digests = {entry.name: TensorDigest(entry.dtype, entry.shape) for entry in header.tensors}
        self._header = header
        self._head.clear()
        return view[end - known :]


def write_file(stream: BinaryIO, spec: FileSpec, tensors: Mapping[str, Any]) -> FileRecord:
    """Write numpy arrays or torch tensors as a file of this spec, canonical values in order of name.

    Raises:
        MalformedMessageError: the tensors do not fit the spec.
        EncodingError: NaN, infinity, or a dtype without wire name.
    """
    arrays = {name: wire_array(tensors[name]) for name in sorted(tensors)}
    header: dict[str, Any] = {"__metadata__": {"rexis.format": FORMAT, "rexis.kind": spec.kind, "rexis.spec": to_hex(spec.digest)}}
    position = 0
    for name, (dtype, array) in arrays.items():
        end = position + tensor_bytes(dtype, array.shape)
        header[name] = {"dtype": dtype.upper(), "shape": list(array.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    # safetensors pads with spaces, so that the data starts at a multiple of eight.
    text += b" " * (-len(text) % 8)
    digest = TensorFileDigest(spec, 8 + len(text) + position)
    prefix = len(text).to_bytes(8, "little") + text
    digest.update(prefix)
    stream.write(prefix)
    for dtype, array in arrays.values():
        for chunk in little_endian_chunks(dtype, array):
            piece = canonical_elements(DTYPES[dtype], chunk)
            digest.update(piece)
            stream.write(piece)
    return digest.finish()


def digest_file(stream: BinaryIO, spec: FileSpec, total_bytes: int) -> FileRecord:
    """Check and digest a file of known size, chunk by chunk.

    Raises:
        MalformedMessageError, EncodingError: as `TensorFileDigest`.
    """
    digest = TensorFileDigest(spec, total_bytes)
    while chunk := stream.read(READ_BYTES):
        digest.update(chunk)
    return digest.finish()


def read_header(stream: BinaryIO, total_bytes: int) -> FileHeader:
    """Read and check the header at the start of a stream, which is left at the first byte of data.

    Raises:
        MalformedMessageError: not a tensor file in the form of section 4.
    """
    length = header_length(stream.read(8), total_bytes)
    header = stream.read(length)
    if len(header) < length:
        raise MalformedMessageError(f"safetensors: expected a header of {length} bytes, got {len(header)}")
    return parse_header(header, total_bytes)


def read_file(stream: BinaryIO, spec: FileSpec, total_bytes: int) -> dict[str, NDArray[Any]]:
    """Read all tensors of a file into memory; bf16 comes as its bits in uint16.

    Raises:
        MalformedMessageError: the header or the size is wrong.
    """
    header = read_header(stream, total_bytes)
    check_header(header, spec)
    arrays = {}
    for entry in header.tensors:
        data = stream.read(entry.end - entry.begin)
        if len(data) != entry.end - entry.begin:
            raise MalformedMessageError(f"{entry.name}: expected {entry.end - entry.begin} bytes of data, got {len(data)}")
        arrays[entry.name] = np.frombuffer(data, DTYPES[entry.dtype].bits).reshape(entry.shape)
    if stream.read(1):
        raise MalformedMessageError(f"expected a file of {total_bytes} bytes, got more")
    return arrays


def _parse_entry(name: str, entry: Any) -> TensorEntry:
    check_name(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name}: expected exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _WIRE_NAMES:
        raise ValueError(f"{name}: expected a dtype among {', '.join(_WIRE_NAMES)}, got {str(dtype)[:40]!r}")
    if not _is_integers(shape) or len(shape) > MAX_DIMENSIONS or not _is_integers(offsets) or len(offsets) != 2:
        raise ValueError(f"{name}: expected a shape of at most {MAX_DIMENSIONS} integers and two offsets")
    size = tensor_bytes(_WIRE_NAMES[dtype], shape)
    if offsets[1] - offsets[0] != size:
        raise ValueError(f"{name}: expected {size} bytes by dtype and shape, got the offsets {offsets}")
    return TensorEntry(name, _WIRE_NAMES[dtype], tuple(shape), offsets[0], offsets[1])


def _is_integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)
