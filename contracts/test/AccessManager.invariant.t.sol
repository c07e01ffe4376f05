// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessManager} from "../src/AccessManager.sol";
import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {vm} from "./Vm.sol";

/// @dev Five parties own, buy, decide and ask at random. Beside it the handler keeps the plain story: who was appointed by whom, and
/// what became of each grant.
contract AccessHandler {
    DatasetRegistry public immutable REGISTRY;
    AccessManager public immutable MANAGER;
    uint256 public constant PARTIES = 5;

    address public owner;
    uint256 public committee;
    uint256 public grantedUntil;
    bool public withdrawn;
    uint64 public changes;
    uint64 public appointments;
    uint256 public attempts;
    uint256 public accepted;

    /// @dev Appointments, grants and revocations; the other calls are never refused.
    modifier counted() {
        ++attempts;
        _;
    }

    constructor() {
        REGISTRY = new DatasetRegistry(address(0xF0), address(this));
        MANAGER = new AccessManager(address(0xF0), REGISTRY);
        owner = party(0);
        vm.prank(owner);
        REGISTRY.register(
            DatasetRegistry.Registration(
                keccak256("content"), keccak256("policy"), keccak256("metadata"), "", new uint256[](0), 0
            )
        );
    }

    function appoint(uint8 who, uint8 bits, uint8 stale) external counted {
        address caller = _caller(who);
        uint64 version = stale % 8 == 1 && appointments > 0 ? appointments - 1 : appointments;
        uint256 chosen = bits % (1 << PARTIES);
        address[] memory members = new address[](_count(chosen));
        uint256 next = 0;
        for (uint256 i = 0; i < PARTIES; ++i) {
            if (chosen >> i & 1 == 1) members[next++] = party(i);
        }
        vm.prank(caller);
        try MANAGER.setCommittee(1, members, version) {
            assert(caller == owner && version == appointments);
            committee = chosen;
            ++appointments;
            ++accepted;
        } catch {
            assert(caller != owner || version != appointments);
        }
    }

    function grant(uint8 who, uint32 term, uint8 stale) external counted {
        address caller = _caller(who);
        (, uint32 version, bool active) = REGISTRY.policyOf(1);
        uint64 epoch = stale % 8 == 1 && changes > 0 ? changes - 1 : changes;
        uint48 until = uint48(block.timestamp + 1 + term % 730 days);
        vm.prank(caller);
        try MANAGER.grant(AccessManager.Terms(1, address(0xC0), 7, until, version, epoch, keccak256("conditions"))) {
            assert(decides(caller) && active && epoch == changes);
            grantedUntil = until;
            ++changes;
            ++accepted;
        } catch {
            assert(!decides(caller) || !active || epoch != changes);
        }
    }

    function revoke(uint8 who) external counted {
        address caller = _caller(who);
        vm.prank(caller);
        try MANAGER.revoke(1, address(0xC0), 7) {
            assert(decides(caller));
            grantedUntil = 0;
            ++changes;
            ++accepted;
        } catch {
            assert(!decides(caller));
        }
    }

    function sell(uint8 to) external {
        vm.prank(owner);
        REGISTRY.transferFrom(owner, party(to), 1);
        owner = party(to);
        (committee, grantedUntil) = (0, 0);
    }

    function setPolicy(bytes32 policy, uint8 seldom) external {
        if (seldom % 2 == 0 || withdrawn || policy == 0) return;
        (, uint32 version,) = REGISTRY.policyOf(1);
        vm.prank(owner);
        REGISTRY.setPolicy(1, policy, "", version);
        grantedUntil = 0;
    }

    function withdraw(uint8 seldom) external {
        if (seldom % 32 != 0 || withdrawn) return;
        vm.prank(owner);
        REGISTRY.setState(1, DatasetRegistry.State.Withdrawn);
        withdrawn = true;
    }

    function wait_(uint32 time) external {
        vm.warp(block.timestamp + time % 60 days);
    }

    function decides(address who) public view returns (bool) {
        if (who == owner) return true;
        for (uint256 i = 0; i < PARTIES; ++i) {
            if (party(i) == who) return committee >> i & 1 == 1;
        }
        return false;
    }

    function party(uint256 which) public pure returns (address) {
        return address(uint160(0x1000 + which % PARTIES));
    }

    /// @dev The owner every other time, or most decisions would be strangers'.
    function _caller(uint8 who) private view returns (address) {
        return who % 2 == 0 ? owner : party(who / 2);
    }

    function _count(uint256 bits) private pure returns (uint256 n) {
        for (; bits != 0; bits >>= 1) {
            n += bits & 1;
        }
    }
}

/// forge-config: default.invariant.fail-on-revert = true
contract AccessManagerInvariantTest {
    AccessHandler private handler;

    function setUp() public {
        vm.warp(1_800_000_000);
        handler = new AccessHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_access_is_what_the_present_owner_left_standing() public view {
        AccessManager manager = handler.MANAGER();
        bool expected = !handler.withdrawn() && block.timestamp <= handler.grantedUntil();
        assert(manager.hasAccess(1, address(0xC0), 7) == expected);
        assert(manager.grantOf(1, address(0xC0), 7).grantEpoch == handler.changes());
        // What nobody granted, nobody has.
        assert(!manager.hasAccess(1, address(0xC0), 6) && !manager.hasAccess(1, handler.owner(), 7));
    }

    function invariant_committees_end_with_their_owner() public view {
        AccessManager manager = handler.MANAGER();
        for (uint256 i = 0; i < handler.PARTIES(); ++i) {
            assert(manager.isOnCommittee(1, handler.party(i)) == handler.decides(handler.party(i)));
        }
        assert(manager.committeeVersion(1) == handler.appointments());
    }

    /// @dev A handler whose decisions were mostly refused would prove little. (Replays of an old failure are short.)
    function afterInvariant() public view {
        assert(handler.attempts() < 32 || handler.accepted() * 4 >= handler.attempts());
    }
}
