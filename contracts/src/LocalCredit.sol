// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title Play money of the local chain
/// @notice An ERC-20 with permit that anybody can make as much of as he likes: it stands in for the token of a consortium or a stable
/// coin where nothing is at stake.
/// @dev Can not come to exist elsewhere: the constructor refuses any chain but 31337.
contract LocalCredit is ERC20, ERC20Permit {
    uint256 public constant LOCAL_CHAIN_ID = 31337;
    uint256 public constant MAX_MINT = 1_000_000 ether;

    error NotTheLocalChain(uint256 chainId);
    error TooMuchAtOnce(uint256 amount, uint256 limit);

    constructor() ERC20("Rexis local credit", "REXCRED") ERC20Permit("Rexis local credit") {
        if (block.chainid != LOCAL_CHAIN_ID) revert NotTheLocalChain(block.chainid);
    }

    /// @notice Makes new credit for anybody.
    /// @dev Keeps: a single call can not bring the supply near overflow.
    function mint(address to, uint256 amount) external {
        if (amount > MAX_MINT) revert TooMuchAtOnce(amount, MAX_MINT);
        _mint(to, amount);
    }
}
