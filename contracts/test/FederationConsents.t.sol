// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {FederationRegistry} from "../src/FederationRegistry.sol";
import {Quorum} from "../src/Quorum.sol";
import {vm} from "./Vm.sol";

/// @dev Four participants of whom three must survive, one aggregator; everybody has a key.
contract FederationConsentsTest {
    FederationRegistry private registry;
    bytes32 private constant MODEL = keccak256("model 0");
    bytes32 private constant MANIFEST = keccak256("manifest");
    uint256 private constant AGGREGATOR = 0xA1;
    /// @dev `masked` of the message, which the vectors have as bytes.
    bytes32 private constant VECTOR_MASKED = 0x1318fdeed82cd6ccf4f7ce94cfa25911af79f3a8d503ab0a677393d8eff942e0;

    uint256[4] private keys;
    address[] private participants;
    bytes32 private federation;
    bytes32 private ctx;
    uint48 private deadline;

    function setUp() public {
        vm.warp(1_800_000_000);
        registry = new FederationRegistry(address(0xF0));
        keys = [uint256(0xB1), 0xB2, 0xB3, 0xB4];
        for (uint256 i = 0; i < 4; ++i) {
            for (uint256 j = i + 1; j < 4; ++j) {
                if (vm.addr(keys[j]) < vm.addr(keys[i])) (keys[i], keys[j]) = (keys[j], keys[i]);
            }
            participants.push(vm.addr(keys[i]));
        }
        address[] memory aggregators = new address[](1);
        aggregators[0] = vm.addr(AGGREGATOR);
        federation = registry.create(FederationRegistry.Founding(keccak256("config"), MODEL, 3, 1, participants, aggregators));
        _open(1);
    }

    function test_the_digest_is_that_of_the_message_in_the_vectors() public {
        string memory json = vm.readFile("../tests/vectors/secagg_messages.json");
        address place = vm.parseJsonAddress(json, ".registry");
        vm.etch(place, address(registry).code);
        vm.chainId(vm.parseJsonUint(json, ".chainId"));
        address[] memory survivors = new address[](2);
        for (uint256 i = 0; i < 2; ++i) {
            survivors[i] = vm.parseJsonAddress(json, string.concat(".survivors.addresses[", vm.toString(i), "]"));
        }
        FederationRegistry.SurvivorSet memory set =
            FederationRegistry.SurvivorSet(vm.parseJsonBytes32(json, ".federation"), 3, 1, VECTOR_MASKED, survivors);
        bytes32 digest =
            FederationRegistry(place).hashConsent(vm.parseJsonBytes32(json, ".ctx"), set, vm.parseJsonAddress(json, ".sender"));
        assert(digest == vm.parseJsonBytes32(json, ".messages[3].eip712.digest"));
    }

    function test_a_set_that_participants_signed_is_fixed_after_the_deadline_and_its_result_has_time() public {
        vm.warp(deadline + 30 days);
        FederationRegistry.SurvivorSet memory set = _set(1, 7);
        Quorum.Approval[] memory approvals = _approve(set);
        Quorum.Approval[] memory consents = _consents(set, 7);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.SurvivorsTooLate.selector, deadline, block.timestamp));
        registry.fixSurvivors(set, approvals);
        registry.fixConsented(set, approvals, consents);
        FederationRegistry.Federation memory current = registry.get(federation);
        assert(current.status == FederationRegistry.Status.Fixed && current.updates == 3);
        assert(current.survivorsHash == keccak256(abi.encode(ctx, set.survivors)));
        assert(current.deadline == block.timestamp + 1 days - 1 hours);
        vm.prank(participants[0]);
        vm.expectRevert(
            abi.encodeWithSelector(FederationRegistry.DeadlineNotReached.selector, current.deadline, block.timestamp)
        );
        registry.abandon(federation, 1, 1);
        // Once, like any set.
        vm.expectRevert(
            abi.encodeWithSelector(
                FederationRegistry.WrongStatus.selector,
                federation,
                FederationRegistry.Status.Open,
                FederationRegistry.Status.Fixed
            )
        );
        registry.fixConsented(set, approvals, consents);
    }

    function test_in_time_it_changes_no_deadline() public {
        vm.warp(deadline);
        FederationRegistry.SurvivorSet memory set = _set(1, 15);
        registry.fixConsented(set, _approve(set), _consents(set, 15));
        assert(registry.get(federation).deadline == deadline);
    }

    /// @dev Bit i of `signing` stands for participant i; one signature may be another participant's, or under another set.
    function testFuzz_min_survivors_participants_sign(uint8 signing, uint8 survivors, uint8 forged) public {
        vm.warp(deadline + 1);
        (signing, survivors) = (signing % 16, survivors % 16);
        FederationRegistry.SurvivorSet memory set = _set(1, survivors);
        Quorum.Approval[] memory consents = _consents(set, signing);
        bool valid = consents.length >= 3 && set.survivors.length >= 3;
        if (forged % 4 == 1 && consents.length > 1) {
            (consents[0].signature, valid) = (consents[1].signature, false);
        }
        if (forged % 4 == 2 && consents.length > 0) {
            FederationRegistry.SurvivorSet memory other = _set(1, survivors);
            other.maskedRecord = keccak256("other vectors");
            (consents[0].signature, valid) = (_consents(other, signing)[0].signature, false);
        }
        try registry.fixConsented(set, _approve(set), consents) {
            assert(valid);
        } catch {
            assert(!valid);
        }
    }

    function test_each_refusal_has_its_error() public {
        vm.warp(deadline + 1);
        FederationRegistry.SurvivorSet memory set = _set(1, 15);
        Quorum.Approval[] memory approvals = _approve(set);
        Quorum.Approval[] memory consents = _consents(set, 3);
        vm.expectRevert(abi.encodeWithSelector(Quorum.QuorumNotReached.selector, 3, 2));
        registry.fixConsented(set, approvals, consents);

        consents = _consents(set, 15);
        vm.expectRevert(abi.encodeWithSelector(Quorum.QuorumNotReached.selector, 1, 0));
        registry.fixConsented(set, new Quorum.Approval[](0), consents);

        (consents[0], consents[1]) = (consents[1], consents[0]);
        vm.expectRevert(abi.encodeWithSelector(Quorum.AddressesNotAscending.selector, consents[0].signer, consents[1].signer));
        registry.fixConsented(set, approvals, consents);

        // An aggregator is no participant, whatever it signs.
        consents = new Quorum.Approval[](3);
        for (uint256 i = 0; i < 3; ++i) {
            consents[i] = Quorum.Approval(vm.addr(AGGREGATOR), "");
        }
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.NotParticipant.selector, federation, vm.addr(AGGREGATOR)));
        registry.fixConsented(set, approvals, consents);
    }

    /// @dev What was signed for one attempt says nothing about another, and an attempt that was given up is over.
    function test_signatures_count_for_their_attempt_only() public {
        FederationRegistry.SurvivorSet memory set = _set(1, 15);
        Quorum.Approval[] memory consents = _consents(set, 15);
        Quorum.Approval[] memory approvals = _approve(set);
        vm.warp(deadline + 1);
        vm.prank(participants[0]);
        registry.abandon(federation, 1, 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                FederationRegistry.WrongStatus.selector,
                federation,
                FederationRegistry.Status.Open,
                FederationRegistry.Status.Idle
            )
        );
        registry.fixConsented(set, approvals, consents);
        _open(2);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.RoundMismatch.selector, 1, 2, 1, 1));
        registry.fixConsented(set, approvals, consents);
        set.attempt = 2;
        approvals = _approve(set);
        vm.expectRevert(abi.encodeWithSelector(Quorum.InvalidApproval.selector, participants[0]));
        registry.fixConsented(set, approvals, consents);
    }

    function test_who_did_not_commit_is_no_survivor_whatever_was_signed() public {
        vm.warp(deadline + 1);
        vm.prank(participants[0]);
        registry.abandon(federation, 1, 1);
        vm.prank(vm.addr(AGGREGATOR));
        uint48 time = uint48(block.timestamp);
        registry.openRound(federation, 1, 2, MANIFEST, time + 1 hours, time + 1 days);
        ctx = registry.contextOf(federation, 1, 2, MANIFEST);
        vm.warp(time + 2 days);
        FederationRegistry.SurvivorSet memory set = _set(2, 15);
        Quorum.Approval[] memory approvals = _approve(set);
        Quorum.Approval[] memory consents = _consents(set, 15);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.NoCommitment.selector, participants[0]));
        registry.fixConsented(set, approvals, consents);
    }

    function _open(uint64 attempt) private {
        uint48 time = uint48(block.timestamp);
        deadline = time + 1 days;
        vm.prank(vm.addr(AGGREGATOR));
        registry.openRound(federation, 1, attempt, MANIFEST, time + 1 hours, deadline);
        ctx = registry.contextOf(federation, 1, attempt, MANIFEST);
        for (uint256 i = 0; i < 4; ++i) {
            vm.prank(participants[i]);
            registry.commitUpdate(federation, ctx, keccak256(abi.encode(ctx, i)));
        }
    }

    /// @dev Bit i of `bits` stands for participant i.
    function _set(uint64 attempt, uint256 bits) private view returns (FederationRegistry.SurvivorSet memory) {
        address[] memory survivors = new address[](4);
        uint256 length = 0;
        for (uint256 i = 0; i < 4; ++i) {
            if (bits >> i & 1 == 1) survivors[length++] = participants[i];
        }
        assembly {
            mstore(survivors, length)
        }
        return FederationRegistry.SurvivorSet(federation, 1, attempt, keccak256("masked"), survivors);
    }

    function _approve(FederationRegistry.SurvivorSet memory set) private view returns (Quorum.Approval[] memory approvals) {
        approvals = new Quorum.Approval[](1);
        bytes32 digest = registry.hashSurvivors(set, keccak256(abi.encode(ctx, set.survivors)));
        approvals[0] = Quorum.Approval(vm.addr(AGGREGATOR), _sign(AGGREGATOR, digest));
    }

    function _consents(FederationRegistry.SurvivorSet memory set, uint256 bits)
        private
        view
        returns (Quorum.Approval[] memory consents)
    {
        consents = new Quorum.Approval[](4);
        uint256 length = 0;
        for (uint256 i = 0; i < 4; ++i) {
            if (bits >> i & 1 == 0) continue;
            bytes32 digest = registry.hashConsent(ctx, set, participants[i]);
            consents[length++] = Quorum.Approval(participants[i], _sign(keys[i], digest));
        }
        assembly {
            mstore(consents, length)
        }
    }

    function _sign(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }
}
