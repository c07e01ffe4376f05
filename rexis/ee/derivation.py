"""From a 32-byte seed and a label to the numbers of a key: `specs/equivariant-encryption.md` 2e, pinned by tests/vectors/ee_keys.json.

    sub(label)    = HKDF-SHA256(seed, salt "rexis-ee/1", info label)
    stream(label) = ChaCha20(sub(label), zero nonce), read as little-endian u64

One label serves one purpose, always with the same count. Permutations and signs are bit-identical on every machine; orthogonal matrices
differ in the last bits between BLAS builds, so they are compared by tolerance and never hashed.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

SEED_SIZE = 32
_SALT = b"rexis-ee/1"


def subkey(seed: bytes, label: str) -> bytes:
    """32 bytes that belong to `label` alone.

    Raises:
        ValueError: a seed that is not 32 bytes, or an empty label.
    """
    if len(seed) != SEED_SIZE or not label:
        raise ValueError(f"expected a seed of {SEED_SIZE} bytes and a label, got {len(seed)} bytes and {label!r}")
    return HKDF(algorithm=SHA256(), length=32, salt=_SALT, info=label.encode()).derive(seed)


def stream(seed: bytes, label: str, size: int) -> bytes:
    """The first `size` bytes of the label's keystream."""
    return Cipher(ChaCha20(subkey(seed, label), bytes(16)), mode=None).encryptor().update(bytes(size))


def words(seed: bytes, label: str, count: int) -> NDArray[np.uint64]:
    """`count` uniform 64-bit words."""
    return np.frombuffer(stream(seed, label, 8 * count), dtype="<u8").astype(np.uint64, copy=False)


def uniform(seed: bytes, label: str, count: int) -> NDArray[np.float64]:
    """`count` numbers in the open interval (0, 1): 53 bits each, never 0, so that their logarithm exists."""
    return ((words(seed, label, count) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def gaussian(seed: bytes, label: str, count: int) -> NDArray[np.float64]:
    """`count` standard normal numbers by Box-Muller, two from each pair of uniforms."""
    pairs = uniform(seed, label, count + count % 2).reshape(-1, 2)
    radius, angle = np.sqrt(-2.0 * np.log(pairs[:, 0])), 2.0 * np.pi * pairs[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count]


def permutation(seed: bytes, label: str, size: int) -> NDArray[np.int64]:
    """A uniform permutation of 0..size-1: the stable order of `size` words."""
    return np.argsort(words(seed, label, size), kind="stable").astype(np.int64, copy=False)


def signs(seed: bytes, label: str, size: int) -> NDArray[np.float64]:
    """`size` numbers +1 or -1: minus where the low bit of the word is set."""
    return 1.0 - 2.0 * (words(seed, label, size) & np.uint64(1)).astype(np.float64)


def orthogonal(seed: bytes, label: str, size: int) -> NDArray[np.float64]:
    """A Haar-distributed orthogonal matrix (size, size): Q of a Gaussian matrix, with the signs of R's diagonal moved into it.

    Without the signs Q is not Haar (Mezzadri, Notices of the AMS 54, 2007).
    """
    q, r = np.linalg.qr(gaussian(seed, label, size * size).reshape(size, size))
    return q * np.sign(np.diag(r))
