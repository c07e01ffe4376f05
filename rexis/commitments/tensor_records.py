"""One record for a set of named tensors (wire formats, section 1): models first, and every file that carries tensors."""

from collections.abc import Mapping
from typing import Any

from rexis.commitments.digests import tensor_digest
from rexis.commitments.positional_tree import ZERO_CONTEXT, Leaf, LeafKind, MerkleTree


def tensor_tree(kind: str, spec_digest: bytes, digests: Mapping[str, bytes]) -> MerkleTree:
    """Tree whose leaf 0 is the spec's digest and leaf i the i-th tensor by UTF-8 name; salts and context are zero.

    Args:
        kind: `weight` for models, `update`, `data` or `out` for the other tensor files.
        spec_digest: 32 bytes; it fixes names and shapes, so that leaves need no names.
        digests: `tensor_digest` of each tensor by name.

    Raises:
        ValueError: no tensors, or a digest of another size.
    """
    if not digests:
        raise ValueError("a tensor record needs at least one tensor, got none")
    return MerkleTree(kind, ZERO_CONTEXT, [Leaf(spec_digest), *(Leaf(digests[name]) for name in sorted(digests, key=_utf8))])


def model_root(spec_digest: bytes, tensors: Mapping[str, Any]) -> bytes:
    """The model record (32 bytes): what is registered on chain and named by receipts and certificates.

    Args:
        spec_digest: digest of the model spec (`rexis.models.spec.ModelSpec.digest`), 32 bytes.
        tensors: numpy arrays or torch tensors by name.

    Raises:
        EncodingError: a tensor without canonical form (NaN, infinity, unknown dtype).
        ValueError: no tensors.
    """
    return tensor_tree(LeafKind.WEIGHT, spec_digest, {name: tensor_digest(tensor) for name, tensor in tensors.items()}).record


def _utf8(name: str) -> bytes:
    return name.encode("utf-8")
