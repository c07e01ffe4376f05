"""The stage shares, from both ends: a participant deals shares of its two secrets to its neighbours, and opens what they dealt to it."""

from collections.abc import Mapping
from typing import Any

from rexis.encoding import from_hex, to_hex
from rexis.protocol.secagg_messages import Envelope
from rexis.secagg import shamir
from rexis.secagg.key_agreement import NONCE_SIZE, KeyPairs, RandomBytes, open_shares, seal_shares, self_seed_commitment
from rexis.secagg.transcript import KeyDirectory

# 48 bytes modulo a prime of 257 bits: the bias is below 2^-126.
_FIELD_DRAW = 48

SharePair = tuple[bytes, bytes]


def deal(
    directory: KeyDirectory, pairs: KeyPairs, self_seed: bytes, position: int, random_bytes: RandomBytes
) -> tuple[dict[str, Any], SharePair]:
    """Share the self seed and the mask scalar among a participant's neighbours and itself.

    Returns:
        The payload of its message, and the shares it keeps.
    """

    def randbelow(bound: int) -> int:
        return int.from_bytes(random_bytes(_FIELD_DRAW)) % bound

    terms, holders, threshold = directory.terms, sorted(directory.holders(position)), directory.threshold(position)
    of_self = shamir.split(self_seed, threshold, holders, randbelow=randbelow)
    of_mask = shamir.split(pairs.mask, threshold, holders, randbelow=randbelow)
    ciphertexts = []
    for neighbour in map(terms.position, terms.addresses(directory.neighbours[position])):
        both, nonce = (of_self[neighbour], of_mask[neighbour]), random_bytes(NONCE_SIZE)
        sealed = seal_shares(terms.ctx, pairs, position, neighbour, directory.keys[neighbour], directory.record, both, nonce)
        ciphertexts.append({"to": terms.address(neighbour), "ciphertext": to_hex(sealed)})
    payload = {"commitment": to_hex(self_seed_commitment(terms.ctx, position, self_seed)), "ciphertexts": ciphertexts}
    return payload, (of_self[position], of_mask[position])


def open_dealt(directory: KeyDirectory, pairs: KeyPairs, position: int, messages: Mapping[int, Envelope]) -> dict[int, SharePair]:
    """Dealer → shares of (self seed, mask scalar), of every neighbour among the senders of these checked messages.

    Raises:
        InvalidShareError: a ciphertext does not open.
    """
    terms = directory.terms
    opened = {}
    for dealer in sorted(directory.neighbours[position] & messages.keys()):
        sealed = {entry["to"]: entry["ciphertext"] for entry in messages[dealer].payload["ciphertexts"]}[terms.address(position)]
        opened[dealer] = open_shares(
            terms.ctx, pairs, dealer, position, directory.keys[dealer], directory.record, from_hex(sealed), terms.address(dealer)
        )
    return opened
