"""Shamir's secret sharing of 32-byte secrets over the prime 2^256 + 297 (Shamir, CACM 1979).

The field is just larger than the secrets, so that every 32-byte secret is an element of it and no secret has to be drawn again.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from rexis.errors import BelowThresholdError, MalformedMessageError

PRIME = 2**256 + 297
SECRET_SIZE = 32
SHARE_SIZE = 33


def split(
    secret: bytes, threshold: int, indices: Iterable[int], *, randbelow: Callable[[int], int] = secrets.randbelow
) -> dict[int, bytes]:
    """Share a secret so that any `threshold` shares rebuild it and fewer say nothing about it.

    Args:
        secret: 32 bytes.
        indices: distinct x coordinates from 1: positions in the roster.
        randbelow: uniform integer below its argument; another than the operating system's only for test vectors.

    Returns:
        Index → share of 33 bytes, big-endian.

    Raises:
        ValueError: a secret of another size, or a threshold or index out of range.
    """
    points = list(indices)
    if len(secret) != SECRET_SIZE:
        raise ValueError(f"expected a secret of {SECRET_SIZE} bytes, got {len(secret)}")
    if not 1 <= threshold <= len(points) or len(set(points)) != len(points) or not all(0 < x < PRIME for x in points):
        raise ValueError(f"expected distinct indices from 1 and a threshold of 1 to their number, got {threshold} of {points}")
    coefficients = [int.from_bytes(secret), *(randbelow(PRIME) for _ in range(threshold - 1))]
    return {x: _evaluate(coefficients, x).to_bytes(SHARE_SIZE) for x in points}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Rebuild a secret from at least `threshold` shares; the lowest indices are used.

    A wrong share gives a wrong secret, not an error: the caller compares with the commitment to the secret.

    Raises:
        BelowThresholdError: too few shares.
        MalformedMessageError: an index or share that is no element of the field, or shares of no 32-byte secret.
    """
    if len(shares) < threshold:
        raise BelowThresholdError("shares of one secret", threshold, len(shares))
    used = tuple(sorted(shares)[:threshold])
    values = [_element(x, shares[x]) for x in used]
    secret = sum(value * coefficient for value, coefficient in zip(values, _lagrange_at_zero(used), strict=True)) % PRIME
    if secret >= 1 << (8 * SECRET_SIZE):
        raise MalformedMessageError(f"the shares at {used} do not belong to one secret of {SECRET_SIZE} bytes")
    return secret.to_bytes(SECRET_SIZE)


def _evaluate(coefficients: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value


def _element(x: int, share: bytes) -> int:
    value = int.from_bytes(share)
    if not 0 < x < PRIME or len(share) != SHARE_SIZE or value >= PRIME:
        raise MalformedMessageError(f"share {x}: expected {SHARE_SIZE} bytes below the prime, got {len(share)} bytes")
    return value


# One survivor set rebuilds many secrets: the inversions are done once.
@lru_cache(maxsize=64)
def _lagrange_at_zero(indices: tuple[int, ...]) -> tuple[int, ...]:
    coefficients = []
    for x in indices:
        numerator, denominator = 1, 1
        for other in indices:
            if other != x:
                numerator = numerator * other % PRIME
                denominator = denominator * (other - x) % PRIME
        coefficients.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(coefficients)
