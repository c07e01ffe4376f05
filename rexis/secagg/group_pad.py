"""The group pad: a layer on top of the masks that only members can take off, so that the aggregator never sees the sum itself.

    y_i = masked vector + P_i        P_i = PRG(HKDF(K_group, ctx, i))        sum = unmasked - Σ_{i in U3} P_i

Each site has a pad of its own: |U3| copies of one pad would leave the low bits of the sum bare whenever |U3| is even (4 P mod 2^32 has two
zero bits), and with them counts modulo 4. It protects against the aggregator only; members hold K_group.
"""

from collections.abc import Iterable

from rexis.encoding import domain_tag
from rexis.secagg.blocks import apply_masks
from rexis.secagg.key_agreement import derive
from rexis.secagg.masks import RingVector

GROUP_KEY_SIZE = 32


def pad_seed(group_key: bytes, ctx: bytes, position: int) -> bytes:
    """Seed of one site's pad in one attempt (32 bytes).

    Raises:
        ValueError: a group key that is not 32 bytes.
    """
    if len(group_key) != GROUP_KEY_SIZE:
        raise ValueError(f"expected a group key of {GROUP_KEY_SIZE} bytes, got {len(group_key)}")
    return derive(group_key, ctx, domain_tag("secagg/group-pad", 1) + b"\0" + position.to_bytes(8))


def remove_group_pad(total: RingVector, group_key: bytes, ctx: bytes, survivors: Iterable[int]) -> None:
    """Turn what the aggregator unmasked into the sum, in place.

    Args:
        total: [d].
        group_key: 32 bytes, known to all members and not to the aggregator.
        survivors: positions of U3.
    """
    apply_masks(total, [(pad_seed(group_key, ctx, position), -1) for position in survivors])
