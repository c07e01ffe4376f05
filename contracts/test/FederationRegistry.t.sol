// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {FederationRegistry} from "../src/FederationRegistry.sol";
import {SignatureWallet} from "./SignatureWallet.sol";
import {Quorum} from "../src/Quorum.sol";
import {vm} from "./Vm.sol";

contract FederationRegistryTest {
    FederationRegistry private registry;
    address private constant FOUNDER = address(0xF0D);
    bytes32 private constant MODEL = keccak256("model 0");
    bytes32 private constant MANIFEST = keccak256("manifest");

    uint256[3] private keys;
    address[] private participants;
    address[] private aggregators;
    bytes32 private federation;

    /// @dev Four participants of whom three must survive; three aggregators of whom two must sign.
    function setUp() public {
        vm.warp(1_800_000_000);
        registry = new FederationRegistry(address(0xF0));
        for (uint256 i = 0; i < 4; ++i) {
            participants.push(address(uint160(0x1000 + i)));
        }
        keys = _ascendingKeys();
        for (uint256 i = 0; i < 3; ++i) {
            aggregators.push(vm.addr(keys[i]));
        }
        vm.prank(FOUNDER);
        federation = registry.create(_founding());
    }

    /// @dev The vectors fix a registry's address; its code is put there, and its domain follows.
    function test_digests_equal_the_vectors() public {
        string memory json = vm.readFile("../tests/vectors/federation_rounds.json");
        assert(vm.parseJsonUint(json, ".chainId") == block.chainid);
        address place = vm.parseJsonAddress(json, ".registry");
        vm.etch(place, address(registry).code);
        FederationRegistry there = FederationRegistry(place);
        bytes32 id = vm.parseJsonBytes32(json, ".federation");
        assert(there.federationId(vm.parseJsonAddress(json, ".founder"), vm.parseJsonBytes32(json, ".configHash")) == id);
        assert(there.contextOf(id, 3, 2, vm.parseJsonBytes32(json, ".manifestHash")) == vm.parseJsonBytes32(json, ".ctx"));

        address[] memory survivors = new address[](2);
        for (uint256 i = 0; i < 2; ++i) {
            survivors[i] = vm.parseJsonAddress(json, string.concat(".survivors[", vm.toString(i), "]"));
        }
        bytes32 survivorsHash = vm.parseJsonBytes32(json, ".signed[0].message.survivorsHash");
        assert(keccak256(abi.encode(vm.parseJsonBytes32(json, ".ctx"), survivors)) == survivorsHash);
        FederationRegistry.SurvivorSet memory set =
            FederationRegistry.SurvivorSet(id, 3, 2, vm.parseJsonBytes32(json, ".signed[0].message.maskedRecord"), survivors);
        FederationRegistry.Result memory result = FederationRegistry.Result(
            id,
            3,
            2,
            survivorsHash,
            vm.parseJsonBytes32(json, ".accumulator"),
            2,
            vm.parseJsonBytes32(json, ".signed[1].message.baseModel"),
            vm.parseJsonBytes32(json, ".signed[1].message.aggregate"),
            vm.parseJsonBytes32(json, ".signed[1].message.model"),
            vm.parseJsonBytes32(json, ".signed[1].message.metrics"),
            uint64(vm.parseJsonUint(json, ".signed[1].message.epsilonMicro"))
        );
        _checkSigned(json, ".signed[0]", there.hashSurvivors(set, survivorsHash), survivors);
        _checkSigned(json, ".signed[1]", there.hashResult(result), survivors);
    }

    function test_a_federation_is_read_back() public view {
        FederationRegistry.Federation memory made = registry.get(federation);
        assert(made.founder == FOUNDER && made.status == FederationRegistry.Status.Idle);
        assert(made.round == 1 && made.attempt == 0 && made.minSurvivors == 3 && made.quorum == 2);
        assert(made.model == MODEL && made.configHash == keccak256("config"));
        assert(federation == registry.federationId(FOUNDER, made.configHash));
        assert(keccak256(abi.encode(registry.participantsOf(federation))) == keccak256(abi.encode(participants)));
        for (uint256 i = 0; i < 4; ++i) {
            assert(registry.positionOf(federation, participants[i]) == i + 1 && registry.isMember(federation, participants[i]));
        }
        for (uint256 i = 0; i < 3; ++i) {
            assert(registry.isAggregator(federation, aggregators[i]) && registry.isMember(federation, aggregators[i]));
        }
        assert(registry.isMember(federation, FOUNDER) && !registry.isMember(federation, address(this)));
        assert(registry.isTrustedForwarder(address(0xF0)) && !registry.isTrustedForwarder(address(this)));
    }

    /// @dev Founded exactly if all bounds hold: sizes, order, and both majorities.
    function testFuzz_bounds_of_a_federation(uint8 n, uint8 m, uint16 minSurvivors, uint16 quorum, uint8 disorder) public {
        n = n % 140;
        m = m % 20;
        minSurvivors = minSurvivors % 140;
        quorum = quorum % 20;
        FederationRegistry.Founding memory given = FederationRegistry.Founding(
            keccak256("other"), MODEL, minSurvivors, quorum, _addresses(n, 0x5000), _addresses(m, 0x6000)
        );
        bool valid = n >= 3 && n <= 128 && m >= 1 && m <= 16;
        valid = valid && 2 * uint256(minSurvivors) > n && minSurvivors <= n && 2 * uint256(quorum) > m && quorum <= m;
        if (disorder % 8 == 1 && n > 1) (given.participants[0], valid) = (given.participants[n - 1], false);
        if (disorder % 8 == 2 && m > 1) (given.aggregators[0], valid) = (given.aggregators[m - 1], false);
        if (disorder % 8 == 3 && n > 0) (given.participants[0], valid) = (address(0), false);
        (bool success,) = address(registry).call(abi.encodeCall(FederationRegistry.create, (given)));
        assert(success == valid);
    }

    function test_a_configuration_is_used_once_a_founder() public {
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.FederationExists.selector, federation));
        vm.prank(FOUNDER);
        registry.create(_founding());
        // Somebody else who sees it cannot take its place.
        assert(registry.create(_founding()) != federation);
        FederationRegistry.Founding memory given = _founding();
        given.model = 0;
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.MissingHash.selector));
        registry.create(given);
    }

    function test_models_follow_each_other_round_by_round() public {
        bytes32 model = MODEL;
        for (uint64 round = 1; round <= 3; ++round) {
            _open(round, 1);
            _commitAll(round, 1, 4);
            (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(round, 1, 15);
            registry.fixSurvivors(set, _approve(registry.hashSurvivors(set, survivorsHash), 3));
            FederationRegistry.Result memory result = _result(round, 1, 15);
            assert(result.baseModel == model);
            registry.finalise(result, _approve(registry.hashResult(result), 6));
            model = result.model;
            FederationRegistry.Federation memory current = registry.get(federation);
            assert(current.status == FederationRegistry.Status.Idle && current.model == model);
            assert(current.round == round + 1 && current.attempt == 0);
        }
    }

    function test_a_committed_participant_that_drops_does_not_block_the_round() public {
        _open(1, 1);
        _commitAll(1, 1, 4);
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(1, 1, 7);
        Quorum.Approval[] memory approvals = _approve(registry.hashSurvivors(set, survivorsHash), 3);
        uint48 commitUntil = registry.get(federation).commitUntil;
        // Not before its time to commit is over, to the last second: nobody who is slow is left out.
        vm.warp(commitUntil);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.CommitmentsStillOpen.selector, commitUntil, block.timestamp));
        registry.fixSurvivors(set, approvals);
        vm.warp(commitUntil + 1);
        registry.fixSurvivors(set, approvals);
        FederationRegistry.Result memory result = _result(1, 1, 7);
        registry.finalise(result, _approve(registry.hashResult(result), 3));
        assert(registry.get(federation).model == result.model);
    }

    function test_survivors_are_fixed_once() public {
        _fix(15);
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(1, 1, 7);
        Quorum.Approval[] memory approvals = _approve(registry.hashSurvivors(set, survivorsHash), 7);
        vm.warp(block.timestamp + 2 hours);
        vm.expectRevert(
            abi.encodeWithSelector(
                FederationRegistry.WrongStatus.selector,
                federation,
                FederationRegistry.Status.Open,
                FederationRegistry.Status.Fixed
            )
        );
        registry.fixSurvivors(set, approvals);
    }

    function test_every_survivor_has_committed_and_is_listed_once() public {
        _open(1, 1);
        _commitAll(1, 1, 3);
        vm.warp(block.timestamp + 2 hours);
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(1, 1, 15);
        Quorum.Approval[] memory approvals = _approve(registry.hashSurvivors(set, survivorsHash), 3);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.NoCommitment.selector, participants[3]));
        registry.fixSurvivors(set, approvals);

        (set, survivorsHash) = _set(1, 1, 7);
        set.survivors[1] = set.survivors[0];
        vm.expectRevert(abi.encodeWithSelector(Quorum.AddressesNotAscending.selector, set.survivors[0], set.survivors[0]));
        registry.fixSurvivors(set, approvals);

        (set, survivorsHash) = _set(1, 1, 3);
        approvals = _approve(registry.hashSurvivors(set, survivorsHash), 3);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.TooFewSurvivors.selector, 3, 2));
        registry.fixSurvivors(set, approvals);

        (set, survivorsHash) = _set(1, 1, 7);
        set.maskedRecord = 0;
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.MissingHash.selector));
        registry.fixSurvivors(set, approvals);
    }

    /// @dev Bits choose signers out of three aggregators: accepted exactly if two of them signed, and signed this.
    function testFuzz_a_quorum_signs(uint8 bits, uint8 forged, bytes32 other) public {
        bits = bits % 8;
        _open(1, 1);
        _commitAll(1, 1, 4);
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(1, 1, 15);
        Quorum.Approval[] memory approvals = _approve(registry.hashSurvivors(set, survivorsHash), bits);
        bool valid = approvals.length >= 2;
        if (forged % 2 == 1 && approvals.length > 0) {
            uint256 which = forged % approvals.length;
            approvals[which].signature = _sign(_keyOf(approvals[which].signer), other);
            valid = false;
        }
        (bool success,) = address(registry).call(abi.encodeCall(FederationRegistry.fixSurvivors, (set, approvals)));
        assert(success == valid);
        assert((registry.get(federation).status == FederationRegistry.Status.Fixed) == valid);
    }

    function test_each_refusal_of_a_quorum_has_its_error() public {
        _fix(15);
        FederationRegistry.Result memory result = _result(1, 1, 15);
        bytes32 digest = registry.hashResult(result);
        Quorum.Approval[] memory approvals = _approve(digest, 1);
        vm.expectRevert(abi.encodeWithSelector(Quorum.QuorumNotReached.selector, 2, 1));
        registry.finalise(result, approvals);

        approvals = _approve(digest, 3);
        (approvals[0], approvals[1]) = (approvals[1], approvals[0]);
        vm.expectRevert(abi.encodeWithSelector(Quorum.AddressesNotAscending.selector, approvals[0].signer, approvals[1].signer));
        registry.finalise(result, approvals);
        approvals[1] = approvals[0];
        vm.expectRevert(abi.encodeWithSelector(Quorum.AddressesNotAscending.selector, approvals[0].signer, approvals[0].signer));
        registry.finalise(result, approvals);

        approvals = _approve(digest, 3);
        approvals[1].signature = approvals[0].signature;
        vm.expectRevert(abi.encodeWithSelector(Quorum.InvalidApproval.selector, approvals[1].signer));
        registry.finalise(result, approvals);

        approvals = _approve(digest, 3);
        uint256 stranger = 0xBAD;
        approvals[1] = Quorum.Approval(vm.addr(stranger), _sign(stranger, digest));
        if (approvals[0].signer > approvals[1].signer) (approvals[0], approvals[1]) = (approvals[1], approvals[0]);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.NotAggregator.selector, federation, vm.addr(stranger)));
        registry.finalise(result, approvals);
    }

    /// @dev One member of the result differs from what the chain knows: refused, whoever signed it.
    function test_a_result_matches_its_round() public {
        _fix(15);
        FederationRegistry.Result memory right = _result(1, 1, 15);
        FederationRegistry.Result memory result = _result(1, 1, 15);
        result.round = 2;
        _refused(result, abi.encodeWithSelector(FederationRegistry.RoundMismatch.selector, 1, 1, 2, 1));
        result = _result(1, 1, 15);
        result.attempt = 2;
        _refused(result, abi.encodeWithSelector(FederationRegistry.RoundMismatch.selector, 1, 1, 1, 2));
        result = _result(1, 1, 15);
        result.survivorsHash = keccak256("others");
        _refused(
            result,
            abi.encodeWithSelector(FederationRegistry.SurvivorsMismatch.selector, right.survivorsHash, result.survivorsHash)
        );
        result = _result(1, 1, 15);
        result.accumulator = keccak256("one update dropped");
        _refused(
            result,
            abi.encodeWithSelector(FederationRegistry.AccumulatorMismatch.selector, right.accumulator, result.accumulator)
        );
        result = _result(1, 1, 15);
        result.updates = 3;
        _refused(result, abi.encodeWithSelector(FederationRegistry.UpdatesMismatch.selector, 4, 3));
        result = _result(1, 1, 15);
        result.baseModel = keccak256("another base");
        _refused(result, abi.encodeWithSelector(FederationRegistry.BaseModelMismatch.selector, MODEL, result.baseModel));
        result = _result(1, 1, 15);
        result.model = 0;
        _refused(result, abi.encodeWithSelector(FederationRegistry.MissingHash.selector));
        result = _result(1, 1, 15);
        result.aggregate = 0;
        _refused(result, abi.encodeWithSelector(FederationRegistry.MissingHash.selector));
        registry.finalise(right, _approve(registry.hashResult(right), 7));
    }

    function test_a_commitment_is_the_participants_and_final() public {
        _open(1, 1);
        bytes32 ctx = registry.contextOf(federation, 1, 1, MANIFEST);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.NotParticipant.selector, federation, aggregators[0]));
        vm.prank(aggregators[0]);
        registry.commitUpdate(federation, ctx, keccak256("update"));
        bytes32 stale = registry.contextOf(federation, 1, 1, keccak256("another manifest"));
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.ContextMismatch.selector, ctx, stale));
        vm.prank(participants[0]);
        registry.commitUpdate(federation, stale, keccak256("update"));
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.MissingHash.selector));
        vm.prank(participants[0]);
        registry.commitUpdate(federation, ctx, 0);
        vm.prank(participants[0]);
        registry.commitUpdate(federation, ctx, keccak256("update"));
        assert(registry.commitmentOf(ctx, participants[0]) == keccak256("update"));
        vm.expectRevert(
            abi.encodeWithSelector(FederationRegistry.AlreadyCommitted.selector, participants[0], keccak256("update"))
        );
        vm.prank(participants[0]);
        registry.commitUpdate(federation, ctx, keccak256("better update"));
        uint48 commitUntil = registry.get(federation).commitUntil;
        vm.warp(commitUntil + 1);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.CommitmentsClosed.selector, commitUntil, commitUntil + 1));
        vm.prank(participants[1]);
        registry.commitUpdate(federation, ctx, keccak256("update"));
    }

    function testFuzz_times_of_a_round(uint48 commitIn, uint48 deadlineIn) public {
        uint48 time = uint48(block.timestamp);
        commitIn = commitIn % 35 days;
        deadlineIn = deadlineIn % 35 days;
        bool valid = commitIn > 0 && deadlineIn > commitIn && deadlineIn <= registry.MAX_ROUND();
        vm.prank(aggregators[0]);
        (bool success,) = address(registry)
            .call(
                abi.encodeCall(FederationRegistry.openRound, (federation, 1, 1, MANIFEST, time + commitIn, time + deadlineIn))
            );
        assert(success == valid);
    }

    function test_only_aggregators_open_the_round_that_is_next() public {
        uint48 time = uint48(block.timestamp);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.NotAggregator.selector, federation, FOUNDER));
        vm.prank(FOUNDER);
        registry.openRound(federation, 1, 1, MANIFEST, time + 1, time + 2);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.RoundMismatch.selector, 1, 1, 2, 1));
        vm.prank(aggregators[0]);
        registry.openRound(federation, 2, 1, MANIFEST, time + 1, time + 2);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.MissingHash.selector));
        vm.prank(aggregators[0]);
        registry.openRound(federation, 1, 1, 0, time + 1, time + 2);
        _open(1, 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                FederationRegistry.WrongStatus.selector,
                federation,
                FederationRegistry.Status.Idle,
                FederationRegistry.Status.Open
            )
        );
        vm.prank(aggregators[0]);
        registry.openRound(federation, 1, 2, MANIFEST, time + 1, time + 2);
    }

    function test_an_abandoned_round_gets_another_attempt_from_the_same_model() public {
        _open(1, 1);
        _commitAll(1, 1, 4);
        uint48 deadline = registry.get(federation).deadline;
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.DeadlineNotReached.selector, deadline, block.timestamp));
        vm.prank(participants[0]);
        registry.abandon(federation, 1, 1);
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.NotMember.selector, federation, address(this)));
        registry.abandon(federation, 1, 1);
        vm.prank(participants[0]);
        registry.abandon(federation, 1, 1);

        _open(1, 2);
        // Commitments of the first attempt do not count in the second, nor do signatures.
        assert(registry.get(federation).committed == 0);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.RoundMismatch.selector, 1, 2, 1, 1));
        vm.prank(participants[0]);
        registry.abandon(federation, 1, 1);
        _commitAll(1, 2, 4);
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(1, 2, 15);
        registry.fixSurvivors(set, _approve(registry.hashSurvivors(set, survivorsHash), 3));
        assert(registry.get(federation).model == MODEL);
    }

    function test_a_round_without_enough_commitments_is_abandoned_early() public {
        _open(1, 1);
        _commitAll(1, 1, 2);
        FederationRegistry.Federation memory current = registry.get(federation);
        // In the last second the third may still commit.
        vm.warp(current.commitUntil);
        vm.expectRevert(
            abi.encodeWithSelector(FederationRegistry.DeadlineNotReached.selector, current.deadline, current.commitUntil)
        );
        vm.prank(aggregators[0]);
        registry.abandon(federation, 1, 1);
        vm.warp(current.commitUntil + 1);
        vm.prank(aggregators[0]);
        registry.abandon(federation, 1, 1);
        assert(registry.get(federation).status == FederationRegistry.Status.Idle);
    }

    function test_survivors_are_in_time_until_the_last_second() public {
        _open(1, 1);
        _commitAll(1, 1, 4);
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(1, 1, 15);
        Quorum.Approval[] memory approvals = _approve(registry.hashSurvivors(set, survivorsHash), 3);
        vm.warp(registry.get(federation).deadline);
        registry.fixSurvivors(set, approvals);
        assert(registry.get(federation).status == FederationRegistry.Status.Fixed);
    }

    function test_fixed_survivors_are_never_followed_by_others_on_the_same_model() public {
        _fix(15);
        vm.warp(registry.get(federation).deadline);
        vm.expectRevert(
            abi.encodeWithSelector(FederationRegistry.DeadlineNotReached.selector, uint48(block.timestamp), block.timestamp)
        );
        vm.prank(participants[0]);
        registry.abandon(federation, 1, 1);
        vm.warp(block.timestamp + 1);
        vm.prank(participants[0]);
        registry.abandon(federation, 1, 1);
        assert(registry.get(federation).status == FederationRegistry.Status.Closed);
        bytes memory closed = abi.encodeWithSelector(
            FederationRegistry.WrongStatus.selector,
            federation,
            FederationRegistry.Status.Idle,
            FederationRegistry.Status.Closed
        );
        vm.expectRevert(closed);
        vm.prank(aggregators[0]);
        registry.openRound(federation, 1, 2, MANIFEST, uint48(block.timestamp + 1 hours), uint48(block.timestamp + 2 hours));
        vm.expectRevert(closed);
        vm.prank(FOUNDER);
        registry.close(federation);
    }

    /// @dev Both calls are under way when the round's time ends: in whatever order they arrive, the federation goes on.
    function test_survivors_that_arrive_late_do_not_end_the_federation() public {
        _open(1, 1);
        _commitAll(1, 1, 4);
        uint48 deadline = registry.get(federation).deadline;
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(1, 1, 15);
        Quorum.Approval[] memory approvals = _approve(registry.hashSurvivors(set, survivorsHash), 3);
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.SurvivorsTooLate.selector, deadline, uint256(deadline) + 1));
        registry.fixSurvivors(set, approvals);
        vm.prank(participants[0]);
        registry.abandon(federation, 1, 1);
        assert(registry.get(federation).status == FederationRegistry.Status.Idle);
        _open(1, 2);
    }

    function test_a_late_result_counts_until_the_round_is_abandoned() public {
        _fix(15);
        vm.warp(block.timestamp + 10 days);
        FederationRegistry.Result memory result = _result(1, 1, 15);
        registry.finalise(result, _approve(registry.hashResult(result), 3));
        assert(registry.get(federation).model == result.model);
    }

    function test_only_the_founder_closes_and_not_during_a_round() public {
        vm.expectRevert(abi.encodeWithSelector(FederationRegistry.NotFounder.selector, federation, aggregators[0]));
        vm.prank(aggregators[0]);
        registry.close(federation);
        _open(1, 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                FederationRegistry.WrongStatus.selector,
                federation,
                FederationRegistry.Status.Idle,
                FederationRegistry.Status.Open
            )
        );
        vm.prank(FOUNDER);
        registry.close(federation);
        vm.warp(block.timestamp + 3 days);
        vm.prank(FOUNDER);
        registry.abandon(federation, 1, 1);
        vm.prank(FOUNDER);
        registry.close(federation);
        assert(registry.get(federation).status == FederationRegistry.Status.Closed);
    }

    function test_a_wallet_signs_as_aggregator_and_a_key_whose_account_has_code_too() public {
        SignatureWallet wallet = new SignatureWallet(vm.addr(0xCAFE));
        FederationRegistry.Founding memory given = _founding();
        given.configHash = keccak256("with a wallet");
        given.aggregators = new address[](1);
        given.aggregators[0] = address(wallet);
        given.quorum = 1;
        federation = registry.create(given);
        vm.prank(address(wallet));
        registry.openRound(federation, 1, 1, MANIFEST, uint48(block.timestamp + 1 hours), uint48(block.timestamp + 1 days));
        _commitAll(1, 1, 4);
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(1, 1, 15);
        bytes32 digest = registry.hashSurvivors(set, survivorsHash);
        Quorum.Approval[] memory approvals = new Quorum.Approval[](1);
        approvals[0] = Quorum.Approval(address(wallet), _sign(0xBAD, digest));
        vm.expectRevert(abi.encodeWithSelector(Quorum.InvalidApproval.selector, address(wallet)));
        registry.fixSurvivors(set, approvals);
        approvals[0].signature = _sign(0xCAFE, digest);
        registry.fixSurvivors(set, approvals);

        given.configHash = keccak256("with a delegated account");
        given.aggregators[0] = aggregators[0];
        federation = registry.create(given);
        vm.etch(aggregators[0], hex"ef01000000000000000000000000000000000000000001");
        _open(1, 1);
        _commitAll(1, 1, 4);
        (set, survivorsHash) = _set(1, 1, 15);
        registry.fixSurvivors(set, _approve(registry.hashSurvivors(set, survivorsHash), 1));
    }

    function _checkSigned(string memory json, string memory entry, bytes32 digest, address[] memory signers) private pure {
        assert(digest == vm.parseJsonBytes32(json, string.concat(entry, ".eip712.digest")));
        for (uint256 i = 0; i < signers.length; ++i) {
            string memory key = string.concat(entry, ".signatures.", vm.toString(signers[i]));
            assert(ECDSA.recover(digest, vm.parseJsonBytes(json, key)) == signers[i]);
        }
    }

    function _refused(FederationRegistry.Result memory result, bytes memory refusal) private {
        Quorum.Approval[] memory approvals = _approve(registry.hashResult(result), 7);
        vm.expectRevert(refusal);
        registry.finalise(result, approvals);
    }

    function _founding() private view returns (FederationRegistry.Founding memory) {
        return FederationRegistry.Founding(keccak256("config"), MODEL, 3, 2, participants, aggregators);
    }

    function _open(uint64 round, uint64 attempt) private {
        uint48 time = uint48(block.timestamp);
        vm.prank(aggregators[0]);
        registry.openRound(federation, round, attempt, MANIFEST, time + 1 hours, time + 1 days);
    }

    function _commitAll(uint64 round, uint64 attempt, uint256 count) private {
        bytes32 ctx = registry.contextOf(federation, round, attempt, MANIFEST);
        for (uint256 i = 0; i < count; ++i) {
            vm.prank(participants[i]);
            registry.commitUpdate(federation, ctx, keccak256(abi.encode(ctx, i)));
        }
    }

    /// @dev Bit i of `bits` stands for participant i.
    function _set(uint64 round, uint64 attempt, uint256 bits)
        private
        view
        returns (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash)
    {
        address[] memory survivors = new address[](4);
        uint256 length = 0;
        for (uint256 i = 0; i < 4; ++i) {
            if (bits >> i & 1 == 1) survivors[length++] = participants[i];
        }
        assembly {
            mstore(survivors, length)
        }
        set = FederationRegistry.SurvivorSet(federation, round, attempt, keccak256("masked"), survivors);
        survivorsHash = keccak256(abi.encode(registry.contextOf(federation, round, attempt, MANIFEST), survivors));
    }

    function _result(uint64 round, uint64 attempt, uint256 bits) private view returns (FederationRegistry.Result memory) {
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(round, attempt, bits);
        bytes32 ctx = registry.contextOf(federation, round, attempt, MANIFEST);
        bytes32 accumulator = ctx;
        for (uint256 i = 0; i < 4; ++i) {
            if (bits >> i & 1 == 1) {
                accumulator = keccak256(abi.encode(accumulator, participants[i], keccak256(abi.encode(ctx, i))));
            }
        }
        return FederationRegistry.Result(
            federation,
            round,
            attempt,
            survivorsHash,
            accumulator,
            uint32(set.survivors.length),
            registry.get(federation).model,
            keccak256(abi.encode("aggregate", round)),
            keccak256(abi.encode("model", round)),
            0,
            0
        );
    }

    function _fix(uint256 bits) private {
        _open(1, 1);
        _commitAll(1, 1, 4);
        (FederationRegistry.SurvivorSet memory set, bytes32 survivorsHash) = _set(1, 1, bits);
        registry.fixSurvivors(set, _approve(registry.hashSurvivors(set, survivorsHash), 3));
    }

    /// @dev Bit i of `bits` stands for aggregator i.
    function _approve(bytes32 digest, uint256 bits) private view returns (Quorum.Approval[] memory approvals) {
        approvals = new Quorum.Approval[](3);
        uint256 length = 0;
        for (uint256 i = 0; i < 3; ++i) {
            if (bits >> i & 1 == 1) {
                approvals[length++] = Quorum.Approval(vm.addr(keys[i]), _sign(keys[i], digest));
            }
        }
        assembly {
            mstore(approvals, length)
        }
    }

    function _sign(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function _keyOf(address signer) private view returns (uint256) {
        for (uint256 i = 0; i < 3; ++i) {
            if (vm.addr(keys[i]) == signer) return keys[i];
        }
        revert("no such aggregator");
    }

    function _ascendingKeys() private pure returns (uint256[3] memory sorted) {
        sorted = [uint256(0xA1), 0xA2, 0xA3];
        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 j = i + 1; j < 3; ++j) {
                if (vm.addr(sorted[j]) < vm.addr(sorted[i])) (sorted[i], sorted[j]) = (sorted[j], sorted[i]);
            }
        }
    }

    function _addresses(uint256 count, uint160 from) private pure returns (address[] memory made) {
        made = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            made[i] = address(from + uint160(i));
        }
    }
}
