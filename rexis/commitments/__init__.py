"""Commitments: tensor digests, positional Merkle trees, records and receipts. Free of torch."""

from rexis.commitments.digests import DTYPES, TensorDigest, digest_of, tensor_digest
from rexis.commitments.positional_tree import ZERO_CONTEXT, Leaf, LeafKind, MerkleTree, chain_context, random_salt, verify_inclusion
from rexis.commitments.receipts import Receipt, batch_id
from rexis.commitments.tensor_records import model_root, tensor_tree

__all__ = [
    "DTYPES",
    "ZERO_CONTEXT",
    "Leaf",
    "LeafKind",
    "MerkleTree",
    "Receipt",
    "TensorDigest",
    "batch_id",
    "chain_context",
    "digest_of",
    "model_root",
    "random_salt",
    "tensor_digest",
    "tensor_tree",
    "verify_inclusion",
]
