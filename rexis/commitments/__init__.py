"""Commitments: tensor digests, positional Merkle trees, records, receipts and shares of rewards. Free of torch."""

from rexis.commitments.digests import DTYPES, TensorDigest, digest_of, tensor_digest
from rexis.commitments.positional_tree import ZERO_CONTEXT, Leaf, LeafKind, MerkleTree, chain_context, random_salt, verify_inclusion
from rexis.commitments.receipts import Receipt, batch_id
from rexis.commitments.rewards import Share, epoch_id, reward_tree
from rexis.commitments.tensor_records import model_root, tensor_tree

__all__ = [
    "DTYPES",
    "ZERO_CONTEXT",
    "Leaf",
    "LeafKind",
    "MerkleTree",
    "Receipt",
    "Share",
    "TensorDigest",
    "batch_id",
    "chain_context",
    "digest_of",
    "epoch_id",
    "model_root",
    "random_salt",
    "reward_tree",
    "tensor_digest",
    "tensor_tree",
    "verify_inclusion",
]
