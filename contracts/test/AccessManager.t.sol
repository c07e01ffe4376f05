// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {AccessManager} from "../src/AccessManager.sol";
import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {vm} from "./Vm.sol";

contract AccessManagerTest {
    DatasetRegistry private registry;
    AccessManager private manager;
    address private constant OWNER = address(0xA11CE);
    address private constant BUYER = address(0xB0B);
    address private constant MEMBER = address(0xDAC);
    address private constant CONSUMER = address(0xC0);
    uint16 private constant GRU = 42;

    function setUp() public {
        vm.warp(1_800_000_000);
        registry = new DatasetRegistry(address(0xF0), address(this));
        manager = new AccessManager(address(0xF0), registry);
        vm.prank(OWNER);
        registry.register(
            DatasetRegistry.Registration(
                keccak256("content"), keccak256("policy"), keccak256("metadata"), "", new uint256[](0), 0
            )
        );
    }

    function testFuzz_a_grant_holds_for_its_consumer_and_purpose_until_its_end(uint48 term, uint48 later, address other)
        public
    {
        vm.assume(other != CONSUMER);
        term = 1 + term % manager.MAX_TERM();
        later = later % (2 * manager.MAX_TERM());
        uint48 until = uint48(block.timestamp) + term;
        AccessManager.Terms memory terms = _terms(GRU, 0);
        terms.until = until;
        _grant(OWNER, terms);
        assert(manager.hasAccess(1, CONSUMER, GRU) && !manager.hasAccess(1, other, GRU) && !manager.hasAccess(1, CONSUMER, 6));

        vm.warp(block.timestamp + later);
        assert(manager.hasAccess(1, CONSUMER, GRU) == (block.timestamp <= until));
        _expect(block.timestamp <= until ? AccessManager.Status.Active : AccessManager.Status.Expired);
    }

    function testFuzz_only_the_five_permissions_are_purposes(uint16 purpose) public {
        bool known = purpose == 4 || purpose == 6 || purpose == 7 || purpose == 11 || purpose == 42;
        AccessManager.Terms memory terms = _terms(purpose, 0);
        if (!known) vm.expectRevert(abi.encodeWithSelector(AccessManager.UnknownPurpose.selector, purpose));
        vm.prank(OWNER);
        manager.grant(terms);
        assert(manager.hasAccess(1, CONSUMER, purpose) == known);
    }

    function testFuzz_terms_out_of_bounds_are_refused(uint48 until) public {
        uint256 latest = block.timestamp + manager.MAX_TERM();
        AccessManager.Terms memory terms = _terms(GRU, 0);
        terms.until = until;
        if (until <= block.timestamp || until > latest) {
            vm.expectRevert(abi.encodeWithSelector(AccessManager.TermOutOfBounds.selector, until, block.timestamp + 1, latest));
        }
        vm.prank(OWNER);
        manager.grant(terms);
    }

    function test_a_grant_names_its_conditions_and_its_consumer() public {
        AccessManager.Terms memory terms = _terms(GRU, 0);
        terms.conditionsHash = 0;
        vm.expectRevert(abi.encodeWithSelector(AccessManager.MissingConditions.selector));
        vm.prank(OWNER);
        manager.grant(terms);
        terms = _terms(GRU, 0);
        terms.consumer = address(0);
        vm.expectRevert(abi.encodeWithSelector(AccessManager.InvalidConsumer.selector));
        vm.prank(OWNER);
        manager.grant(terms);
    }

    function testFuzz_only_owner_and_committee_decide(address stranger) public {
        vm.assume(stranger != OWNER && stranger != MEMBER && stranger != address(0xF0));
        _appoint(OWNER, MEMBER, 0);
        _grant(MEMBER, _terms(GRU, 0));
        vm.expectRevert(abi.encodeWithSelector(AccessManager.NotOnCommittee.selector, 1, stranger));
        vm.prank(stranger);
        manager.grant(_terms(6, 0));
        vm.expectRevert(abi.encodeWithSelector(AccessManager.NotOnCommittee.selector, 1, stranger));
        vm.prank(stranger);
        manager.revoke(1, CONSUMER, GRU);
        vm.expectRevert(abi.encodeWithSelector(AccessManager.NotOwnerOfDataset.selector, 1, MEMBER));
        vm.prank(MEMBER);
        manager.setCommittee(1, new address[](0), 1);
        vm.prank(MEMBER);
        manager.revoke(1, CONSUMER, GRU);
        _expect(AccessManager.Status.Absent);
    }

    function test_a_revocation_outdates_what_was_signed_before() public {
        AccessManager.Terms memory late = _terms(GRU, 0);
        // Nothing has arrived yet, and the revocation still counts.
        vm.prank(OWNER);
        manager.revoke(1, CONSUMER, GRU);
        vm.expectRevert(abi.encodeWithSelector(AccessManager.GrantEpochMismatch.selector, 1, 0));
        vm.prank(OWNER);
        manager.grant(late);
        _expect(AccessManager.Status.Absent);

        _grant(OWNER, _terms(GRU, 1));
        _expect(AccessManager.Status.Active);
        vm.prank(OWNER);
        manager.revoke(1, CONSUMER, GRU);
        for (uint64 epoch = 0; epoch < 3; ++epoch) {
            vm.expectRevert(abi.encodeWithSelector(AccessManager.GrantEpochMismatch.selector, 3, epoch));
            vm.prank(OWNER);
            manager.grant(_terms(GRU, epoch));
        }
        AccessManager.Grant memory left = manager.grantOf(1, CONSUMER, GRU);
        assert(left.grantEpoch == 3 && left.until == 0 && left.conditionsHash == 0);
        _grant(OWNER, _terms(GRU, 3));
    }

    function test_a_grant_is_used_once_and_earlier_ones_do_not_come_back() public {
        AccessManager.Terms memory longer = _terms(GRU, 0);
        AccessManager.Terms memory shorter = _terms(GRU, 0);
        shorter.until = uint48(block.timestamp + 1 days);
        _grant(OWNER, shorter);
        vm.expectRevert(abi.encodeWithSelector(AccessManager.GrantEpochMismatch.selector, 1, 0));
        vm.prank(OWNER);
        manager.grant(longer);
        assert(manager.grantOf(1, CONSUMER, GRU).until == shorter.until);
    }

    function test_a_policy_change_suspends_until_confirmed() public {
        _grant(OWNER, _terms(GRU, 0));
        vm.prank(OWNER);
        registry.setPolicy(1, keccak256("stricter"), "", 1);
        _expect(AccessManager.Status.Suspended);
        // Back to the same text is a new version: what was granted under it was granted before the change.
        vm.prank(OWNER);
        registry.setPolicy(1, keccak256("policy"), "", 2);
        _expect(AccessManager.Status.Suspended);
        vm.expectRevert(abi.encodeWithSelector(AccessManager.PolicyVersionMismatch.selector, 3, 1));
        vm.prank(OWNER);
        manager.grant(_terms(GRU, 1));
        AccessManager.Terms memory confirmed = _terms(GRU, 1);
        confirmed.policyVersion = 3;
        _grant(OWNER, confirmed);
        _expect(AccessManager.Status.Active);
    }

    function test_a_sale_ends_the_sellers_committee_and_suspends_its_grants() public {
        _appoint(OWNER, MEMBER, 0);
        _grant(MEMBER, _terms(GRU, 0));
        vm.prank(OWNER);
        registry.transferFrom(OWNER, BUYER, 1);
        _expect(AccessManager.Status.Suspended);
        assert(!manager.isOnCommittee(1, MEMBER) && !manager.isOnCommittee(1, OWNER) && manager.isOnCommittee(1, BUYER));
        vm.expectRevert(abi.encodeWithSelector(AccessManager.NotOnCommittee.selector, 1, MEMBER));
        vm.prank(MEMBER);
        manager.grant(_terms(GRU, 1));
        _grant(BUYER, _terms(GRU, 1));
        _expect(AccessManager.Status.Active);

        // Bought back: what the first owner had set up stays gone.
        vm.prank(BUYER);
        registry.transferFrom(BUYER, OWNER, 1);
        assert(!manager.isOnCommittee(1, MEMBER));
        _expect(AccessManager.Status.Suspended);
    }

    function test_nobody_who_was_dismissed_comes_back_by_a_late_relay() public {
        _appoint(OWNER, MEMBER, 0);
        vm.prank(OWNER);
        manager.setCommittee(1, new address[](0), 1);
        assert(!manager.isOnCommittee(1, MEMBER));
        address[] memory members = new address[](1);
        members[0] = MEMBER;
        vm.expectRevert(abi.encodeWithSelector(AccessManager.CommitteeVersionMismatch.selector, 2, 0));
        vm.prank(OWNER);
        manager.setCommittee(1, members, 0);
        assert(manager.committeeVersion(1) == 2);
    }

    /// @dev Accepted exactly if strictly ascending from above zero and at most 16; then members, and nobody else, decide.
    function testFuzz_committees(uint8[] calldata raw, address stranger) public {
        uint256 length = raw.length % 20;
        address[] memory members = new address[](length);
        bool valid = length <= 16;
        bool listed = false;
        for (uint256 i = 0; i < length; ++i) {
            // Mostly ascending, so that accepted and refused lists both occur.
            uint160 step = raw[i] % 16 == 0 ? 0 : raw[i];
            members[i] = address((i == 0 ? 0 : uint160(members[i - 1])) + step);
            if (step == 0) valid = false;
            if (members[i] == stranger) listed = true;
        }
        vm.prank(OWNER);
        (bool success,) = address(manager).call(abi.encodeCall(AccessManager.setCommittee, (1, members, 0)));
        assert(success == valid);
        for (uint256 i = 0; i < length; ++i) {
            assert(manager.isOnCommittee(1, members[i]) == valid);
        }
        assert(listed || stranger == OWNER || !manager.isOnCommittee(1, stranger));
    }

    function test_deprecated_data_gains_no_grants_and_withdrawn_data_keeps_none() public {
        _grant(OWNER, _terms(GRU, 0));
        vm.prank(OWNER);
        registry.setState(1, DatasetRegistry.State.Deprecated);
        _expect(AccessManager.Status.Active);
        vm.expectRevert(abi.encodeWithSelector(AccessManager.DatasetNotActive.selector, 1));
        vm.prank(OWNER);
        manager.grant(_terms(6, 0));
        vm.prank(OWNER);
        registry.setState(1, DatasetRegistry.State.Withdrawn);
        _expect(AccessManager.Status.Withdrawn);
        assert(!manager.hasAccess(1, CONSUMER, GRU));
        vm.prank(OWNER);
        manager.revoke(1, CONSUMER, GRU);
        _expect(AccessManager.Status.Absent);
    }

    function test_unknown_data_sets_are_named() public {
        bytes memory unknown = abi.encodeWithSelector(IERC721Errors.ERC721NonexistentToken.selector, 2);
        vm.expectRevert(unknown);
        manager.hasAccess(2, CONSUMER, GRU);
        vm.expectRevert(unknown);
        manager.revoke(2, CONSUMER, GRU);
        vm.expectRevert(unknown);
        manager.setCommittee(2, new address[](0), 0);
        assert(manager.isTrustedForwarder(address(0xF0)) && !manager.isTrustedForwarder(address(this)));
    }

    function _terms(uint16 purpose, uint64 epoch) private view returns (AccessManager.Terms memory) {
        uint48 until = uint48(block.timestamp + 365 days);
        return AccessManager.Terms(1, CONSUMER, purpose, until, 1, epoch, keccak256("conditions"));
    }

    function _grant(address who, AccessManager.Terms memory terms) private {
        vm.prank(who);
        manager.grant(terms);
    }

    function _appoint(address owner, address member, uint64 version) private {
        address[] memory members = new address[](1);
        members[0] = member;
        vm.prank(owner);
        manager.setCommittee(1, members, version);
        assert(manager.isOnCommittee(1, member));
    }

    function _expect(AccessManager.Status status) private view {
        assert(manager.statusOf(1, CONSUMER, GRU) == status);
        assert(manager.hasAccess(1, CONSUMER, GRU) == (status == AccessManager.Status.Active));
    }
}
