"""Who shares masks with whom: everybody with everybody, or a random k-regular graph for large rosters (Bell et al., CCS 2020, SecAgg+).

The k-regular graph is Harary's, a ring in which each is joined to the k/2 next on both sides, in an order drawn from a seed that nobody
knew when the roster was fixed: the hash of the block that opened the attempt. The ring is of the whole roster, not of those whose keys
came: an aggregator that knows the order and leaves out keys takes neighbours away, and moves nobody into another's neighbourhood. It gets
another order only with another attempt, once the deadline of this one has passed. Who makes the block itself, or knows all that goes into
it, can try hashes: that nobody of them works with the aggregator is assumed, and the complete graph assumes nothing of it. Shares of a
secret go to its owner's neighbourhood of at most m = k + 1 (the owner keeps one), and the threshold is counted there. With c the most
colluders that any neighbourhood holds, except with probability 2^-40:

    t_k = floor((m + c) / 2) + 1        2 t_k > m + c: nobody gathers t_k shares of both secrets of one site

Whoever opens a site's self mask has t_k answers from its neighbourhood, at least t_k - c of them of honest survivors whose pairwise masks
with it stay closed: what a malicious aggregator can split off is a sum over at least t_k - c honest sites, never one. The complete graph
has no such parts; below 64 sites it is the choice.
"""

from collections.abc import Collection
from math import comb

from rexis.encoding import domain_tag, sha256
from rexis.errors import BelowThresholdError

SECURITY_BITS = 40
# A neighbourhood that loses too many only costs an attempt.
RELIABILITY_BITS = 20


def neighbours(positions: Collection[int], degree: int | None, seed: bytes) -> dict[int, frozenset[int]]:
    """Position → the positions it shares masks and secrets with; symmetric, never itself.

    Args:
        positions: the whole roster.
        degree: even k, or None for the complete graph, which is also what fewer than k + 2 positions get.
        seed: 32 bytes, public, unknown when the roster was fixed: a block hash.
    """
    everybody = frozenset(positions)
    if degree is None or is_complete(len(everybody), degree):
        return {position: everybody - {position} for position in everybody}
    tag = domain_tag("secagg/graph", 1) + b"\0" + seed
    ring = sorted(everybody, key=lambda position: sha256(tag + position.to_bytes(8)))
    offsets = [offset for step in range(1, degree // 2 + 1) for offset in (step, -step)]
    return {position: frozenset(ring[(index + offset) % len(ring)] for offset in offsets) for index, position in enumerate(ring)}


def is_complete(participants: int, degree: int | None) -> bool:
    """Whether a roster of that size is joined completely."""
    return degree is None or degree >= participants - 1


def neighbourhood_threshold(participants: int, collusion_bound: int, degree: int) -> int:
    """t_k: shares that rebuild a secret in a neighbourhood of degree + 1.

    Raises:
        ValueError: an odd degree, or one below 2.
        BelowThresholdError: the degree is too small: colluders could fill a neighbourhood.
    """
    if degree < 2 or degree % 2:
        raise ValueError(f"expected an even degree from 2, got {degree}")
    colluders = _most(participants, collusion_bound, degree, SECURITY_BITS)
    threshold = (degree + 1 + colluders) // 2 + 1
    required = max(threshold, colluders + 2)
    if degree + 1 < required:
        raise BelowThresholdError(
            f"neighbourhood of {degree + 1} among {participants} with t_c = {collusion_bound}: it may hold {colluders} colluders, "
            f"for which t_k = {threshold}; take a larger degree or the complete graph",
            required,
            degree + 1,
        )
    return threshold


def smallest_degree(participants: int, collusion_bound: int, dropouts: int) -> int | None:
    """The least degree that is safe, and at which that many random drop-outs leave t_k in every neighbourhood but with probability 2^-20.

    Returns:
        An even degree, or None where only the complete graph will do.
    """
    for degree in range(2, participants - 1, 2):
        try:
            threshold = neighbourhood_threshold(participants, collusion_bound, degree)
        except BelowThresholdError:
            continue
        if degree + 1 - _most(participants, dropouts, degree, RELIABILITY_BITS) >= threshold:
            return degree
    return None


def _most(participants: int, marked: int, degree: int, bits: int) -> int:
    """The least c so that any neighbourhood, drawn without replacement, holds more than c of the marked with probability below 2^-bits."""
    others = participants - 1
    draws = comb(others, degree)
    tail = 0
    for count in range(min(marked, degree), -1, -1):
        tail += comb(marked, count) * comb(others - marked, degree - count) if degree - count <= others - marked else 0
        if participants * tail << bits > draws:
            return count
    return 0
