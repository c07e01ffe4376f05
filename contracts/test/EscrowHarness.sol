// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {Escrow} from "../src/Escrow.sol";
import {PaymentTokens} from "../src/PaymentTokens.sol";

/// @dev The plainest use of an escrow: what comes in is a credit of whoever brought it.
contract EscrowHarness is Escrow {
    constructor(PaymentTokens tokens) ERC2771Context(address(0xF0)) Escrow(tokens) {}

    function bring(address token, uint256 amount, Permit calldata permit) external {
        _credit(token, _msgSender(), amount);
        _requireAccepted(token);
        _take(token, _msgSender(), amount, permit);
    }

    function credit(address token, address account, uint256 amount) external {
        _credit(token, account, amount);
    }
}
