"""Numbers for noise and sampling, from the operating system: noise that can be computed again is no noise.

numpy's and torch's generators are made for simulation. torch's generator on a CPU takes 32 bits of its seed, so its noise could be found by
trying all of them on a released model.
"""

import secrets

import numpy as np
from numpy.typing import NDArray

# Kept in cache, and a large draw needs no second copy of itself.
_BLOCK = 1 << 16


def uniform(count: int) -> NDArray[np.float64]:
    """`count` numbers in the open interval (0, 1), 53 bits each, f64 [count]."""
    words = np.frombuffer(secrets.token_bytes(8 * count), dtype="<u8")
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def words(count: int) -> NDArray[np.uint64]:
    """`count` words of 64 random bits, u64 [count]."""
    return np.frombuffer(secrets.token_bytes(8 * count), dtype="<u8").astype(np.uint64)


def standard_normal(count: int) -> NDArray[np.float64]:
    """`count` independent standard normal numbers (Box and Muller), f64 [count]."""
    normal = np.empty(count)
    for start in range(0, count, _BLOCK):
        part = normal[start : start + _BLOCK]
        pairs = uniform(len(part) + len(part) % 2).reshape(-1, 2)
        radius, angle = np.sqrt(-2.0 * np.log(pairs[:, 0])), 2.0 * np.pi * pairs[:, 1]
        part[:] = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: len(part)]
    return normal
