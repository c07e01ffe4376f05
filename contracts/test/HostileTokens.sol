// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @dev Tokens that exist, and what each does to an escrow that trusts it. Anybody mints; there is no permit but where it says so.
abstract contract MintableToken is ERC20("Token", "TOKEN") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// @dev Keeps a hundredth of what others send each other.
contract FeeToken is MintableToken {
    function _update(address from, address to, uint256 value) internal override {
        uint256 fee = from == address(0) || to == address(0) ? 0 : value / 100;
        super._update(from, to, value - fee);
        if (fee != 0) super._update(from, address(0), fee);
    }
}

/// @dev Says no by returning false, and moves nothing.
contract FalseToken is MintableToken {
    function transfer(address, uint256) public pure override returns (bool) {
        return false;
    }

    function transferFrom(address, address, uint256) public pure override returns (bool) {
        return false;
    }
}

/// @dev Returns nothing at all, as some of the largest do, and takes any unknown call for a good one.
contract SilentToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    fallback() external {}

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 amount) external {
        allowance[msg.sender][spender] = amount;
    }

    function transfer(address to, uint256 amount) external {
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// @dev Has a list of accounts that may not receive.
contract BlockingToken is MintableToken {
    error Blocked(address account);

    mapping(address => bool) public blocked;

    function setBlocked(address account, bool on) external {
        blocked[account] = on;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (blocked[to]) revert Blocked(to);
        super._update(from, to, value);
    }
}

/// @dev Calls somebody before it moves anything; it is at the same time the account that does so.
contract CallingToken is MintableToken {
    bytes[] private _planned;
    address private _target;

    /// @dev One call at a time and in this order, each within the move before.
    function plan(address target, bytes[] calldata calls) external {
        delete _planned;
        _target = target;
        for (uint256 i = calls.length; i != 0; --i) {
            _planned.push(calls[i - 1]);
        }
    }

    function act(address target, bytes calldata data) external {
        _call(target, data);
    }

    function planned() external view returns (uint256) {
        return _planned.length;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (from != address(0) && _planned.length != 0) {
            bytes memory data = _planned[_planned.length - 1];
            _planned.pop();
            _call(_target, data);
        }
        super._update(from, to, value);
    }

    function _call(address target, bytes memory data) private {
        (bool success, bytes memory returned) = target.call(data);
        if (!success) {
            assembly {
                revert(add(returned, 32), mload(returned))
            }
        }
    }
}
