// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PositionalTree} from "../src/PositionalTree.sol";

/// @dev Gives the library's internal functions an address, for tests in Solidity and in Python.
contract PositionalTreeHarness {
    function empty() external pure returns (bytes32) {
        return PositionalTree.EMPTY;
    }

    function contextOf(uint256 chainId, address target, bytes32 id) external pure returns (bytes32) {
        return PositionalTree.contextOf(chainId, target, id);
    }

    function leaf(bytes32 kind, bytes32 context, uint64 index, uint64 sub, bytes32 digest, bytes16 salt)
        external
        pure
        returns (bytes32)
    {
        return PositionalTree.leaf(kind, context, index, sub, digest, salt);
    }

    function node(bytes32 left, bytes32 right) external pure returns (bytes32) {
        return PositionalTree.node(left, right);
    }

    function record(bytes32 kind, uint64 nLeaves, bytes32 root) external pure returns (bytes32) {
        return PositionalTree.record(kind, nLeaves, root);
    }

    function height(uint64 nLeaves) external pure returns (uint256) {
        return PositionalTree.height(nLeaves);
    }

    function rootOf(uint64 index, bytes32 leafHash, bytes32[] calldata proof) external pure returns (bytes32) {
        return PositionalTree.rootOf(index, leafHash, proof);
    }

    function verify(
        bytes32 expectedRecord,
        bytes32 kind,
        uint64 nLeaves,
        uint64 index,
        bytes32 leafHash,
        bytes32[] calldata proof
    ) external pure {
        PositionalTree.verify(expectedRecord, kind, nLeaves, index, leafHash, proof);
    }
}
