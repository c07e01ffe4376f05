// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Positional Merkle trees (wire formats, section 2)
/// @notice A leaf holds its own position, type and context, so a proof for one index, tree or contract never serves another.
/// The record binds type, number of leaves and root; that is what other structures store and sign.
/// @dev leaf   = keccak256(0x00 ‖ abi.encode(kind, context, index, sub, digest, salt))
///      node   = keccak256(0x01 ‖ left ‖ right), padded to 2^h leaves with EMPTY
///      record = keccak256(abi.encode(kind, nLeaves, root))
library PositionalTree {
    /// @notice Padding for the places after the last leaf: keccak256("rexis/empty/1").
    bytes32 internal constant EMPTY = keccak256("rexis/empty/1");

    /// @notice The index lies outside the tree, so no proof can exist.
    error LeafOutOfRange(uint64 index, uint64 nLeaves);

    /// @notice A tree of this many leaves has proofs of exactly `expected` siblings.
    error ProofLengthMismatch(uint256 expected, uint256 got);

    /// @notice The proof leads to another record than the given one.
    error RecordMismatch(bytes32 expected, bytes32 got);

    /// @notice Context that binds a tree to one chain, contract and subject; records that hold on every chain use zero.
    function contextOf(uint256 chainId, address target, bytes32 id) internal pure returns (bytes32) {
        return keccak256(abi.encode(chainId, target, id));
    }

    /// @notice Hash of one leaf. The prefix 0x00 keeps leaves apart from nodes, so neither passes for the other.
    /// @param kind keccak256("rexis/leaf/<type>/1").
    /// @param sub Position inside the item (such as the layer boundary of an activation), else 0.
    /// @param salt 16 random bytes where the content can be guessed, else zero.
    function leaf(bytes32 kind, bytes32 context, uint64 index, uint64 sub, bytes32 digest, bytes16 salt)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(bytes.concat(hex"00", abi.encode(kind, context, index, sub, digest, salt)));
    }

    /// @notice Hash of an inner node; order matters, which is what makes the tree positional.
    function node(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(hex"01", left, right));
    }

    /// @notice The value that is stored and signed in place of the bare root, so that the number of leaves can not be disputed.
    function record(bytes32 kind, uint64 nLeaves, bytes32 root) internal pure returns (bytes32) {
        return keccak256(abi.encode(kind, nLeaves, root));
    }

    /// @notice Height h of the smallest full tree with at least `nLeaves` places: every proof has exactly h siblings.
    function height(uint64 nLeaves) internal pure returns (uint256 h) {
        while (uint256(1) << h < nLeaves) ++h;
    }

    /// @notice Root that a leaf and its siblings lead to; bit i of the index says on which side level i stands.
    function rootOf(uint64 index, bytes32 leafHash, bytes32[] calldata proof) internal pure returns (bytes32 root) {
        root = leafHash;
        uint256 position = index;
        for (uint256 level = 0; level < proof.length; ++level) {
            root = position & 1 == 0 ? node(root, proof[level]) : node(proof[level], root);
            position >>= 1;
        }
    }

    /// @notice Reverts unless `leafHash` stands at `index` in the tree that `expectedRecord` commits to.
    /// @dev Keeps: at most one leaf hash verifies for a record and an index; padding is never proven.
    function verify(
        bytes32 expectedRecord,
        bytes32 kind,
        uint64 nLeaves,
        uint64 index,
        bytes32 leafHash,
        bytes32[] calldata proof
    ) internal pure {
        if (index >= nLeaves) revert LeafOutOfRange(index, nLeaves);
        uint256 h = height(nLeaves);
        if (proof.length != h) revert ProofLengthMismatch(h, proof.length);
        bytes32 got = record(kind, nLeaves, rootOf(index, leafHash, proof));
        if (got != expectedRecord) revert RecordMismatch(expectedRecord, got);
    }
}
