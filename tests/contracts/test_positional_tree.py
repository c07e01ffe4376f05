"""The library on chain, the Python tree and the independent vectors agree on every byte."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import ContractLogicError

from rexis.chain.reverts import decode_revert
from rexis.commitments.positional_tree import Leaf, LeafKind, MerkleTree, chain_context, kind_hash, leaf_hash
from rexis.encoding import from_hex

VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.fixture
def library(deploy_test_contract: Callable[..., Contract]) -> Any:
    return deploy_test_contract("PositionalTreeHarness").functions


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(ContractLogicError) as caught:
        call()
    error = decode_revert(bytes.fromhex(str(caught.value.data).removeprefix("0x")))
    return error.contract, error.error


@pytest.mark.parametrize("file", ["positional_tree.json", "tree_kinds.json"])
def test_the_library_reproduces_the_vectors(file: str, library: Any) -> None:
    vectors = json.loads((VECTORS / file).read_text())
    for tree in vectors["trees"]:
        kind, context, n = kind_hash(tree["type"]), from_hex(tree["context"], 32), tree["n"]
        subs = tree.get("subs", [0] * n)
        for index in range(n):
            digest, salt = from_hex(tree["digests"][index], 32), from_hex(tree["salts"][index], 16)
            leaf = library.leaf(kind, context, index, subs[index], digest, salt).call()
            assert leaf == from_hex(tree["leaves"][index], 32)
            proof = [from_hex(sibling, 32) for sibling in tree["proofs"][index]]
            library.verify(from_hex(tree["record"], 32), kind, n, index, leaf, proof).call()
        assert library.record(kind, n, from_hex(tree["root"], 32)).call() == from_hex(tree["record"], 32)


def test_constants_and_context_equal_the_vectors(library: Any) -> None:
    vectors = json.loads((VECTORS / "positional_tree.json").read_text())
    context = vectors["context"]
    place = Web3.to_checksum_address(context["contract"].lower())
    identifier, value = from_hex(context["id"], 32), from_hex(context["value"], 32)
    assert library.empty().call() == from_hex(vectors["empty"], 32)
    assert library.contextOf(context["chainId"], place, identifier).call() == value
    assert chain_context(context["chainId"], place, identifier) == value


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(list(LeafKind)),
    context=st.binary(min_size=32, max_size=32),
    digests=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=33),
    salt=st.binary(min_size=16, max_size=16),
    sub=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_python_and_solidity_agree(
    library: Any, kind: LeafKind, context: bytes, digests: list[bytes], salt: bytes, sub: int, data: st.DataObject
) -> None:
    tree = MerkleTree(kind, context, [Leaf(digest, salt, sub) for digest in digests])
    n, index = len(digests), data.draw(st.integers(0, len(digests) - 1))
    leaf = leaf_hash(kind, context, index, tree.items[index])
    proof = tree.proof(index)
    assert library.leaf(kind_hash(kind), context, index, sub, digests[index], salt).call() == leaf
    assert library.height(n).call() == len(proof)
    library.verify(tree.record, kind_hash(kind), n, index, leaf, proof).call()

    flipped = bytearray(leaf)
    bit = data.draw(st.integers(0, 255))
    flipped[bit // 8] ^= 1 << bit % 8
    verify = library.verify
    wrong = ("PositionalTree", "RecordMismatch")
    assert refused(lambda: verify(tree.record, kind_hash(kind), n, index, bytes(flipped), proof).call()) == wrong
    assert refused(lambda: verify(tree.record, kind_hash(kind), n, n, leaf, proof).call()) == ("PositionalTree", "LeafOutOfRange")
    too_long = [*proof, bytes(32)]
    assert refused(lambda: verify(tree.record, kind_hash(kind), n, index, leaf, too_long).call()) == (
        "PositionalTree",
        "ProofLengthMismatch",
    )
    if proof:
        assert refused(lambda: verify(tree.record, kind_hash(kind), n, index ^ 1, leaf, proof).call())[1] in (
            "RecordMismatch",
            "LeafOutOfRange",
        )
