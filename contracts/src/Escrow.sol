// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {PaymentTokens} from "./PaymentTokens.sol";

/// @title Tokens that a contract holds for others
/// @notice Money comes in as exactly the amount that was agreed, and goes out only when its owner fetches it.
/// @dev Pull payments: no settlement calls a token, so no payee, however his account behaves, can stop anybody else's settlement.
/// Every settlement turns what it held into credits of the same sum; nobody can pause a withdrawal.
abstract contract Escrow is ERC2771Context {
    using SafeERC20 for IERC20;

    /// @notice An ERC-2612 permit of the caller for this contract over the amount of the call; `deadline` 0 stands for none, where he
    /// approved before.
    struct Permit {
        uint256 deadline;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    PaymentTokens public immutable TOKENS;

    /// @notice What an account can withdraw.
    mapping(address token => mapping(address account => uint256)) public creditOf;

    event Credited(address indexed token, address indexed account, uint256 amount);
    event Withdrawn(address indexed token, address indexed account, address indexed to, uint256 amount);

    error TokenNotAccepted(address token);
    error AmountNotReceived(address token, uint256 expected, uint256 got);
    error NothingToWithdraw(address token, address account);
    error InvalidReceiver(address to);

    constructor(PaymentTokens tokens) {
        TOKENS = tokens;
    }

    /// @notice Pays the caller's whole credit in a token to an address of his choice.
    /// @dev Keeps: the credit is gone before the token is called, so nothing is paid twice; no state of anything else matters.
    function withdraw(address token, address to) external {
        if (to == address(0) || to == address(this)) revert InvalidReceiver(to);
        address account = _msgSender();
        uint256 amount = creditOf[token][account];
        if (amount == 0) revert NothingToWithdraw(token, account);
        creditOf[token][account] = 0;
        emit Withdrawn(token, account, to, amount);
        IERC20(token).safeTransfer(to, amount);
    }

    /// @dev Keeps: exactly the amount arrived, or the call fails; a token that keeps a part for itself never gets in. Whether the token is
    /// on the list is asked where something begins (`_requireAccepted`), not here: what answers to something that began stays possible.
    /// The caller has written all state before, since the token's code runs here.
    function _take(address token, address from, uint256 amount, Permit calldata permit) internal {
        if (permit.deadline != 0) {
            // Whoever sees a permit may use it first: what counts is the allowance, and the transfer fails without one.
            try IERC20Permit(token).permit(from, address(this), amount, permit.deadline, permit.v, permit.r, permit.s) {}
                catch {}
        }
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(from, address(this), amount);
        uint256 got = IERC20(token).balanceOf(address(this)) - before;
        if (got != amount) revert AmountNotReceived(token, amount, got);
    }

    /// @dev Keeps: nothing new begins in a token that is not on the list.
    function _requireAccepted(address token) internal view {
        if (!TOKENS.isAccepted(token)) revert TokenNotAccepted(token);
    }

    /// @dev Adds to what an account can withdraw. A credit of nothing leaves no trace.
    function _credit(address token, address account, uint256 amount) internal {
        if (amount == 0) return;
        creditOf[token][account] += amount;
        emit Credited(token, account, amount);
    }
}
