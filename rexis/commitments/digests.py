"""Tensor digests: SHA-256 over one canonical form of a tensor (wire formats, section 1).

Canonical: C-contiguous, little-endian, -0.0 written as +0.0, NaN and infinity refused. Work goes chunk by chunk, so that a
tensor larger than memory can be digested as it streams in, and none is ever copied whole.
"""

import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rexis.encoding import canonical_json, domain_tag
from rexis.errors import EncodingError

Buffer = bytes | bytearray | memoryview

CHUNK_BYTES = 1 << 20
MAX_TENSOR_BYTES = 1 << 53


@dataclass(frozen=True)
class DType:
    """An element type: its wire name, its bits as a little-endian numpy type, and the masks of an IEEE format.

    Attributes:
        bits: numpy type of the element; bf16, which numpy lacks, is its 16 bits as `<u2`.
        sign: bit mask of the sign, 0 for types without -0.0.
        infinity: bit pattern of +infinity; magnitudes from here on are infinite or NaN.
    """

    name: str
    bits: np.dtype[Any]
    sign: int = 0
    infinity: int = 0

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.bits.itemsize


DTYPES = {
    dtype.name: dtype
    for dtype in (
        DType("f64", np.dtype("<f8"), 1 << 63, 0x7FF0000000000000),
        DType("f32", np.dtype("<f4"), 1 << 31, 0x7F800000),
        DType("bf16", np.dtype("<u2"), 1 << 15, 0x7F80),
        DType("f16", np.dtype("<f2"), 1 << 15, 0x7C00),
        DType("i64", np.dtype("<i8")),
        DType("i32", np.dtype("<i4")),
        DType("i16", np.dtype("<i2")),
        DType("i8", np.dtype("i1")),
        DType("u8", np.dtype("u1")),
        DType("bool", np.dtype("?")),
    )
}
_NUMPY_NAMES = {dtype.bits.name: dtype.name for dtype in DTYPES.values() if dtype.name != "bf16"} | {"bfloat16": "bf16"}


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Size in bytes of a tensor of this wire dtype and shape.

    Raises:
        EncodingError: an unknown dtype, a negative or non-integer dimension, or more than `MAX_TENSOR_BYTES`.
    """
    if dtype not in DTYPES:
        raise EncodingError(f"expected a dtype among {', '.join(DTYPES)}, got {dtype[:40]!r}")
    if any(isinstance(length, bool) or not isinstance(length, int) or length < 0 for length in shape):
        raise EncodingError(f"expected a shape of non-negative integers, got {list(shape)}")
    size = math.prod(shape) * DTYPES[dtype].size
    if size > MAX_TENSOR_BYTES:
        raise EncodingError(f"expected a tensor of at most {MAX_TENSOR_BYTES} bytes, got {size}")
    return size


class TensorDigest:
    """Digest of one tensor whose bytes arrive in order, in pieces of any length.

    Raises (constructor, `update`, `digest`):
        EncodingError: an unknown dtype or shape; NaN, infinity, or a boolean byte above 1; too many or too few bytes.
    """

    def __init__(self, dtype: str, shape: Sequence[int]) -> None:
        self._size = tensor_bytes(dtype, shape)
        self._dtype = DTYPES[dtype]
        self._seen = 0
        self._tail = b""
        header = canonical_json({"dtype": dtype, "shape": list(shape)})
        self._hash = hashlib.sha256(domain_tag("tensor", 1) + b"\0")
        self._hash.update(len(header).to_bytes(8, "little") + header + self._size.to_bytes(8, "little"))

    def update(self, data: Buffer) -> None:
        """Take the next bytes: elements may be split between calls."""
        view = _bytes_of(data)
        self._seen += len(view)
        if self._seen > self._size:
            raise EncodingError(f"expected {self._size} bytes of tensor data, got at least {self._seen}")
        if self._tail:
            missing = self._dtype.size - len(self._tail)
            self._tail += bytes(view[:missing])
            view = view[missing:]
            if len(self._tail) < self._dtype.size:
                return
            self._hash.update(canonical_elements(self._dtype, self._tail))
            self._tail = b""
        whole = len(view) - len(view) % self._dtype.size
        for start in range(0, whole, CHUNK_BYTES):
            self._hash.update(canonical_elements(self._dtype, view[start : min(start + CHUNK_BYTES, whole)]))
        self._tail = bytes(view[whole:])

    def digest(self) -> bytes:
        """The 32 bytes, once all of the tensor has been seen."""
        if self._seen != self._size:
            raise EncodingError(f"expected {self._size} bytes of tensor data, got {self._seen}")
        return self._hash.digest()


def digest_of(dtype: str, shape: Sequence[int], data: Buffer) -> bytes:
    """Digest of a tensor given as its little-endian bytes in C order.

    Args:
        dtype: wire name, a key of `DTYPES`.
        shape: lengths of the dimensions; `()` for a scalar.
        data: exactly prod(shape) elements.

    Raises:
        EncodingError: as `TensorDigest`.
    """
    digest = TensorDigest(dtype, shape)
    digest.update(data)
    return digest.digest()


def tensor_digest(tensor: Any) -> bytes:
    """Digest of a numpy array or torch tensor of any stride and byte order (32 bytes).

    Raises:
        EncodingError: a dtype without a wire name, NaN or infinity.
        TypeError: neither a numpy array nor a dense torch tensor.
    """
    dtype, array = wire_array(tensor)
    digest = TensorDigest(dtype, array.shape)
    for chunk in little_endian_chunks(dtype, array):
        digest.update(chunk)
    return digest.digest()


def wire_array(tensor: Any) -> tuple[str, NDArray[Any]]:
    """Wire dtype of a numpy array or torch tensor, and its values as a numpy view (bf16 as its bits in uint16).

    Raises:
        EncodingError: a dtype without a wire name.
        TypeError: neither a numpy array nor a dense torch tensor.
    """
    # Torch is never imported here: if the caller holds a torch tensor, the module is already loaded.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tensor, torch.Tensor):
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise TypeError(f"expected a dense torch tensor, got layout {tensor.layout}, dtype {tensor.dtype}")
        host = tensor.detach().cpu()
        dtype = _wire_name(str(host.dtype).removeprefix("torch."))
        return dtype, host.view(torch.int16).numpy().view(np.uint16) if dtype == "bf16" else host.numpy()
    if not isinstance(tensor, np.ndarray):
        raise TypeError(f"expected a numpy array or a torch tensor, got {type(tensor).__name__}")
    dtype = _wire_name(tensor.dtype.name)
    return dtype, tensor.view(np.uint16) if dtype == "bf16" else tensor


def little_endian_chunks(dtype: str, array: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of an array in C order and little-endian, about `CHUNK_BYTES` at a time, whatever its strides.

    A chunk is valid until the next one is asked for: the buffer may be reused.
    """
    bits = DTYPES[dtype].bits
    if array.size == 0:
        return
    if array.flags.c_contiguous and array.dtype == bits:
        view = _bytes_of(array.data)
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]
        return
    chunks = np.nditer(
        array, flags=["external_loop", "buffered"], op_dtypes=[bits], order="C", casting="equiv", buffersize=CHUNK_BYTES // bits.itemsize
    )
    for chunk in chunks:
        yield _bytes_of(np.ascontiguousarray(chunk).data)


