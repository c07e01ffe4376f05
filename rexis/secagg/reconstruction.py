"""Secrets rebuilt from shares of which some may be wrong, checked against what their owner committed to."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations, islice

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from rexis.encoding import from_hex
from rexis.errors import BelowThresholdError, InvalidShareError, MalformedMessageError
from rexis.protocol.secagg_messages import Envelope
from rexis.secagg import shamir
from rexis.secagg.key_agreement import pairwise_seed, public_key, self_seed_commitment
from rexis.secagg.masks import Sign, pairwise_sign
from rexis.secagg.survivors import SurvivorSet

# Two liars among a hundred answers are found within this; more cost the attempt.
MAX_SUBSETS = 5000


def reconstruct(
    dealer: str, shares: Mapping[int, bytes], threshold: int, is_secret: Callable[[bytes], bool], distrusted: frozenset[int]
) -> tuple[bytes, frozenset[int]]:
    """Rebuild one secret, from others if the first shares do not fit.

    Args:
        dealer: checksum address of its owner, for the error.
        shares: position of the holder → 33 bytes.
        threshold: t.
        is_secret: compares with the commitment.
        distrusted: holders whose shares of other secrets were wrong; tried last.

    Returns:
        The secret, 32 bytes, and the holders whose shares do not belong to it.

    Raises:
        BelowThresholdError: too few shares.
        InvalidShareError: no t shares give what was committed to: the dealer, or too many holders, lied.
    """
    if len(shares) < threshold:
        raise BelowThresholdError(f"shares of {dealer}", threshold, len(shares))
    holders = sorted(shares, key=lambda holder: (holder in distrusted, holder))
    for used in islice(_subsets(holders, threshold), MAX_SUBSETS):
        secret = _combine(shares, used)
        if secret is not None and is_secret(secret):
            # A point is on the polynomial if it can take the place of another.
            wrong = (holder for holder in shares.keys() - set(used) if _combine(shares, (*used[1:], holder)) != secret)
            return secret, frozenset(wrong)
    raise InvalidShareError(dealer, f"no {threshold} of {len(shares)} shares rebuild the secret that was committed to")


def _subsets(holders: list[int], size: int) -> Iterator[tuple[int, ...]]:
    """Subsets of that size, each once: the first holders, then those with one replaced by a spare one, with two, and so on."""
    first, spare = holders[:size], holders[size:]
    for replaced in range(min(size, len(spare)) + 1):
        for replacement in combinations(spare, replaced):
            for kept in combinations(first, size - replaced):
                yield (*kept, *replacement)


def _combine(shares: Mapping[int, bytes], used: tuple[int, ...]) -> bytes | None:
    try:
        return shamir.combine({holder: shares[holder] for holder in used}, len(used))
    except MalformedMessageError:
        return None


def opened_masks(
    survivors: SurvivorSet, dealt: Mapping[int, Envelope], answers: Mapping[int, Envelope]
) -> tuple[tuple[list[tuple[bytes, Sign]] | None, ...], frozenset[tuple[int, int]]]:
    """The masks in the sums of the survivors' vectors: their self masks, and the pairwise ones with who dropped out after sharing.

    Args:
        survivors: U3.
        dealt: checked messages of the stage shares by position, for the commitments.
        answers: checked messages of the stage unmask by position.

    Returns:
        For each group the seeds with the sign that takes them out of its sum, None where its secrets do not rebuild; and (holder, dealer)
        of each wrong share.

    Raises:
        BelowThresholdError: too few answers. Of several groups the one that lacks them stays closed, and nothing is raised.
        InvalidShareError: a secret that does not rebuild, likewise.
    """
    terms, directory, wrong = survivors.shares.terms, survivors.shares.keys, frozenset[tuple[int, int]]()

    def rebuilt(dealer: int, field: str, is_secret: Callable[[bytes], bool]) -> bytes:
        nonlocal wrong
        address = terms.address(dealer)
        shares = {
            holder: from_hex(entry["share"])
            for holder, answer in answers.items()
            for entry in answer.payload[field]
            if entry["of"] == address
        }
        distrusted = frozenset(holder for holder, _ in wrong)
        secret, liars = reconstruct(address, shares, directory.threshold(dealer), is_secret, distrusted)
        wrong |= {(holder, dealer) for holder in liars}
        return secret

    def masks_of(group: frozenset[int]) -> list[tuple[bytes, Sign]]:
        seeds: list[tuple[bytes, Sign]] = []
        for position in sorted(survivors.positions & group):
            commitment = from_hex(dealt[position].payload["commitment"])
            seeds.append((rebuilt(position, "self", _commits_to(terms.ctx, position, commitment)), -1))
        for position in sorted(survivors.dropped & group):
            scalar = rebuilt(position, "pairwise", _belongs_to(directory.keys[position].mask))
            private = X25519PrivateKey.from_private_bytes(scalar)
            for survivor in sorted(directory.neighbours[position] & survivors.positions):
                seed = pairwise_seed(terms.ctx, private, position, survivor, directory.keys[survivor].mask)
                # What the missing participant would have added cancels what the survivor did.
                seeds.append((seed, pairwise_sign(position, survivor)))
        return seeds

    opened: list[list[tuple[bytes, Sign]] | None] = []
    for group in survivors.groups:
        try:
            opened.append(masks_of(group))
        except (BelowThresholdError, InvalidShareError):
            # Else one who keeps its shares to itself, or deals wrong ones, would end the round for all groups.
            if terms.groups is None:
                raise
            opened.append(None)
    return tuple(opened), wrong


def _commits_to(ctx: bytes, position: int, commitment: bytes) -> Callable[[bytes], bool]:
    return lambda seed: self_seed_commitment(ctx, position, seed) == commitment


def _belongs_to(public: bytes) -> Callable[[bytes], bool]:
    return lambda scalar: public_key(X25519PrivateKey.from_private_bytes(scalar)) == public
