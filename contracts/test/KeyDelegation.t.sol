// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {KeyDelegation} from "../src/KeyDelegation.sol";
import {vm} from "./Vm.sol";

contract KeyDelegationTest {
    uint48 private constant START = 1_800_000_000;
    address private constant FORWARDER = address(0xF0);
    address private constant INSTITUTION = address(0xA1);
    address private constant AGENT = address(0xB2);

    KeyDelegation private delegations;

    function setUp() public {
        vm.warp(START);
        delegations = new KeyDelegation(FORWARDER);
    }

    function testFuzz_exactly_the_listed_scopes_are_covered_until_the_last_second(
        uint256 seed,
        uint8 count,
        uint32 term,
        uint32 later
    ) public {
        KeyDelegation.Scope[] memory scopes = _scopes(seed, 1 + count % 32);
        uint48 until = START + 1 + term % 730 days;
        vm.prank(INSTITUTION);
        delegations.delegate(AGENT, scopes, until, 0);
        vm.warp(START + later);
        bool live = START + later <= until;
        for (uint256 i = 0; i < scopes.length; ++i) {
            (address target, bytes4 selector) = (scopes[i].target, scopes[i].selector);
            assert(delegations.covers(INSTITUTION, AGENT, target, selector) == live);
            // Neither of somebody else's, nor a neighbour in either part of the scope.
            assert(!delegations.covers(AGENT, INSTITUTION, target, selector));
            assert(!delegations.covers(INSTITUTION, FORWARDER, target, selector));
            _assertUncovered(scopes, address(uint160(target) + 1), selector);
            _assertUncovered(scopes, target, bytes4(uint32(selector) ^ 1));
        }
        _assertUncovered(scopes, address(0), 0);
        _assertUncovered(scopes, address(type(uint160).max), 0xffffffff);
    }

    function testFuzz_what_is_not_strictly_ascending_is_refused(uint256 seed, uint8 count, uint8 first, uint8 second) public {
        KeyDelegation.Scope[] memory scopes = _scopes(seed, 2 + count % 31);
        uint256 i = first % scopes.length;
        uint256 j = second % scopes.length;
        // Two that are swapped, or one that is there twice.
        if (i == j) scopes[i] = scopes[i == 0 ? 1 : i - 1];
        else (scopes[i], scopes[j]) = (scopes[j], scopes[i]);
        vm.prank(INSTITUTION);
        (bool success, bytes memory why) =
            address(delegations).call(abi.encodeCall(KeyDelegation.delegate, (AGENT, scopes, START + 1, 0)));
        assert(!success && bytes4(why) == KeyDelegation.ScopesNotAscending.selector);
    }

    function testFuzz_no_scope_names_the_delegations_themselves(uint256 seed, uint8 count, bytes4 selector) public {
        KeyDelegation.Scope[] memory scopes = _scopes(seed, 1 + count % 32);
        uint256 last = scopes.length - 1;
        // Scopes are drawn from addresses below this one.
        scopes[last] = KeyDelegation.Scope(address(delegations), selector);
        vm.prank(INSTITUTION);
        vm.expectRevert(abi.encodeWithSelector(KeyDelegation.NotDelegable.selector, address(delegations)));
        delegations.delegate(AGENT, scopes, START + 1, 0);
    }

    function test_bounds() public {
        vm.prank(INSTITUTION);
        vm.expectRevert(abi.encodeWithSelector(KeyDelegation.ScopeCountOutOfBounds.selector, 0, 32));
        delegations.delegate(AGENT, new KeyDelegation.Scope[](0), START + 1, 0);
        vm.prank(INSTITUTION);
        vm.expectRevert(abi.encodeWithSelector(KeyDelegation.ScopeCountOutOfBounds.selector, 33, 32));
        delegations.delegate(AGENT, _scopes(7, 33), START + 1, 0);
        for (uint256 i = 0; i < 2; ++i) {
            address nobody = i == 0 ? address(0) : INSTITUTION;
            vm.prank(INSTITUTION);
            vm.expectRevert(abi.encodeWithSelector(KeyDelegation.InvalidAgent.selector, nobody));
            delegations.delegate(nobody, _scopes(7, 1), START + 1, 0);
        }
    }

    function testFuzz_terms_are_bounded(uint48 until) public {
        bool right = until > START && until <= START + 730 days;
        vm.prank(INSTITUTION);
        if (!right) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    KeyDelegation.UntilOutOfBounds.selector, until, uint256(START) + 1, uint256(START) + 730 days
                )
            );
        }
        delegations.delegate(AGENT, _scopes(7, 1), until, 0);
        assert(delegations.delegationOf(INSTITUTION, AGENT).until == (right ? until : 0));
    }

    function testFuzz_a_revocation_outdates_what_was_signed_before(uint8 revocations, uint64 version) public {
        uint64 present = revocations % 4;
        for (uint256 i = 0; i < present; ++i) {
            vm.prank(INSTITUTION);
            delegations.revoke(AGENT);
        }
        version = version % 6;
        vm.prank(INSTITUTION);
        if (version != present) {
            vm.expectRevert(abi.encodeWithSelector(KeyDelegation.DelegationVersionMismatch.selector, present, version));
        }
        delegations.delegate(AGENT, _scopes(7, 1), START + 1, version);
        if (version != present) return;
        vm.prank(INSTITUTION);
        delegations.revoke(AGENT);
        vm.prank(INSTITUTION);
        vm.expectRevert(abi.encodeWithSelector(KeyDelegation.DelegationVersionMismatch.selector, present + 2, version));
        delegations.delegate(AGENT, _scopes(7, 1), START + 1, version);
        KeyDelegation.Delegation memory left = delegations.delegationOf(INSTITUTION, AGENT);
        assert(left.since == 0 && left.until == 0 && left.scopes.length == 0 && left.version == present + 2);
        assert(delegations.statusOf(INSTITUTION, AGENT, address(0), 0) == KeyDelegation.Status.Revoked);
    }

    function testFuzz_a_new_delegation_leaves_nothing_of_the_old_one(uint256 seed, uint8 before, uint8 after_) public {
        KeyDelegation.Scope[] memory first = _scopes(seed, 1 + before % 32);
        KeyDelegation.Scope[] memory second = _scopes(~seed, 1 + after_ % 32);
        vm.prank(INSTITUTION);
        delegations.delegate(AGENT, first, START + 9, 0);
        vm.prank(INSTITUTION);
        delegations.delegate(AGENT, second, START + 1, 1);
        for (uint256 i = 0; i < first.length; ++i) {
            assert(
                delegations.covers(INSTITUTION, AGENT, first[i].target, first[i].selector)
                    == _contains(second, first[i].target, first[i].selector)
            );
        }
        KeyDelegation.Delegation memory given = delegations.delegationOf(INSTITUTION, AGENT);
        assert(keccak256(abi.encode(given)) == keccak256(abi.encode(KeyDelegation.Delegation(START, START + 1, 2, second))));
        assert(delegations.agentsOf(INSTITUTION).length == 1);
    }

    function test_the_list_of_agents_is_bounded_and_revoking_makes_room() public {
        for (uint160 i = 1; i <= 64; ++i) {
            _delegate(address(i), 0);
        }
        vm.prank(INSTITUTION);
        vm.expectRevert(abi.encodeWithSelector(KeyDelegation.TooManyAgents.selector, 64));
        delegations.delegate(AGENT, _scopes(7, 1), START + 1, 0);
        _delegate(address(64), 1);
        for (uint160 i = 1; i <= 64; i += 9) {
            vm.prank(INSTITUTION);
            delegations.revoke(address(i));
            _delegate(AGENT, uint64(i - 1) / 9 * 2);
            vm.prank(INSTITUTION);
            delegations.revoke(AGENT);
        }
        assert(delegations.agentsOf(INSTITUTION).length == 56);
        // Others have lists of their own.
        vm.prank(AGENT);
        delegations.delegate(INSTITUTION, _scopes(7, 1), START + 1, 0);
        assert(delegations.agentsOf(AGENT).length == 1 && delegations.agentsOf(INSTITUTION).length == 56);
    }

    function _delegate(address agent, uint64 version) private {
        vm.prank(INSTITUTION);
        delegations.delegate(agent, _scopes(7, 1), START + 1, version);
    }

    /// @dev Scopes next to each other, so that the search has to tell neighbours apart; never this contract's address.
    function _scopes(uint256 seed, uint256 count) private pure returns (KeyDelegation.Scope[] memory scopes) {
        scopes = new KeyDelegation.Scope[](count);
        uint256 place = seed % 3 << 30;
        for (uint256 i = 0; i < count; ++i) {
            place += 1 + uint256(keccak256(abi.encode(seed, i))) % (i % 2 == 0 ? 2 : 1 << 31);
            scopes[i] = KeyDelegation.Scope(address(uint160(place >> 32)), bytes4(uint32(place)));
        }
    }

    function _assertUncovered(KeyDelegation.Scope[] memory scopes, address target, bytes4 selector) private view {
        if (!_contains(scopes, target, selector)) assert(!delegations.covers(INSTITUTION, AGENT, target, selector));
    }

    function _contains(KeyDelegation.Scope[] memory scopes, address target, bytes4 selector) private pure returns (bool) {
        for (uint256 i = 0; i < scopes.length; ++i) {
            if (scopes[i].target == target && scopes[i].selector == selector) return true;
        }
        return false;
    }
}
