"""Sections 1 to 3 of the wire formats against their vectors."""

import json
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from rexis.commitments import (
    ZERO_CONTEXT,
    Leaf,
    MerkleTree,
    Receipt,
    TensorDigest,
    batch_id,
    chain_context,
    digest_of,
    model_root,
    random_salt,
    tensor_digest,
    tensor_tree,
    verify_inclusion,
)
from rexis.commitments.digests import CHUNK_BYTES, DTYPES
from rexis.commitments.positional_tree import EMPTY, LeafKind, kind_hash, leaf_hash, record_of
from rexis.encoding import abi_encode, from_hex, keccak256, to_hex
from rexis.errors import EncodingError, InclusionProofError, MalformedMessageError
from rexis.models.spec import ModelSpec

DIRECTORY = Path(__file__).parents[1] / "vectors"


def vectors(name):
    return json.loads((DIRECTORY / name).read_text(encoding="utf-8"))


TENSORS = vectors("tensors.json")
TREES = vectors("positional_tree.json")
KINDS = vectors("tree_kinds.json")
RECEIPTS = vectors("receipt.json")
DIGESTS = vectors("tensor_digest.json")["vectors"] + TENSORS["vectors"]


def named(items):
    return {"argvalues": items, "ids": [item["name"] for item in items]}


@pytest.mark.parametrize("vector", **named(DIGESTS))
def test_tensor_digests_equal_the_reference(vector):
    data = bytes.fromhex(vector["bytes_hex_as_given"])
    assert to_hex(digest_of(vector["dtype"], vector["shape"], data)) == vector["digest"]
    streamed = TensorDigest(vector["dtype"], vector["shape"])
    for byte in data:
        streamed.update(bytes([byte]))
    assert to_hex(streamed.digest()) == vector["digest"]


@pytest.mark.parametrize("vector", **named([vector for vector in DIGESTS if vector["dtype"] != "bf16"]))
def test_numpy_arrays_have_the_same_digests(vector):
    bits = DTYPES[vector["dtype"]].bits
    array = np.frombuffer(bytes.fromhex(vector["bytes_hex_as_given"]), bits).reshape(vector["shape"])
    assert to_hex(tensor_digest(array)) == vector["digest"]
    assert to_hex(tensor_digest(array.astype(bits.newbyteorder(">")))) == vector["digest"]
    assert to_hex(tensor_digest(np.array(array, order="F"))) == vector["digest"]


@pytest.mark.parametrize("vector", **named(TENSORS["refused"]))
def test_tensors_without_canonical_form_are_refused(vector):
    with pytest.raises(EncodingError):
        digest_of(vector["dtype"], vector["shape"], bytes.fromhex(vector["bytes_hex"]))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_torch_tensors_of_every_float_dtype(dtype):
    import torch

    tensor = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float32).to(getattr(torch, dtype))
    negative, positive = tensor.clone(), tensor.clone()
    negative[1, 2, 0], positive[1, 2, 0] = -0.0, 0.0
    assert tensor_digest(negative) == tensor_digest(positive) != tensor_digest(tensor)
    assert tensor_digest(tensor.permute(2, 0, 1)) == tensor_digest(tensor.permute(2, 0, 1).contiguous())
    assert tensor_digest(tensor[::2]) == tensor_digest(tensor[::2].clone())
    assert tensor_digest(torch.nn.Parameter(tensor)) == tensor_digest(tensor)
    for bad in (float("nan"), float("inf"), float("-inf")):
        tensor[4, 6, 2] = bad
        with pytest.raises(EncodingError, match="NaN or infinity"):
            tensor_digest(tensor)


def test_bf16_of_torch_equals_its_raw_bytes():
    import torch

    vector = next(vector for vector in DIGESTS if vector["name"] == "bf16_values")
    tensor = torch.tensor([[1.0, -2.0], [0.0, -8.0625]], dtype=torch.bfloat16)
    tensor[1, 1] = -12.0
    raw = bytes.fromhex(vector["bytes_hex_as_given"])
    given = torch.frombuffer(bytearray(raw), dtype=torch.bfloat16).reshape(2, 2)
    assert to_hex(tensor_digest(given)) == vector["digest"]
    assert tensor_digest(tensor) != tensor_digest(given)


@pytest.mark.parametrize("array", [np.zeros(2, np.uint16), np.zeros(2, np.uint64), np.zeros(2, complex), np.array(["a"]), np.array([None])])
def test_dtypes_without_wire_name_are_refused(array):
    with pytest.raises(EncodingError, match="cast it first"):
        tensor_digest(array)


