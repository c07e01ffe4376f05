// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LocalCredit} from "../src/LocalCredit.sol";
import {vm} from "./Vm.sol";

contract LocalCreditTest {
    function testFuzz_it_exists_on_the_local_chain_alone(uint64 chain) public {
        uint256 local = 31337;
        vm.assume(chain != 0);
        vm.chainId(chain);
        if (chain != local) vm.expectRevert(abi.encodeWithSelector(LocalCredit.NotTheLocalChain.selector, uint256(chain)));
        new LocalCredit();
        vm.chainId(local);
        new LocalCredit();
    }

    function testFuzz_anybody_makes_it_within_bounds(address sender, address to, uint256 amount) public {
        vm.assume(to != address(0));
        LocalCredit credit = new LocalCredit();
        uint256 limit = credit.MAX_MINT();
        if (amount > limit) {
            vm.expectRevert(abi.encodeWithSelector(LocalCredit.TooMuchAtOnce.selector, amount, limit));
            vm.prank(sender);
            credit.mint(to, amount);
            amount %= limit + 1;
        }
        vm.prank(sender);
        credit.mint(to, amount);
        assert(credit.balanceOf(to) == amount && credit.totalSupply() == amount);
    }
}
