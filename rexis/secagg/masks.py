"""Masks that cancel in the sum: AES-256-CTR keystream, added in place in Z_2^32 or Z_2^64.

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

# Fits the second-level cache together with the slice it is added to.
_BLOCK_SIZE = 1 << 18
_ZEROS = bytes(_BLOCK_SIZE)
_CIPHER_BLOCK = 16

RingVector = NDArray[np.uint32] | NDArray[np.uint64]
Sign = Literal[1, -1]


def apply_mask(vector: RingVector, seed: bytes, sign: Sign, *, offset: int = 0) -> None:
    """Add (sign 1) or subtract (-1) the keystream of a seed, in place.

    Args:
        vector: u32 or u64 [d], little-endian, contiguous; a slice of a longer vector if `offset` is given.
        seed: 32 bytes, used for exactly one stream.
        offset: position of `vector[0]` in the stream, in entries; a multiple of one cipher block (4 u32, 2 u64).

    Raises:
        ValueError: another dtype or layout, seed size, or offset.
    """
    size = vector.dtype.itemsize
    if vector.dtype.str not in ("<u4", "<u8") or vector.ndim != 1 or not vector.flags.c_contiguous:
        raise ValueError(f"expected a contiguous vector of <u4 or <u8, got {vector.dtype.str} of shape {vector.shape}")
    if len(seed) != SEED_SIZE or offset < 0 or offset * size % _CIPHER_BLOCK:
        raise ValueError(f"expected a seed of {SEED_SIZE} bytes and a block-aligned offset, got {len(seed)} bytes and {offset}")
    counter = (offset * size // _CIPHER_BLOCK).to_bytes(_CIPHER_BLOCK)
    encryptor = Cipher(AES256(seed), CTR(counter)).encryptor()
    buffer = bytearray(_BLOCK_SIZE)
    keystream = np.frombuffer(buffer, dtype=vector.dtype)
    combine = np.add if sign == 1 else np.subtract
    for start in range(0, len(vector), len(keystream)):
        part = vector[start : start + len(keystream)]
        encryptor.update_into(memoryview(_ZEROS)[: part.nbytes], buffer)
        combine(part, keystream[: len(part)], out=part)


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
        vector: u32 or u64 [d]; see `quantization`.
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
        total: u32 or u64 [d].
        self_seeds: of every survivor, rebuilt from shares.
        dropped: for each participant who dropped out after the shares stage: survivor → their pairwise seed.
    """
    for seed in self_seeds:
        apply_mask(total, seed, -1)
    for missing, seeds in dropped.items():
        for survivor, seed in seeds.items():
            # What the missing participant would have added cancels what the survivor did.
            apply_mask(total, seed, pairwise_sign(missing, survivor))
