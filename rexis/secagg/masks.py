"""Masks that cancel in the sum: AES-256-CTR keystream, added in place in Z_2^16, Z_2^32 or Z_2^64.

    y_i = v_i + PRG(b_i) + Σ_{j>i} PRG(s_ij) - Σ_{j<i} PRG(s_ij)

In the sum over the survivors, pairwise masks between survivors cancel; what stays is their self masks, and their pairwise masks with
participants who dropped out after the shares stage. Source: Bonawitz et al., CCS 2017 (ePrint 2017/281), section 4.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

SEED_SIZE = 32

# Three of them fit the second-level cache: zeros, keystream, and the slice it is added to.
BLOCK_BYTES = 1 << 17
_ZEROS = memoryview(bytes(BLOCK_BYTES))
_CIPHER_BLOCK = 16

RingBits = Literal[16, 32, 64]
RingVector = NDArray[np.uint16] | NDArray[np.uint32] | NDArray[np.uint64]
RingDtype = np.dtype[np.uint16] | np.dtype[np.uint32] | np.dtype[np.uint64]
Sign = Literal[1, -1]


class MaskStream:
    """The keystream of a seed, added to (sign 1) or subtracted from (-1) one slice of a vector after the other, in place.

    Args:
        seed: 32 bytes, used for exactly one stream.
        offset: bytes of the stream before the first slice; a multiple of one cipher block of 16.

    Raises:
        ValueError: another seed size or offset.
    """

    def __init__(self, seed: bytes, sign: Sign, *, offset: int = 0) -> None:
        if len(seed) != SEED_SIZE or offset < 0 or offset % _CIPHER_BLOCK:
            raise ValueError(f"expected a seed of {SEED_SIZE} bytes and a block-aligned offset, got {len(seed)} bytes and {offset}")
        counter = (offset // _CIPHER_BLOCK).to_bytes(_CIPHER_BLOCK)
        self._encryptor = Cipher(AES256(seed), CTR(counter)).encryptor()
        self._combine = np.add if sign == 1 else np.subtract

    def apply(self, part: RingVector, buffer: bytearray) -> None:
        """The next slice, through a buffer of `BLOCK_BYTES` at most that large."""
        self._encryptor.update_into(_ZEROS[: part.nbytes], buffer)
        self._combine(part, np.frombuffer(buffer, dtype=part.dtype, count=len(part)), out=part)


def ring_dtype(bits: RingBits) -> RingDtype:
    """Little-endian entries of a ring."""
    if bits == 16:
        return np.dtype("<u2")
    return np.dtype("<u4") if bits == 32 else np.dtype("<u8")


def check_ring(vector: RingVector) -> None:
    """Refuse what is no contiguous vector of little-endian u16, u32 or u64 (ValueError)."""
    if vector.dtype.str not in ("<u2", "<u4", "<u8") or vector.ndim != 1 or not vector.flags.c_contiguous:
        raise ValueError(f"expected a contiguous vector of <u2, <u4 or <u8, got {vector.dtype.str} of shape {vector.shape}")


def apply_mask(vector: RingVector, seed: bytes, sign: Sign, *, offset: int = 0) -> None:
    """Add (sign 1) or subtract (-1) the keystream of a seed, in place.

    Args:
        vector: u16, u32 or u64 [d], little-endian, contiguous; a slice of a longer vector if `offset` is given.
        seed: 32 bytes, used for exactly one stream.
        offset: position of `vector[0]` in the stream, in entries; a multiple of one cipher block (8 u16, 4 u32, 2 u64).

    Raises:
        ValueError: another dtype or layout, seed size, or offset.
    """
    check_ring(vector)
    stream, buffer = MaskStream(seed, sign, offset=offset * vector.itemsize), bytearray(BLOCK_BYTES)
    entries = BLOCK_BYTES // vector.itemsize
    for start in range(0, len(vector), entries):
        stream.apply(vector[start : start + entries], buffer)


def pairwise_sign(me: int, other: int) -> Sign:
    """The sign with which `me` applies the mask it shares with `other`: opposite at the two ends.

    Raises:
        ValueError: the two are the same.
    """
    if me == other:
        raise ValueError(f"participant {me} shares no mask with itself")
    return 1 if other > me else -1


def mask_update(vector: RingVector, self_seed: bytes, pairwise_seeds: Mapping[int, bytes], me: int) -> None:
    """Mask a quantised update in place, so that only the sum over all survivors is readable.

    Args:
        vector: u16, u32 or u64 [d]; see `quantization`.
        self_seed: 32 bytes from the operating system, secret-shared before use.
        pairwise_seeds: position → agreed 32-byte seed, of every other participant of the shares stage.
        me: this participant's position.

    Security: hides the update from the aggregator and fewer than `threshold` colluders if every seed is used for one vector only.
    """
    apply_mask(vector, self_seed, 1)
    for other, seed in pairwise_seeds.items():
        apply_mask(vector, seed, pairwise_sign(me, other))


def unmask_sum(total: RingVector, self_seeds: Iterable[bytes], dropped: Mapping[int, Mapping[int, bytes]]) -> None:
    """Turn the sum of the survivors' masked vectors into the sum of their updates, in place.

    Args:
        total: u16, u32 or u64 [d].
        self_seeds: of every survivor, rebuilt from shares.
        dropped: for each participant who dropped out after the shares stage: survivor → their pairwise seed.
    """
    for seed in self_seeds:
        apply_mask(total, seed, -1)
    for missing, seeds in dropped.items():
        for survivor, seed in seeds.items():
            # What the missing participant would have added cancels what the survivor did.
            apply_mask(total, seed, pairwise_sign(missing, survivor))