def canonical_elements(dtype: DType, data: Buffer) -> Buffer:
    """Whole elements with -0.0 replaced by +0.0; the given buffer itself, uncopied, if it is canonical already.

    Raises:
        EncodingError: NaN, infinity, or a boolean byte above 1.
    """
    if dtype.name == "bool":
        if np.frombuffer(data, np.uint8).max(initial=0) > 1:
            raise EncodingError("expected booleans as bytes 0 or 1, got another byte")
        return data
    if not dtype.sign:
        return data
    patterns = np.frombuffer(data, np.dtype(f"<u{dtype.size}"))
    if (patterns & patterns.dtype.type(dtype.sign - 1)).max(initial=0) >= dtype.infinity:
        raise EncodingError(f"expected finite {dtype.name} values, got NaN or infinity: such a tensor has no digest")
    negative_zero = patterns == dtype.sign
    if not negative_zero.any():
        return data
    return _bytes_of(np.where(negative_zero, patterns.dtype.type(0), patterns).data)


def _wire_name(name: str) -> str:
    if name not in _NUMPY_NAMES:
        raise EncodingError(f"expected one of the dtypes {', '.join(DTYPES)}, got {name}: cast it first")
    return _NUMPY_NAMES[name]


def _bytes_of(data: Buffer) -> memoryview:
    view = memoryview(data)
    # A view with a zero in its shape can not be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")
