"""Positional Merkle tree over keccak256 (wire formats, section 2); `PositionalTree.sol` verifies the same proofs.

The index is hashed into the leaf and its bits choose left or right on the way up, so one index has exactly one leaf. In a
sorted-pair tree a prover could commit two leaves for one item, pass an audit with one and sell the other.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from rexis.encoding import abi_encode, domain_tag, keccak256
from rexis.errors import InclusionProofError

SALT_BYTES = 16
MAX_LEAVES = 2**64 - 1
EMPTY = keccak256(domain_tag("empty", 1))
# Context of records that hold on every chain, such as models.
ZERO_CONTEXT = bytes(32)


class LeafKind(StrEnum):
    """What a tree commits to; part of every leaf and of the record."""

    WEIGHT = "weight"
    DATA = "data"
    LABEL = "label"
    ACT = "act"
    OUT = "out"
    SCORE = "score"
    RECEIPT = "receipt"
    UPDATE = "update"
    AUDIT_LOG = "audit-log"
    REWARD = "reward"


_KIND_HASHES = {kind.value: keccak256(domain_tag(f"leaf/{kind.value}", 1)) for kind in LeafKind}


@dataclass(frozen=True)
class Leaf:
    """What stands at one index of a tree.

    Attributes:
        digest: 32 bytes of the item.
        salt: 16 bytes, random (`random_salt`) where the item is guessable, zero for weights. Kept by the owner, out of logs.
        sub: second coordinate: the boundary of an activation, 0 for the other kinds.
    """

    digest: bytes
    salt: bytes = field(default=bytes(SALT_BYTES), repr=False)
    sub: int = 0

    def __post_init__(self) -> None:
        if len(self.digest) != 32 or len(self.salt) != SALT_BYTES or not 0 <= self.sub < 2**64:
            raise ValueError(
                f"a leaf has 32 bytes of digest, {SALT_BYTES} of salt and a sub below 2^64, "
                f"got {len(self.digest)}, {len(self.salt)} and {self.sub}"
            )


def random_salt() -> bytes:
    """16 fresh bytes from the operating system: one per item, never shared between items."""
    return secrets.token_bytes(SALT_BYTES)


def kind_hash(kind: str) -> bytes:
    """keccak256 of the leaf kind's domain tag.

    Raises:
        ValueError: not a `LeafKind`.
    """
    if kind not in _KIND_HASHES:
        raise ValueError(f"expected a leaf kind among {', '.join(_KIND_HASHES)}, got {kind[:40]!r}")
    return _KIND_HASHES[kind]


def chain_context(chain_id: int, contract: str, identifier: bytes) -> bytes:
    """Context that ties leaves to one object (32-byte id) of one contract on one chain.

    Raises:
        EncodingError: a bad address, an id that is not 32 bytes, or a negative chain id.
    """
    return keccak256(abi_encode(["uint256", "address", "bytes32"], [chain_id, contract, identifier]))


def tree_height(n_leaves: int) -> int:
    """Levels above the leaves: the least h with 2^h >= n_leaves; every proof has this many siblings."""
    if not 1 <= n_leaves <= MAX_LEAVES:
        raise ValueError(f"a tree has 1 to 2^64 - 1 leaves, got {n_leaves}: there is no record of nothing")
    return (n_leaves - 1).bit_length()


def leaf_hash(kind: str, context: bytes, index: int, leaf: Leaf) -> bytes:
    """Hash of a leaf: its kind, context and position are inside, so it counts in one place only."""
    return _leaf_hash(_leaf_prefix(kind, context), index, leaf)


def record_of(kind: str, n_leaves: int, root: bytes) -> bytes:
    """The 32 bytes that stand for a tree: a root alone would leave its kind and size open."""
    return keccak256(abi_encode(["bytes32", "uint64", "bytes32"], [kind_hash(kind), n_leaves, root]))


class MerkleTree:
    """Tree over a fixed list of leaves; `items[i]` stands at index i.

    Args:
        kind: a `LeafKind`.
        context: 32 bytes, from `chain_context`, or `ZERO_CONTEXT`.
        items: at least one leaf.

    Raises:
        ValueError: no leaves, an unknown kind, or a context of another size.

    Attributes:
        root: hash at the top of the tree padded with `EMPTY` to a power of two.
        record: what is published: kind, number of leaves and root in one hash.
    """

    def __init__(self, kind: str, context: bytes, items: Sequence[Leaf]) -> None:
        prefix = _leaf_prefix(kind, context)
        height = tree_height(len(items))
        self.kind = kind
        self.context = context
        self.items = tuple(items)
        level = [_leaf_hash(prefix, index, leaf) for index, leaf in enumerate(self.items)]
        self._levels = [level]
        # The padding is never stored: on each level it is one repeated hash.
        self._padding = [EMPTY]
        for _ in range(height):
            padding = self._padding[-1]
            pairs = level if len(level) % 2 == 0 else [*level, padding]
            level = [_node(pairs[i], pairs[i + 1]) for i in range(0, len(pairs), 2)]
            self._levels.append(level)
            self._padding.append(_node(padding, padding))
        self.root = level[0]
        self.record = record_of(kind, len(self.items), self.root)

    def __len__(self) -> int:
        return len(self.items)

    def proof(self, index: int) -> list[bytes]:
        """Siblings from the leaf at `index` up to the root.

        Raises:
            IndexError: no such leaf.
        """
        if not 0 <= index < len(self.items):
            raise IndexError(f"the tree has {len(self.items)} leaves, got index {index}")
        siblings = []
        for level, padding in zip(self._levels[:-1], self._padding, strict=False):
            sibling = index ^ 1
            siblings.append(level[sibling] if sibling < len(level) else padding)
            index >>= 1
        return siblings


def verify_inclusion(kind: str, context: bytes, index: int, leaf: Leaf, n_leaves: int, proof: Sequence[bytes], record: bytes) -> None:
    """Check that `record` commits to `leaf` at `index`.

    Args:
        kind: a `LeafKind`.
        context: 32 bytes.
        index: position, below `n_leaves`.
        leaf: digest, salt and sub of the item.
        n_leaves: number of leaves that the record was made for.
        proof: siblings from the leaf up, 32 bytes each, exactly the height of the tree.
        record: 32 bytes, as published.

    Raises:
        InclusionProofError: anything does not fit; the message says what.
    """
    try:
        prefix = _leaf_prefix(kind, context)
        height = tree_height(n_leaves)
    except ValueError as error:
        raise InclusionProofError(str(error)) from error
    if not 0 <= index < n_leaves:
        raise InclusionProofError(f"expected an index below {n_leaves}, got {index}")
    if len(proof) != height or any(len(sibling) != 32 for sibling in proof):
        raise InclusionProofError(f"expected {height} siblings of 32 bytes for {n_leaves} leaves, got {[len(s) for s in proof[:65]]}")
    node = _leaf_hash(prefix, index, leaf)
    for depth, sibling in enumerate(proof):
        node = _node(sibling, node) if index >> depth & 1 else _node(node, sibling)
    if record_of(kind, n_leaves, node) != record:
        raise InclusionProofError(f"the proof does not lead from this leaf at index {index} of {n_leaves} to record 0x{record.hex()}")


def _leaf_prefix(kind: str, context: bytes) -> bytes:
    if len(context) != 32:
        raise ValueError(f"a context has 32 bytes, got {len(context)}")
    return b"\x00" + kind_hash(kind) + context


def _leaf_hash(prefix: bytes, index: int, leaf: Leaf) -> bytes:
    # abi.encode of six static words, written out: a commitment of 1e5 items must stay cheap beside the forward pass.
    return keccak256(prefix + index.to_bytes(32, "big") + leaf.sub.to_bytes(32, "big") + leaf.digest + leaf.salt + bytes(16))


def _node(left: bytes, right: bytes) -> bytes:
    return keccak256(b"\x01" + left + right)
