// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title Several signatures over one digest
/// @notice What m of n sign, each wherever he is, anybody hands in at once. Lists of addresses ascend strictly, so that none has
/// duplicates and each set has one form.
library Quorum {
    /// @notice One signer's signature of 65 bytes, or what its wallet accepts (ERC-1271).
    struct Approval {
        address signer;
        bytes signature;
    }

    /// @notice A list of addresses is not sorted, or holds one twice, or the zero address.
    error AddressesNotAscending(address previous, address next);

    /// @notice Fewer signatures than are needed.
    error QuorumNotReached(uint256 required, uint256 got);

    /// @notice The signature is not this signer's, or not over this digest, or in a second form (high s, another length).
    error InvalidApproval(address signer);

    /// @notice Reverts unless at least `quorum` different accounts signed, and every given signature is its signer's.
    /// @dev Keeps: a quorum is of different accounts. Whether each of them may sign is for the caller to check.
    /// @return signers Who signed, strictly ascending.
    function requireSigned(Approval[] calldata approvals, bytes32 digest, uint256 quorum)
        internal
        view
        returns (address[] memory signers)
    {
        if (approvals.length < quorum) revert QuorumNotReached(quorum, approvals.length);
        signers = new address[](approvals.length);
        address previous = address(0);
        for (uint256 i = 0; i < approvals.length; ++i) {
            previous = ascend(previous, approvals[i].signer);
            if (!hasSigned(previous, digest, approvals[i].signature)) revert InvalidApproval(previous);
            signers[i] = previous;
        }
    }

    /// @notice Whether this account signed. A key's signature counts even if its account has code (EIP-7702 accounts); else the code
    /// decides (ERC-1271).
    function hasSigned(address signer, bytes32 digest, bytes calldata signature) internal view returns (bool) {
        (address recovered, ECDSA.RecoverError problem,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (problem == ECDSA.RecoverError.NoError && recovered == signer) return true;
        return signer.code.length != 0 && SignatureChecker.isValidERC1271SignatureNowCalldata(signer, digest, signature);
    }

    /// @notice The next of an ascending list.
    function ascend(address previous, address next) internal pure returns (address) {
        if (next <= previous) revert AddressesNotAscending(previous, next);
        return next;
    }
}
