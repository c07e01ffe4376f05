// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

/// @title Which ERC-20 tokens new escrows, stakes and rewards may be in
/// @notice A token that takes a fee, rebases or calls back could leave an escrow short, so tokens are looked at one by one before they
/// are listed. What is held already stays payable whatever happens to the list.
/// @dev The owner, first the deployer, is the operators' multisig; the list is all that he decides.
contract PaymentTokens is Ownable2Step {
    mapping(address token => bool) public isAccepted;

    event TokenAccepted(address indexed token, bool accepted);

    error NotAContract(address token);

    constructor(address initialOwner) Ownable(initialOwner) {}

    /// @notice Lists a token, or takes it off the list for everything that begins later.
    /// @dev Keeps: what is on the list had code when it was listed, so a transfer of it can not silently do nothing.
    function setAccepted(address token, bool accepted) external onlyOwner {
        if (accepted && token.code.length == 0) revert NotAContract(token);
        isAccepted[token] = accepted;
        emit TokenAccepted(token, accepted);
    }
}
