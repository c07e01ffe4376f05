"""Real updates as integers of a ring in which no sum can wrap (`specs/secure-aggregation.md` 3.3 and its correction 1).

    B = floor((2^(k-1) - 1) / n)        s = floor(B / C)        v = clamp(rint(s · w · clip_C(x)), ±B)

n vectors of entries within ±B sum to at most 2^(k-1) - 1, whatever their sizes: rounding is clamped, so the bound is exact.

A ring of 16 bits is lossy compression: the scale is what n leaves of 15 bits, and steps are as large as much of an update. There an entry
is rounded up with the probability of its fraction, so that errors have mean zero and do not add up over sites and rounds (QSGD, Alistarh
et al., NeurIPS 2017). The vector is another one at every call, so the first that was stored counts.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.dp.randomness import uniform
from rexis.secagg.masks import RingBits, RingVector, ring_dtype

# In float64 such a block stays in the second-level cache.
_BLOCK_ENTRIES = 1 << 15


@dataclass(frozen=True)
class FixedPoint:
    """The encoding of one round.

    Attributes:
        participants: n, all that could be in the sum.
        clipping_norm: C, the largest L2 norm of an update.
        ring_bits: k; 32 for models, or 16, lossily; 64 for statistics.
        limit: of B, where the ring has to hold noise as well; None for the ring's own.
    """

    participants: int
    clipping_norm: float
    ring_bits: RingBits = 32
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.participants < 1 or self.ring_bits not in (16, 32, 64):
            raise ValueError(f"expected participants and 16, 32 or 64 ring bits, got {self.participants} and {self.ring_bits}")
        if not (math.isfinite(self.clipping_norm) and self.clipping_norm > 0 and 1 <= self.bound / self.clipping_norm < math.inf):
            raise ValueError(f"expected a clipping norm in (0, {self.bound}] that leaves a finite scale, got {self.clipping_norm}")

    @property
    def bound(self) -> int:
        """B: the largest absolute entry of one vector."""
        room = ((1 << (self.ring_bits - 1)) - 1) // self.participants
        return room if self.limit is None else min(room, self.limit)

    @property
    def scale(self) -> int:
        """s: integer steps to one unit of the update."""
        return math.floor(self.bound / self.clipping_norm)

    def encode(self, update: ArrayLike, *, weight: float = 1.0) -> RingVector:
        """Clip to the L2 norm, weight, round (at random with 16 bits) and clamp.

        Args:
            update: floats [d].
            weight: in (0, 1]; see `example_weight`.

        Returns:
            u16, u32 or u64 [d], two's complement.

        Raises:
            ValueError: NaN or infinity (nothing may be sent), another shape, or a weight out of range.
        """
        values = np.asarray(update)
        if values.dtype != np.float32:
            values = values.astype(np.float64, copy=False)
        if values.ndim == 1:
            with np.errstate(over="ignore", invalid="ignore"):
                norm = math.sqrt(sum(float(block @ block) for block in _blocks(values)))
        else:
            norm = math.nan
        if not math.isfinite(norm) or not 0 < weight <= 1:
            raise ValueError(
                f"expected floats [d] of finite norm and a weight in (0, 1], got {values.shape}, norm {norm} and weight {weight}"
            )
        factor = min(1.0, self.clipping_norm / norm) if norm > 0 else 1.0
        return self._steps(values, self.scale * weight * factor, at_random=self.ring_bits == 16)

    def encode_integers(self, values: ArrayLike) -> RingVector:
        """Numbers in integer steps (counts, sums in fixed point) as ring entries: rounded, then clamped to ±B.

        Raises:
            ValueError: NaN.
        """
        steps = np.asarray(values, dtype=np.float64)
        if np.isnan(steps).any():
            raise ValueError("expected numbers to encode, got NaN")
        return self._steps(steps, 1.0, at_random=False)

    def _steps(self, values: NDArray[Any], factor: float, *, at_random: bool) -> RingVector:
        """Round and clamp numbers times a factor; a block at a time, for the work in between is in float64."""
        limit = float(self.bound)
        if limit > self.bound:
            limit = math.nextafter(limit, 0.0)
        steps = np.empty(len(values), dtype=f"<i{self.ring_bits // 8}")
        start = 0
        for block in _blocks(values):
            np.multiply(block, factor, out=block)
            if at_random:
                np.floor(block + uniform(len(block)), out=block)
            else:
                np.rint(block, out=block)
            np.clip(block, -limit, limit, out=block)
            steps[start : start + len(block)] = block
            start += len(block)
        return steps.view(ring_dtype(self.ring_bits))

    def decode_integers(self, total: RingVector) -> NDArray[np.int64]:
        """The signed sum behind a ring vector, int64 [d]."""
        return self._signed(total).astype(np.int64)

    def decode(self, total: RingVector) -> NDArray[np.float64]:
        """The sum of the weighted updates, f64 [d]; divide by the sum of the weights for their mean."""
        return self._signed(total) / self.scale

    def _signed(self, total: RingVector) -> NDArray[np.signedinteger[Any]]:
        if total.dtype.itemsize * 8 != self.ring_bits:
            raise ValueError(f"expected {self.ring_bits}-bit entries, got {total.dtype}")
        return total.view(f"<i{total.itemsize}")


def _blocks(values: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """Copies in float64 of each part of a vector."""
    for start in range(0, len(values), _BLOCK_ENTRIES):
        yield values[start : start + _BLOCK_ENTRIES].astype(np.float64)


def example_weight(examples: int, cap: int) -> float:
    """min(n_i, W) / W: the weight of a site with that many examples; the cap bounds how much one site can count."""
    if examples < 1 or cap < 1:
        raise ValueError(f"expected at least one example and a cap of at least 1, got {examples} and {cap}")
    return min(examples, cap) / cap