@pytest.mark.parametrize("value", [[1.0], 1.0, b"", None])
def test_what_is_no_tensor_is_a_type_error(value):
    with pytest.raises(TypeError):
        tensor_digest(value)


def test_a_large_tensor_is_digested_in_chunks_and_not_copied():
    import tracemalloc

    array = np.zeros(32 * CHUNK_BYTES // 4, np.float32)
    array[::3] = -0.0
    tracemalloc.start()
    digest = tensor_digest(array)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * CHUNK_BYTES
    assert digest == tensor_digest(np.zeros_like(array))


def test_a_negative_zero_or_nan_is_found_in_every_chunk():
    array = np.ones(3 * CHUNK_BYTES // 4 + 5, np.float32)
    for index in (0, CHUNK_BYTES // 4 - 1, CHUNK_BYTES // 4, array.size - 1):
        array[index] = np.nan
        with pytest.raises(EncodingError):
            tensor_digest(array)
        array[index] = -0.0
        negative = tensor_digest(array)
        array[index] = 0.0
        assert tensor_digest(array) == negative
        array[index] = 1.0


def test_model_record_equals_the_reference():
    model = TENSORS["model"]
    spec_digest = from_hex(model["specDigest"], 32)
    assert ModelSpec.parse(model["spec"]).digest() == spec_digest
    tensors = {item["name"]: np.array(item["values"], np.float32).reshape(item["shape"]) for item in model["tensors"]}
    for item in model["tensors"]:
        assert to_hex(tensor_digest(tensors[item["name"]])) == item["digest"]
    assert to_hex(model_root(spec_digest, tensors)) == model["record"]
    assert to_hex(model_root(spec_digest, dict(reversed(tensors.items())))) == model["record"]


def test_a_model_record_binds_spec_names_and_tensors():
    spec, arrays = bytes(32), {"a": np.ones(2, np.float32), "b": np.zeros(2, np.float32)}
    record = model_root(spec, arrays)
    changed = [
        model_root(bytes([1]) + bytes(31), arrays),
        model_root(spec, {"a": arrays["b"], "b": arrays["a"]}),
        model_root(spec, {"a": arrays["a"]}),
        model_root(spec, {**arrays, "c": arrays["b"]}),
        model_root(spec, {**arrays, "b": np.zeros(2, np.float64)}),
        model_root(spec, {**arrays, "b": np.zeros((2, 1), np.float32)}),
    ]
    assert record not in changed
    assert len(set(changed)) == len(changed)


def test_there_is_no_record_of_nothing():
    with pytest.raises(ValueError, match="at least one tensor"):
        model_root(bytes(32), {})
    with pytest.raises(ValueError, match="no record of nothing"):
        MerkleTree("data", ZERO_CONTEXT, [])
    with pytest.raises(InclusionProofError):
        verify_inclusion("data", ZERO_CONTEXT, 0, Leaf(bytes(32)), 0, [], record_of("data", 0, EMPTY))


def test_constants_of_the_tree():
    assert to_hex(EMPTY) == TREES["empty"]
    assert to_hex(kind_hash("receipt")) == TREES["kind_receipt"]
    context = TREES["context"]
    assert to_hex(chain_context(context["chainId"], context["contract"], from_hex(context["id"], 32))) == context["value"]


def leaves_of(tree):
    subs = tree.get("subs", [0] * tree["n"])
    return [Leaf(from_hex(d, 32), from_hex(s, 16), sub) for d, s, sub in zip(tree["digests"], tree["salts"], subs, strict=True)]


@pytest.mark.parametrize("tree", TREES["trees"] + KINDS["trees"], ids=lambda tree: f"{tree['type']}-{tree['n']}")
def test_trees_equal_the_reference(tree):
    context, leaves = from_hex(tree["context"], 32), leaves_of(tree)
    made = MerkleTree(tree["type"], context, leaves)
    assert len(made) == tree["n"]
    assert [to_hex(leaf_hash(tree["type"], context, i, leaf)) for i, leaf in enumerate(leaves)] == tree["leaves"]
    assert to_hex(made.root) == tree["root"]
    assert to_hex(made.record) == tree["record"]
    for index, proof in enumerate(tree["proofs"]):
        assert [to_hex(sibling) for sibling in made.proof(index)] == proof
        verify_inclusion(tree["type"], context, index, leaves[index], tree["n"], made.proof(index), made.record)


def test_every_kind_has_vectors():
    assert {tree["type"] for tree in KINDS["trees"]} == {kind.value for kind in LeafKind}


def test_the_leaf_written_out_is_abi_encode():
    leaf = Leaf(random_salt() * 2, random_salt(), 2**64 - 1)
    types = ["bytes32", "bytes32", "uint64", "uint64", "bytes32", "bytes16"]
    encoded = abi_encode(types, [kind_hash("act"), EMPTY, 2**64 - 2, leaf.sub, leaf.digest, leaf.salt])
    assert leaf_hash("act", EMPTY, 2**64 - 2, leaf) == keccak256(b"\x00" + encoded)


def unchecked(text):
    return bytes.fromhex(text[2:])


def verify_vector(vector):
    leaf = Leaf(unchecked(vector["digest"]), unchecked(vector["salt"]), vector["sub"])
    proof = [unchecked(sibling) for sibling in vector["proof"]]
    context, record = unchecked(vector["context"]), unchecked(vector["record"])
    verify_inclusion(vector["type"], context, vector["index"], leaf, vector["nLeaves"], proof, record)


def test_the_honest_opening_is_accepted():
    verify_vector(KINDS["accepted"])


@pytest.mark.parametrize("vector", **named(KINDS["refused"]))
def test_forged_openings_are_refused(vector):
    with pytest.raises(InclusionProofError):
        verify_vector(vector)


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_proof_outside_the_tree(index):
    with pytest.raises(IndexError):
        MerkleTree("data", ZERO_CONTEXT, [Leaf(bytes(32))] * 3).proof(index)


def test_leaves_of_another_size_are_the_callers_mistake():
    for arguments in ((bytes(31),), (bytes(32), bytes(15)), (bytes(32), bytes(16), 2**64), (bytes(32), bytes(16), -1)):
        with pytest.raises(ValueError, match="a leaf has"):
            Leaf(*arguments)
    with pytest.raises(ValueError, match="leaf kind"):
        MerkleTree("weights", ZERO_CONTEXT, [Leaf(bytes(32))])


def test_salts_stay_out_of_logs():
    salt = random_salt()
    receipt = Receipt.parse(RECEIPTS["receipt"])
    assert salt.hex() not in repr(Leaf(bytes(32), salt))
    assert repr(receipt.salt) not in repr(receipt)


def test_receipt_equals_the_reference():
    receipt = Receipt.parse(RECEIPTS["receipt"])
    assert receipt.to_json() == RECEIPTS["receipt"]
    assert receipt.issued == datetime(2026, 11, 21, 3, 34, tzinfo=UTC)
    assert to_hex(receipt.digest) == RECEIPTS["digest"]
    batch = RECEIPTS["batch"]
    place = (RECEIPTS["chainId"], batch["contract"], batch["operator"], batch["owner"], from_hex(batch["model"], 32), batch["sequence"])
    assert to_hex(batch_id(*place)) == batch["id"]
    context = chain_context(RECEIPTS["chainId"], batch["contract"], from_hex(batch["id"], 32))
    assert to_hex(context) == batch["context"]
    proof = [from_hex(sibling, 32) for sibling in batch["proofs"][0]]
    verify_inclusion("receipt", context, 0, receipt.leaf(), batch["n"], proof, from_hex(batch["record"], 32))
    batched = replace(receipt, batch=from_hex(batch["id"], 32), index=0)
    assert Receipt.parse(batched.to_json()) == batched
    assert batched.digest == receipt.digest


@pytest.mark.parametrize("vector", **named(RECEIPTS["refused"]))
def test_malformed_receipts_are_refused(vector):
    with pytest.raises(MalformedMessageError):
        Receipt.parse(vector["receipt"])


@pytest.mark.parametrize("value", [None, [], "receipt", 1, {}])
def test_what_is_no_receipt_is_refused(value):
    with pytest.raises(MalformedMessageError):
        Receipt.parse(value)


def test_tensor_trees_take_names_in_utf8_order():
    digests = {name: struct.pack("<Q", i) * 4 for i, name in enumerate(("z", "Z", "a.b", "a", "é"))}
    tree = tensor_tree("update", bytes(32), digests)
    assert [leaf.digest for leaf in tree.items[1:]] == [digests[name] for name in ("Z", "a", "a.b", "z", "é")]
