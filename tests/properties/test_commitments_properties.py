"""Laws of digests, trees and records: whatever is changed, it is refused or has another record."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rexis.commitments import ZERO_CONTEXT, Leaf, LeafKind, MerkleTree, TensorDigest, digest_of, tensor_digest, verify_inclusion
from rexis.commitments.digests import DTYPES, tensor_bytes
from rexis.commitments.positional_tree import EMPTY, leaf_hash, record_of
from rexis.encoding import keccak256
from rexis.errors import EncodingError, InclusionProofError

DIGEST = st.binary(min_size=32, max_size=32)
SALT = st.binary(min_size=16, max_size=16)
LEAF = st.builds(Leaf, DIGEST, SALT, st.integers(0, 2**64 - 1))
CONTEXT = st.just(ZERO_CONTEXT) | DIGEST
KIND = st.sampled_from([kind.value for kind in LeafKind])
TREE = st.builds(MerkleTree, KIND, CONTEXT, st.lists(LEAF, min_size=1, max_size=20))


def opening(tree, index):
    return {
        "kind": tree.kind,
        "context": tree.context,
        "index": index,
        "leaf": tree.items[index],
        "n_leaves": len(tree),
        "proof": tree.proof(index),
        "record": tree.record,
    }


def refuse(honest, **change):
    with pytest.raises(InclusionProofError):
        verify_inclusion(**{**honest, **change})


def flips(data):
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_every_bit_of_an_opening_counts():
    items = [Leaf(keccak256(bytes([i])), keccak256(bytes([i]))[:16], i) for i in range(6)]
    tree = MerkleTree("act", keccak256(b"context"), items)
    honest = opening(tree, 4)
    verify_inclusion(**honest)
    leaf = honest["leaf"]
    for digest in flips(leaf.digest):
        refuse(honest, leaf=Leaf(digest, leaf.salt, leaf.sub))
    for salt in flips(leaf.salt):
        refuse(honest, leaf=Leaf(leaf.digest, salt, leaf.sub))
    for context in flips(honest["context"]):
        refuse(honest, context=context)
    for record in flips(honest["record"]):
        refuse(honest, record=record)
    for depth, sibling in enumerate(honest["proof"]):
        for changed in flips(sibling):
            refuse(honest, proof=[*honest["proof"][:depth], changed, *honest["proof"][depth + 1 :]])
    for bit in range(64):
        refuse(honest, leaf=Leaf(leaf.digest, leaf.salt, leaf.sub ^ 1 << bit))
        refuse(honest, index=4 ^ 1 << bit)
        refuse(honest, n_leaves=6 ^ 1 << bit)
    for kind in LeafKind:
        if kind != "act":
            refuse(honest, kind=kind.value)


@given(TREE, st.data())
@settings(max_examples=60, deadline=None)
def test_a_proof_for_one_index_never_verifies_for_another(tree, data):
    i = data.draw(st.integers(0, len(tree) - 1))
    honest = opening(tree, i)
    verify_inclusion(**honest)
    for j in range(-2, 2 * len(tree) + 2):
        if j != i:
            refuse(honest, index=j)
            if 0 <= j < len(tree):
                refuse(honest, index=j, leaf=tree.items[j])
                refuse(honest, leaf=tree.items[j]) if tree.items[j] != tree.items[i] else verify_inclusion(**honest)


@given(LEAF, st.integers(2, 9), st.data())
@settings(max_examples=40, deadline=None)
def test_equal_items_have_different_leaves_and_proofs_of_their_own(leaf, n, data):
    tree = MerkleTree("data", ZERO_CONTEXT, [leaf] * n)
    i, j = data.draw(st.permutations(range(n)))[:2]
    refuse(opening(tree, i), index=j)
    assert leaf_hash("data", ZERO_CONTEXT, i, leaf) != leaf_hash("data", ZERO_CONTEXT, j, leaf)


@given(TREE, st.integers(0, 2**70), st.data())
@settings(max_examples=60, deadline=None)
def test_another_number_of_leaves_is_refused(tree, n_leaves, data):
    honest = opening(tree, data.draw(st.integers(0, len(tree) - 1)))
    for n in (n_leaves, len(tree) - 1, len(tree) + 1, 2 * len(tree)):
        if n != len(tree):
            refuse(honest, n_leaves=n)


@given(TREE, DIGEST, st.data())
@settings(max_examples=60, deadline=None)
def test_shortened_lengthened_and_reordered_proofs_are_refused(tree, extra, data):
    honest = opening(tree, data.draw(st.integers(0, len(tree) - 1)))
    proof = honest["proof"]
    changed = [proof[:k] for k in range(len(proof))] + [proof[k:] for k in range(1, len(proof) + 1)]
    changed += [[*proof, extra], [extra, *proof], [*proof, EMPTY], [*proof, *proof, extra], [sibling[:-1] for sibling in proof] or [b""]]
    changed.append(data.draw(st.permutations(proof)))
    for other in changed:
        if other != proof:
            refuse(honest, proof=other)


@given(st.lists(LEAF, min_size=2, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_swaps_truncations_and_duplicates_change_the_record(items, data):
    record = MerkleTree("data", ZERO_CONTEXT, items).record
    i, j = sorted(data.draw(st.permutations(range(len(items))))[:2])
    swapped = [*items[:i], items[j], *items[i + 1 : j], items[i], *items[j + 1 :]]
    changed = [items[:-1], items[1:], [*items, items[-1]], [items[0], *items], items[:i] + items[i + 1 :], items * 2]
    changed += [swapped] if items[i] != items[j] else []
    for other in changed:
        assert MerkleTree("data", ZERO_CONTEXT, other).record != record
    assert MerkleTree("out", ZERO_CONTEXT, items).record != record
    assert MerkleTree("data", EMPTY, items).record != record


@given(st.lists(LEAF, min_size=3, max_size=12), st.integers(0, 11), SALT)
@settings(max_examples=60, deadline=None)
def test_an_inner_node_is_no_leaf(items, index, salt):
    tree = MerkleTree("data", ZERO_CONTEXT, items)
    index %= len(items)
    honest = opening(tree, index)
    # The parent of a pair, offered as an item of the smaller tree above the pairs.
    left, right = (leaf_hash("data", ZERO_CONTEXT, i, items[i]) if i < len(items) else EMPTY for i in (index & ~1, index | 1))
    parent = keccak256(b"\x01" + left + right)
    for n_leaves in (len(items), (len(items) + 1) // 2):
        for leaf in (Leaf(parent), Leaf(parent, salt), Leaf(tree.root), Leaf(left)):
            refuse(honest, index=index // 2, n_leaves=n_leaves, leaf=leaf, proof=honest["proof"][1:])
            refuse(honest, index=index // 2, n_leaves=n_leaves, leaf=leaf, proof=honest["proof"])


@given(st.lists(LEAF, min_size=3, max_size=12), st.integers(0, 11))
@settings(max_examples=40, deadline=None)
def test_a_prover_can_not_hide_a_taller_tree_behind_a_record(items, index):
    # The committer is the attacker: the record says two leaves, the root is that of a taller tree, so index 0 would have several leaves.
    tree, index = MerkleTree("data", ZERO_CONTEXT, items), index % 2
    record = record_of("data", 2, tree.root)
    refuse(opening(tree, index), n_leaves=2, record=record)
    refuse(opening(tree, index), n_leaves=1, index=0, record=record_of("data", 1, tree.root))


@given(LEAF, st.integers(0, 1), st.sampled_from([0, 31, 33, 64]))
@settings(max_examples=20, deadline=None)
def test_a_prover_can_not_use_siblings_of_another_size(leaf, index, size):
    sibling, own = bytes(size), leaf_hash("data", ZERO_CONTEXT, index, leaf)
    root = keccak256(b"\x01" + (sibling + own if index else own + sibling))
    with pytest.raises(InclusionProofError, match="32 bytes"):
        verify_inclusion("data", ZERO_CONTEXT, index, leaf, 2, [sibling], record_of("data", 2, root))


@given(TREE, KIND, CONTEXT, st.data())
@settings(max_examples=60, deadline=None)
def test_a_leaf_of_another_kind_context_or_tree_is_refused(tree, kind, context, data):
    honest = opening(tree, data.draw(st.integers(0, len(tree) - 1)))
    other = MerkleTree(kind, context, tree.items)
    if (kind, context) != (tree.kind, tree.context):
        refuse(honest, kind=kind, context=context)
        refuse(honest, record=other.record)
        refuse(opening(other, honest["index"]), record=tree.record)
    refuse(honest, record=tree.root)


@given(st.sampled_from(sorted(DTYPES)), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), st.data())
@settings(max_examples=120, deadline=None)
def test_a_changed_bit_of_a_tensor_is_refused_or_another_digest(dtype, shape, data):
    size = tensor_bytes(dtype, shape)
    raw = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    try:
        digest = digest_of(dtype, shape, raw)
    except EncodingError:
        assert DTYPES[dtype].sign or dtype == "bool"
        return
    streamed = TensorDigest(dtype, shape)
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=6)))
    for start, end in zip([0, *cuts], [*cuts, size], strict=True):
        streamed.update(memoryview(raw)[start:end])
    assert streamed.digest() == digest
    for other in (sorted(DTYPES)[0], (*shape, 1), (1, *shape), shape[::-1]):
        changed = (other, shape) if isinstance(other, str) else (dtype, other)
        if changed != (dtype, shape) and tensor_bytes(*changed) == size:
            assert outcome(*changed, raw) != digest
    if size:
        bit = data.draw(st.integers(0, 8 * size - 1))
        width = DTYPES[dtype].size
        start = bit // 8 // width * width
        magnitude = int.from_bytes(raw[start : start + width], "little") & ~DTYPES[dtype].sign
        raw[bit // 8] ^= 1 << bit % 8
        sign_of_zero = DTYPES[dtype].sign and not magnitude and bit % (8 * width) == 8 * width - 1
        assert (outcome(dtype, shape, raw) == digest) == bool(sign_of_zero)


def outcome(dtype, shape, raw):
    try:
        return digest_of(dtype, shape, raw)
    except EncodingError:
        return None


@given(
    hnp.arrays(
        st.sampled_from(["<f8", ">f4", "<f2", ">i8", "<i4", "<i2", "i1", "u1", "?"]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
    ),
    st.data(),
)
@settings(max_examples=80, deadline=None)
def test_layout_and_byte_order_do_not_matter(array, data):
    if array.dtype.kind == "f":
        array = np.nan_to_num(array, nan=-0.0, posinf=1.0, neginf=-0.0)
    axes = data.draw(st.permutations(range(array.ndim)))
    steps = tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1]))) for _ in axes)
    view = array.transpose(axes)[steps]
    plain = np.ascontiguousarray(view).astype(view.dtype.newbyteorder("<")).reshape(view.shape)
    assert tensor_digest(view) == tensor_digest(plain)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_single_floats_agree_with_struct(pattern):
    raw = struct.pack("<I", pattern)
    (value,) = struct.unpack("<f", raw)
    if value != value or value in (float("inf"), float("-inf")):
        assert outcome("f32", (), raw) is None
    else:
        assert outcome("f32", (), raw) == digest_of("f32", (), struct.pack("<f", value + 0.0))
