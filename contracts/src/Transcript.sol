// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Transcript of an evaluation, and the seed that follows from it (wire formats, section 9)
/// @notice SHA-256, so that anybody recomputes it without a chain, in any language.
/// @dev T_0     = SHA-256("rexis/transcript/1" ‖ abi.encode(chainId, registry, evaluation))
///      T_(k+1) = SHA-256(T_k ‖ tag ‖ u64le(32) ‖ value)
///      seed    = SHA-256(T_end ‖ beacon ‖ nonces)
library Transcript {
    function start(uint256 chainId, address registry, bytes32 evaluation) internal pure returns (bytes32) {
        return sha256(bytes.concat("rexis/transcript/1", abi.encode(chainId, registry, evaluation)));
    }

    /// @notice Takes in one value under its name.
    function absorb(bytes32 digest, bytes memory tag, bytes32 value) internal pure returns (bytes32) {
        return sha256(bytes.concat(digest, tag, hex"2000000000000000", value));
    }

    /// @param nonces In ascending order of their parties' addresses.
    function seed(bytes32 digest, bytes32 beacon, bytes32[] memory nonces) internal pure returns (bytes32) {
        // Words without length: the parties are in the evaluation's id, so their number is fixed.
        return sha256(abi.encodePacked(digest, beacon, nonces));
    }
}
