// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PositionalTree} from "../src/PositionalTree.sol";

/// @dev Trees of shares, built the slow way, level by level.
library RewardTree {
    bytes32 private constant KIND = keccak256("rexis/leaf/reward/1");

    function saltOf(uint256 index) internal pure returns (bytes16) {
        return bytes16(keccak256(abi.encode("salt", index)));
    }

    function recordOf(bytes32 context, address[] memory accounts, uint256[] memory amounts) internal pure returns (bytes32) {
        bytes32[] memory level = _leaves(context, accounts, amounts);
        while (level.length > 1) {
            level = _above(level);
        }
        return PositionalTree.record(KIND, uint64(accounts.length), level[0]);
    }

    function proofOf(bytes32 context, address[] memory accounts, uint256[] memory amounts, uint256 index)
        internal
        pure
        returns (bytes32[] memory proof)
    {
        bytes32[] memory level = _leaves(context, accounts, amounts);
        proof = new bytes32[](PositionalTree.height(uint64(accounts.length)));
        for (uint256 depth = 0; depth < proof.length; ++depth) {
            proof[depth] = level[index ^ 1];
            level = _above(level);
            index >>= 1;
        }
    }

    function _leaves(bytes32 context, address[] memory accounts, uint256[] memory amounts)
        private
        pure
        returns (bytes32[] memory level)
    {
        level = new bytes32[](1 << PositionalTree.height(uint64(accounts.length)));
        for (uint64 i = 0; i < level.length; ++i) {
            level[i] = i < accounts.length
                ? PositionalTree.leaf(KIND, context, i, 0, keccak256(abi.encode(accounts[i], amounts[i])), saltOf(i))
                : PositionalTree.EMPTY;
        }
    }

    function _above(bytes32[] memory level) private pure returns (bytes32[] memory above) {
        above = new bytes32[](level.length / 2);
        for (uint256 i = 0; i < above.length; ++i) {
            above[i] = PositionalTree.node(level[2 * i], level[2 * i + 1]);
        }
    }
}
