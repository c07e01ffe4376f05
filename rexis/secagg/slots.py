"""Counts and losses behind the parameters of a masked vector, exact in every ring.

In rings of 32 and 64 bits a slot is one entry. A ring of 16 bits has room for neither a weight nor a loss times it, so a slot is split
there into five entries of eight bits, the lowest first: the entries of up to 257 sites sum to less than 2^16 each, and so to the slot's own
sum, with nothing rounded and nothing carried.
"""

from collections.abc import Sequence

import numpy as np

from rexis.protocol.federation_plans import SLOT_ENTRIES
from rexis.secagg.masks import RingVector
from rexis.secagg.quantization import FixedPoint

_LIMB_BITS = 8
MAX_SLOT = (1 << (_LIMB_BITS * SLOT_ENTRIES)) - 1
MAX_SUMMED = ((1 << 16) - 1) // ((1 << _LIMB_BITS) - 1)


def encode_slots(encoding: FixedPoint, values: Sequence[int]) -> RingVector:
    """Numbers from 0 as entries of the ring.

    Raises:
        ValueError: a number, or a count of participants, that the limbs have no room for.
    """
    if encoding.ring_bits != 16:
        return encoding.encode_integers(np.array(values, dtype=np.float64))
    if encoding.participants > MAX_SUMMED or not all(0 <= value <= MAX_SLOT for value in values):
        raise ValueError(f"expected slots of 0 to {MAX_SLOT} of at most {MAX_SUMMED} sites, got {max(values)} and {encoding.participants}")
    limbs = [value >> (_LIMB_BITS * place) & ((1 << _LIMB_BITS) - 1) for value in values for place in range(SLOT_ENTRIES)]
    return np.array(limbs, dtype=np.uint16)


def decode_slots(encoding: FixedPoint, total: RingVector) -> list[int]:
    """The sums of the slots behind the entries of a sum."""
    if encoding.ring_bits != 16:
        return [int(value) for value in encoding.decode_integers(total)]
    return [sum(int(limb) << (_LIMB_BITS * place) for place, limb in enumerate(slot)) for slot in total.reshape(-1, SLOT_ENTRIES)]
