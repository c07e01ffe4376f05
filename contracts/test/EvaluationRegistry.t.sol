// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EvaluationCounts} from "../src/EvaluationCounts.sol";
import {EvaluationRegistry} from "../src/EvaluationRegistry.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {PositionalTree} from "../src/PositionalTree.sol";
import {Quorum} from "../src/Quorum.sol";
import {SignatureWallet} from "./SignatureWallet.sol";
import {vm} from "./Vm.sol";

contract EvaluationRegistryTest {
    EvaluationRegistry private registry;
    ModelRegistry private models;

    address private constant PROVIDER = address(0x51);
    address private constant MODEL_OWNER = address(0x52);
    address private constant DATA_OWNER = address(0xDA7A);
    bytes32 private constant MODEL = keccak256("model");
    bytes32 private constant DATA = keccak256("data");
    bytes32 private constant CERTIFICATE = keccak256("certificate");
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    uint256[3] private keys;
    address[] private auditors;
    bytes32 private evaluation;

    /// @dev Three auditors of whom two must sign.
    function setUp() public {
        vm.warp(1_799_000_000);
        vm.roll(1000);
        models = new ModelRegistry(address(0xF0));
        registry = new EvaluationRegistry(address(0xF0), models);
        vm.prank(MODEL_OWNER);
        models.authorise(MODEL, keccak256("spec of the model"), "https://models.example");
        keys = [uint256(0xA1), 0xA2, 0xA3];
        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 j = i + 1; j < 3; ++j) {
                if (vm.addr(keys[j]) < vm.addr(keys[i])) (keys[i], keys[j]) = (keys[j], keys[i]);
            }
            auditors.push(vm.addr(keys[i]));
        }
        vm.prank(PROVIDER);
        evaluation = registry.open(_opening(1));
    }

    /// @dev The vectors fix a registry's address; its code is put there. The data owner stands before, between and after the auditors.
    function test_ids_commitments_transcript_and_seed_equal_the_vectors() public {
        string memory json = vm.readFile("../tests/vectors/evaluation.json");
        for (uint256 i = 0; i < 3; ++i) {
            EvaluationRegistry there = _there(json);
            string memory one = string.concat(".evaluations[", vm.toString(i), "]");
            bytes32 id = _openAsGiven(there, json, one);
            assert(id == vm.parseJsonBytes32(json, string.concat(one, ".evaluation")));
            assert(there.contextOf(id) == vm.parseJsonBytes32(json, string.concat(one, ".context")));
            _seedAsGiven(there, json, one, id);
            (EvaluationRegistry.Evaluation memory made,) = there.get(id);
            assert(made.transcript == vm.parseJsonBytes32(json, string.concat(one, ".transcript")));
            assert(made.seed == vm.parseJsonBytes32(json, string.concat(one, ".seed")));
            vm.warp(1_799_000_000);
        }
    }

    function test_signed_digests_equal_the_vectors() public {
        string memory json = vm.readFile("../tests/vectors/evaluation.json");
        EvaluationRegistry there = _there(json);
        bytes32 id = _openAsGiven(there, json, ".evaluations[0]");
        _seedAsGiven(there, json, ".evaluations[0]", id);
        bytes32 certificate = vm.parseJsonBytes32(json, ".signed[0].message.certificate");
        EvaluationRegistry.Attestation memory attestation = EvaluationRegistry.Attestation(
            id,
            vm.parseJsonBytes32(json, ".signed[0].message.seed"),
            certificate,
            uint8(vm.parseJsonUint(json, ".signed[0].message.level")),
            uint48(vm.parseJsonUint(json, ".signed[0].message.validUntil"))
        );
        bytes32[3] memory digests = [
            there.hashAttestation(attestation),
            there.hashRevocation(id, certificate, ModelRegistry.Reason.AuditFailed),
            there.hashResolution(id, certificate, vm.parseJsonAddress(json, ".signed[2].message.disputer"), true)
        ];
        for (uint256 i = 0; i < 3; ++i) {
            string memory place = string.concat(".signed[", vm.toString(i), "]");
            assert(digests[i] == vm.parseJsonBytes32(json, string.concat(place, ".eip712.digest")));
        }
        there.attest(attestation, _given(json, ".signed[0]"));
        there.revokeByAuditors(id, certificate, ModelRegistry.Reason.AuditFailed, _given(json, ".signed[1]"));
        (EvaluationRegistry.Evaluation memory made,) = there.get(id);
        assert(made.status == EvaluationCounts.Status.Revoked && made.reason == ModelRegistry.Reason.AuditFailed);
    }

    function test_an_evaluation_from_opening_to_certificate() public {
        (EvaluationRegistry.Evaluation memory made, EvaluationRegistry.Party[] memory parties) = registry.get(evaluation);
        assert(made.provider == PROVIDER && made.modelOwner == MODEL_OWNER && made.dataOwner == DATA_OWNER);
        assert(made.status == EvaluationCounts.Status.Open && made.quorum == 2 && made.number == 0);
        assert(parties.length == 4 && registry.isParty(evaluation, DATA_OWNER) && !registry.isParty(evaluation, PROVIDER));
        for (uint256 i = 1; i < 4; ++i) {
            assert(parties[i - 1].party < parties[i].party);
        }
        _commitNonces(evaluation);
        _run(evaluation);
        (made,) = registry.get(evaluation);
        assert(made.status == EvaluationCounts.Status.Run && made.beaconBlock == block.number + 4 && made.beacon == 0);
        _reveal(evaluation, 15);
        (made, parties) = registry.get(evaluation);
        assert(made.status == EvaluationCounts.Status.Seeded && made.beacon == blockhash(made.beaconBlock));
        bytes memory mixed = bytes.concat(made.transcript, made.beacon);
        for (uint256 i = 0; i < 4; ++i) {
            assert(parties[i].nonce == _nonce(evaluation, parties[i].party));
            mixed = bytes.concat(mixed, parties[i].nonce);
        }
        assert(made.seed == sha256(mixed));
        assert(!registry.standing(evaluation, CERTIFICATE));
        _attest(evaluation);
        (bytes32 certificate, uint8 level, uint48 validUntil) = registry.certificateOf(evaluation);
        assert(certificate == CERTIFICATE && level == 2 && validUntil == block.timestamp + 365 days);
        assert(registry.standing(evaluation, CERTIFICATE));
        _checkCounts(registry.evaluationsOf(DATA_OWNER, DATA), [uint32(1), 1, 1, 1, 0, 0, 0]);
        _checkCounts(registry.evaluationsOfModel(DATA_OWNER, DATA, MODEL), [uint32(1), 1, 1, 1, 0, 0, 0]);
        _checkCounts(registry.evaluationsOfModel(DATA_OWNER, DATA, keccak256("other")), [uint32(0), 0, 0, 0, 0, 0, 0]);
        assert(registry.isTrustedForwarder(address(0xF0)) && !registry.isTrustedForwarder(address(this)));
    }

    /// @dev Opened exactly if all bounds hold: sizes, order, majority, times, and the independence of auditors.
    function testFuzz_bounds_of_an_opening(uint8 n, uint16 quorum, uint8 flaw, uint48[4] memory times) public {
        n = n % 20;
        quorum = quorum % 20;
        EvaluationRegistry.Opening memory given = _opening(2);
        given.quorum = quorum;
        given.auditors = new address[](n);
        for (uint256 i = 0; i < n; ++i) {
            given.auditors[i] = address(uint160(0x5000 + i));
        }
        uint48 time = uint48(block.timestamp);
        if (flaw % 4 == 0) {
            given.nonceUntil = time - 1 + times[0] % 3;
            given.runUntil = given.nonceUntil + times[1] % 3;
            given.revealUntil = given.runUntil + times[2] % 3;
            given.attestUntil = given.revealUntil + times[3] % 100 days;
        }
        bool valid = n >= 1 && n <= 16 && 2 * uint256(quorum) > n && quorum <= n;
        valid = valid && time < given.nonceUntil && given.nonceUntil < given.runUntil && given.runUntil < given.revealUntil;
        valid = valid && given.revealUntil < given.attestUntil && given.attestUntil <= time + 90 days;
        if (flaw % 16 == 1 && n > 1) (given.auditors[0], valid) = (given.auditors[n - 1], false);
        if (flaw % 16 == 2 && n > 0) (given.auditors[0], valid) = (address(0), false);
        if (flaw % 16 == 3 && n > 0) (given.auditors[n - 1], valid) = (DATA_OWNER, false);
        if (flaw % 16 == 5 && n == 1) (given.auditors[0], valid) = (PROVIDER, false);
        if (flaw % 16 == 6 && n == 1) (given.auditors[0], valid) = (MODEL_OWNER, false);
        if (flaw % 16 == 7) (given.dataOwner, valid) = (address(0), false);
        if (flaw % 16 == 9) (given.specHash, valid) = (0, false);
        if (flaw % 16 == 10) (given.dataRecord, valid) = (0, false);
        if (flaw % 16 == 11) (given.keyCommitment, valid) = (0, false);
        vm.prank(PROVIDER);
        (bool success,) = address(registry).call(abi.encodeCall(EvaluationRegistry.open, (given)));
        assert(success == valid);
    }

    function test_only_a_model_that_its_owner_vouches_for_is_evaluated() public {
        EvaluationRegistry.Opening memory given = _opening(2);
        given.modelOwner = PROVIDER;
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.ModelNotAuthorised.selector, PROVIDER, MODEL));
        registry.open(given);
        vm.prank(MODEL_OWNER);
        models.revoke(MODEL, ModelRegistry.Reason.KeyCompromise);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.ModelNotAuthorised.selector, MODEL_OWNER, MODEL));
        registry.open(_opening(2));
    }

    /// @dev Every member is in the id: who agreed to one evaluation can not be found in another.
    function test_an_opening_is_used_once_and_every_member_changes_its_id() public {
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.EvaluationExists.selector, evaluation));
        vm.prank(PROVIDER);
        registry.open(_opening(1));
        assert(registry.open(_opening(1)) != evaluation);

        bytes memory right = abi.encode(_opening(1));
        // Words 1 to 12 of the struct behind its offset; the auditors follow behind their length.
        for (uint256 word = 1; word <= 17; ++word) {
            if (word == 13 || word == 14) continue;
            bytes memory other = bytes.concat(right);
            other[32 * word + 31] ^= 0x01;
            EvaluationRegistry.Opening memory changed = abi.decode(other, (EvaluationRegistry.Opening));
            assert(registry.evaluationId(PROVIDER, changed) != evaluation);
        }
        assert(registry.evaluationId(PROVIDER, _opening(1)) == evaluation);
        vm.chainId(1);
        assert(registry.evaluationId(PROVIDER, _opening(1)) != evaluation);
    }

    /// @dev What strangers open, or agree to among themselves, counts on nobody's data but their own.
    function test_only_the_data_owner_moves_his_count() public {
        for (uint64 i = 2; i < 5; ++i) {
            registry.open(_opening(i));
        }
        _checkCounts(registry.evaluationsOf(DATA_OWNER, DATA), [uint32(0), 0, 0, 0, 0, 0, 0]);
        // Opened, and committed to by auditors only: expires uncounted.
        vm.prank(auditors[0]);
        registry.commitNonce(evaluation, keccak256("nonce"));
        EvaluationRegistry.Opening memory given = _opening(9);
        given.dataOwner = address(0xBAD);
        bytes32 sham = registry.open(given);
        vm.prank(address(0xBAD));
        registry.commitNonce(sham, keccak256("nonce"));
        _checkCounts(registry.evaluationsOf(address(0xBAD), DATA), [uint32(1), 0, 0, 0, 0, 0, 0]);
        _checkCounts(registry.evaluationsOfRecord(DATA), [uint32(1), 0, 0, 0, 0, 0, 0]);
        vm.warp(block.timestamp + 1 hours + 1);
        registry.expire(evaluation);
        _checkCounts(registry.evaluationsOf(DATA_OWNER, DATA), [uint32(0), 0, 0, 0, 0, 0, 0]);
        registry.expire(sham);
        _checkCounts(registry.evaluationsOf(address(0xBAD), DATA), [uint32(1), 0, 0, 0, 0, 0, 1]);
    }

    function test_nonces_are_committed_to_once_by_parties_before_the_run() public {
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.NotParty.selector, evaluation, PROVIDER));
        vm.prank(PROVIDER);
        registry.commitNonce(evaluation, keccak256("nonce"));
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.MissingHash.selector));
        vm.prank(auditors[0]);
        registry.commitNonce(evaluation, 0);

        vm.prank(auditors[0]);
        registry.commitNonce(evaluation, keccak256("nonce"));
        // An auditor who thinks again.
        vm.expectRevert(
            abi.encodeWithSelector(EvaluationRegistry.NonceAlreadyCommitted.selector, auditors[0], keccak256("nonce"))
        );
        vm.prank(auditors[0]);
        registry.commitNonce(evaluation, keccak256("another"));
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.NoncesMissing.selector, 4, 1));
        vm.prank(PROVIDER);
        registry.commitRun(evaluation, _roots());

        (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
        vm.warp(made.nonceUntil + 1);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.DeadlinePassed.selector, made.nonceUntil, block.timestamp));
        vm.prank(auditors[1]);
        registry.commitNonce(evaluation, keccak256("late"));
    }

    function test_the_provider_commits_to_one_run() public {
        _commitNonces(evaluation);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.NotProvider.selector, evaluation, auditors[0]));
        vm.prank(auditors[0]);
        registry.commitRun(evaluation, _roots());
        for (uint256 i = 0; i < 4; ++i) {
            EvaluationRegistry.Roots memory roots = _roots();
            if (i == 0) roots.trace = 0;
            if (i == 1) roots.outputs = 0;
            if (i == 2) roots.scores = 0;
            if (i == 3) roots.claimHash = 0;
            vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.MissingHash.selector));
            vm.prank(PROVIDER);
            registry.commitRun(evaluation, roots);
        }
        _run(evaluation);
        // Roots that the seed would like better, and a nonce after the roots.
        bytes memory once = _wrong(evaluation, EvaluationCounts.Status.Open, EvaluationCounts.Status.Run);
        vm.expectRevert(once);
        vm.prank(PROVIDER);
        registry.commitRun(evaluation, EvaluationRegistry.Roots(keccak256("better"), MODEL, MODEL, MODEL));
        vm.expectRevert(once);
        vm.prank(auditors[0]);
        registry.commitNonce(evaluation, keccak256("late"));
    }

    function test_a_late_run_is_refused() public {
        _commitNonces(evaluation);
        (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
        vm.warp(made.runUntil + 1);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.DeadlinePassed.selector, made.runUntil, block.timestamp));
        vm.prank(PROVIDER);
        registry.commitRun(evaluation, _roots());
    }

    /// @dev From the fifth block after the run to the last that remembers the fourth; the same value whenever it is asked.
    function testFuzz_the_beacon_is_the_hash_of_one_block(uint16 later, bytes32 hash) public {
        vm.assume(hash != 0);
        _commitNonces(evaluation);
        _run(evaluation);
        uint256 place = block.number + 4;
        later = later % 600;
        vm.roll(block.number + later);
        if (block.number > place && block.number <= place + 256) {
            vm.setBlockhash(place, hash);
            registry.fixBeacon(evaluation);
            (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
            assert(made.beacon == hash && !registry.isOverdue(evaluation));
            vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.BeaconAlreadyFixed.selector, hash));
            registry.fixBeacon(evaluation);
        } else if (block.number <= place) {
            vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.BeaconNotYet.selector, place, block.number));
            registry.fixBeacon(evaluation);
            assert(!registry.isOverdue(evaluation));
        } else {
            vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.BeaconMissed.selector, place, block.number));
            registry.fixBeacon(evaluation);
            registry.expire(evaluation);
            _checkCounts(registry.evaluationsOf(DATA_OWNER, DATA), [uint32(1), 1, 0, 0, 0, 0, 1]);
            // Nobody withheld anything that the chain still asked for.
            assert(registry.withheldBy(auditors[0]) == 0);
        }
    }

    /// @dev As soon as nobody can fix it any more, anybody can end the evaluation, and not one block before.
    function test_an_evaluation_waits_for_its_beacon_to_the_last_block() public {
        _commitNonces(evaluation);
        _run(evaluation);
        uint256 last = block.number + 4 + 256;
        vm.roll(last);
        assert(!registry.isOverdue(evaluation) && blockhash(last - 256) != 0);
        vm.roll(last + 1);
        assert(registry.isOverdue(evaluation) && blockhash(last - 256) == 0);
    }

    function test_a_nonce_is_the_one_committed_to_for_this_run_and_this_beacon() public {
        _commitNonces(evaluation);
        _run(evaluation);
        (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
        address party = auditors[1];
        bytes32 nonce = _nonce(evaluation, party);
        bytes32 transcript = made.transcript;
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.BeaconNotYet.selector, made.beaconBlock, block.number));
        vm.prank(party);
        registry.revealNonce(evaluation, transcript, 0, nonce);
        vm.roll(made.beaconBlock + 1);
        bytes32 beacon = blockhash(made.beaconBlock);

        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.NotParty.selector, evaluation, PROVIDER));
        vm.prank(PROVIDER);
        registry.revealNonce(evaluation, transcript, beacon, nonce);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.TranscriptMismatch.selector, transcript, MODEL));
        vm.prank(party);
        registry.revealNonce(evaluation, MODEL, beacon, nonce);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.BeaconMismatch.selector, beacon, MODEL));
        vm.prank(party);
        registry.revealNonce(evaluation, transcript, MODEL, nonce);
        // Neither another nonce nor another party's.
        bytes32 commitment = registry.nonceCommitment(evaluation, party, nonce);
        for (uint256 i = 0; i < 2; ++i) {
            bytes32 other = i == 0 ? _nonce(evaluation, auditors[0]) : bytes32(0);
            bytes32 got = registry.nonceCommitment(evaluation, party, other);
            vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.CommitmentMismatch.selector, commitment, got));
            vm.prank(party);
            registry.revealNonce(evaluation, transcript, beacon, other);
        }
        vm.prank(party);
        registry.revealNonce(evaluation, transcript, beacon, nonce);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.NonceAlreadyRevealed.selector, party, nonce));
        vm.prank(party);
        registry.revealNonce(evaluation, transcript, beacon, nonce);
        vm.warp(made.revealUntil + 1);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.DeadlinePassed.selector, made.revealUntil, block.timestamp));
        vm.prank(auditors[0]);
        registry.revealNonce(evaluation, transcript, beacon, _nonce(evaluation, auditors[0]));
    }

    /// @dev Who sees the others' nonces and does not like the seed can stop it, by name and in public, and gets no second one here.
    function testFuzz_a_withheld_nonce_ends_the_evaluation(uint8 revealing) public {
        revealing = revealing % 15;
        _commitNonces(evaluation);
        _run(evaluation);
        (EvaluationRegistry.Evaluation memory made, EvaluationRegistry.Party[] memory parties) = registry.get(evaluation);
        vm.roll(made.beaconBlock + 1);
        registry.fixBeacon(evaluation);
        _reveal(evaluation, revealing);
        vm.roll(block.number + 1000);
        vm.warp(made.revealUntil);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.NotOverdue.selector, evaluation, EvaluationCounts.Status.Run));
        registry.expire(evaluation);
        vm.warp(block.timestamp + 1);
        registry.expire(evaluation);
        (made,) = registry.get(evaluation);
        assert(made.status == EvaluationCounts.Status.Expired && made.seed == 0);
        for (uint256 i = 0; i < 4; ++i) {
            assert(registry.withheldBy(parties[i].party) == 1 - (revealing >> i & 1));
        }
        _checkCounts(registry.evaluationsOf(DATA_OWNER, DATA), [uint32(1), 1, 0, 0, 0, 0, 1]);
        vm.expectRevert(
            abi.encodeWithSelector(EvaluationRegistry.NotOverdue.selector, evaluation, EvaluationCounts.Status.Expired)
        );
        registry.expire(evaluation);
    }

    function test_every_state_has_an_exit_by_time_and_not_before() public {
        (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
        _overdueAfter(made.nonceUntil);
        vm.warp(1_799_000_000);
        _commitNonces(evaluation);
        _overdueAfter(made.runUntil);
        vm.warp(1_799_000_000);
        _run(evaluation);
        _reveal(evaluation, 15);
        _overdueAfter(made.attestUntil);
        vm.warp(1_799_000_000);
        _attest(evaluation);
        vm.warp(block.timestamp + 10_000 days);
        assert(!registry.isOverdue(evaluation));
        vm.warp(1_799_000_000);
        vm.prank(DATA_OWNER);
        registry.dispute(evaluation, 3, 1, keccak256("evidence"));
        (made,) = registry.get(evaluation);
        _overdueAfter(made.disputeUntil);
        registry.expire(evaluation);
        _checkCounts(registry.evaluationsOf(DATA_OWNER, DATA), [uint32(1), 1, 1, 1, 1, 0, 1]);
        assert(!registry.standing(evaluation, CERTIFICATE) && registry.withheldBy(DATA_OWNER) == 0);
        // What is not there has no time.
        assert(!registry.isOverdue(keccak256("nothing")));
    }

    /// @dev Bits choose signers out of three auditors: attested exactly if two of them signed, and signed this.
    function testFuzz_a_quorum_attests(uint8 bits, uint8 forged, bytes32 other) public {
        bits = bits % 8;
        _seed(evaluation);
        EvaluationRegistry.Attestation memory attestation = _attestation(evaluation);
        Quorum.Approval[] memory approvals = _approve(registry.hashAttestation(attestation), bits);
        bool valid = approvals.length >= 2;
        if (forged % 2 == 1 && approvals.length > 0) {
            uint256 which = forged % approvals.length;
            approvals[which].signature = _sign(_keyOf(approvals[which].signer), other);
            valid = false;
        }
        (bool success,) = address(registry).call(abi.encodeCall(EvaluationRegistry.attest, (attestation, approvals)));
        assert(success == valid && registry.standing(evaluation, CERTIFICATE) == valid);
    }

    function test_each_refusal_of_signers_has_its_error() public {
        _seed(evaluation);
        EvaluationRegistry.Attestation memory attestation = _attestation(evaluation);
        bytes32 digest = registry.hashAttestation(attestation);
        Quorum.Approval[] memory approvals = _approve(digest, 1);
        vm.expectRevert(abi.encodeWithSelector(Quorum.QuorumNotReached.selector, 2, 1));
        registry.attest(attestation, approvals);

        // One auditor twice, also with the second form of its signature (s in the upper half).
        approvals = _approve(digest, 3);
        approvals[1] = Quorum.Approval(approvals[0].signer, _malleated(approvals[0].signature));
        vm.expectRevert(abi.encodeWithSelector(Quorum.AddressesNotAscending.selector, approvals[0].signer, approvals[0].signer));
        registry.attest(attestation, approvals);
        approvals = _approve(digest, 3);
        approvals[1].signature = _malleated(approvals[1].signature);
        vm.expectRevert(abi.encodeWithSelector(Quorum.InvalidApproval.selector, approvals[1].signer));
        registry.attest(attestation, approvals);

        // Who is no auditor of this evaluation.
        approvals = _approve(digest, 3);
        uint256 stranger = 0xBAD;
        approvals[1] = Quorum.Approval(vm.addr(stranger), _sign(stranger, digest));
        if (approvals[0].signer > approvals[1].signer) (approvals[0], approvals[1]) = (approvals[1], approvals[0]);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.NotAuditor.selector, evaluation, vm.addr(stranger)));
        registry.attest(attestation, approvals);
    }

    /// @dev The data owner gives a nonce like an auditor; his signature is none.
    function test_the_data_owner_does_not_attest() public {
        EvaluationRegistry.Opening memory given = _opening(3);
        uint256 key = 0xD0;
        given.dataOwner = vm.addr(key);
        vm.prank(PROVIDER);
        bytes32 made = registry.open(given);
        _seed(made);
        EvaluationRegistry.Attestation memory attestation = _attestation(made);
        bytes32 digest = registry.hashAttestation(attestation);
        Quorum.Approval[] memory approvals = _approve(digest, 3);
        approvals[0] = Quorum.Approval(vm.addr(key), _sign(key, digest));
        if (approvals[0].signer > approvals[1].signer) (approvals[0], approvals[1]) = (approvals[1], approvals[0]);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.NotAuditor.selector, made, vm.addr(key)));
        registry.attest(attestation, approvals);
    }

    function test_an_attestation_counts_for_one_seed_of_one_evaluation_in_one_contract() public {
        _seed(evaluation);
        vm.prank(PROVIDER);
        bytes32 other = registry.open(_opening(2));
        _seed(other);
        EvaluationRegistry.Attestation memory attestation = _attestation(evaluation);
        bytes32 digest = registry.hashAttestation(attestation);
        Quorum.Approval[] memory approvals = _approve(digest, 7);

        EvaluationRegistry.Attestation memory moved = _attestation(other);
        vm.expectRevert(abi.encodeWithSelector(Quorum.InvalidApproval.selector, approvals[0].signer));
        registry.attest(moved, approvals);
        moved = _attestation(evaluation);
        moved.seed = keccak256("the seed before a reorganisation");
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.SeedMismatch.selector, attestation.seed, moved.seed));
        registry.attest(moved, approvals);

        uint256 here = block.chainid;
        vm.chainId(here + 1);
        vm.expectRevert(abi.encodeWithSelector(Quorum.InvalidApproval.selector, approvals[0].signer));
        registry.attest(attestation, approvals);
        vm.chainId(here);
        assert(new EvaluationRegistry(address(0xF0), models).hashAttestation(attestation) != digest);

        registry.attest(attestation, approvals);
        bytes memory once = _wrong(evaluation, EvaluationCounts.Status.Seeded, EvaluationCounts.Status.Attested);
        vm.expectRevert(once);
        registry.attest(attestation, approvals);
        // Attested in another evaluation, the same hash says nothing about this one.
        assert(!registry.standing(other, CERTIFICATE) && !registry.standing(evaluation, keccak256("another")));
    }

    function test_what_an_attestation_says_is_bounded() public {
        _seed(evaluation);
        EvaluationRegistry.Attestation memory given = _attestation(evaluation);
        given.certificate = 0;
        Quorum.Approval[] memory unsigned = new Quorum.Approval[](0);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.MissingHash.selector));
        registry.attest(given, unsigned);
        given = _attestation(evaluation);
        for (uint8 i = 0; i < 2; ++i) {
            given.level = i * 4;
            Quorum.Approval[] memory approvals = _approve(registry.hashAttestation(given), 7);
            vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.LevelOutOfBounds.selector, i * 4, 1, 3));
            registry.attest(given, approvals);
        }
        given = _attestation(evaluation);
        uint256 time = block.timestamp;
        for (uint256 i = 0; i < 2; ++i) {
            given.validUntil = uint48(i == 0 ? time : time + 730 days + 1);
            Quorum.Approval[] memory approvals = _approve(registry.hashAttestation(given), 7);
            vm.expectRevert(
                abi.encodeWithSelector(
                    EvaluationRegistry.ValidityOutOfBounds.selector, given.validUntil, time + 1, time + 730 days
                )
            );
            registry.attest(given, approvals);
        }
        given = _attestation(evaluation);
        (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
        Quorum.Approval[] memory late = _approve(registry.hashAttestation(given), 7);
        vm.warp(made.attestUntil + 1);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.DeadlinePassed.selector, made.attestUntil, block.timestamp));
        registry.attest(given, late);
    }

    function test_an_auditor_may_be_a_contract() public {
        SignatureWallet wallet = new SignatureWallet(vm.addr(0xE0));
        EvaluationRegistry.Opening memory given = _opening(4);
        given.auditors = new address[](1);
        given.auditors[0] = address(wallet);
        given.quorum = 1;
        vm.prank(PROVIDER);
        bytes32 made = registry.open(given);
        _seed(made);
        EvaluationRegistry.Attestation memory attestation = _attestation(made);
        Quorum.Approval[] memory approvals = new Quorum.Approval[](1);
        approvals[0] = Quorum.Approval(address(wallet), _sign(keys[0], registry.hashAttestation(attestation)));
        vm.expectRevert(abi.encodeWithSelector(Quorum.InvalidApproval.selector, address(wallet)));
        registry.attest(attestation, approvals);
        approvals[0].signature = _sign(0xE0, registry.hashAttestation(attestation));
        registry.attest(attestation, approvals);
        assert(registry.standing(made, CERTIFICATE));
    }

    /// @dev Everybody tries every reason, before and after the attestation: a table.
    function testFuzz_everybody_gives_only_his_own_reasons(uint8 who, uint8 which, bool attested) public {
        _seed(evaluation);
        if (attested) _attest(evaluation);
        address[5] memory callers = [MODEL_OWNER, DATA_OWNER, PROVIDER, auditors[0], address(0xBAD)];
        uint256 caller = who % 5;
        ModelRegistry.Reason reason = ModelRegistry.Reason(which % 7);
        bool valid = reason == ModelRegistry.Reason.ModelWithdrawn && caller == 0;
        valid = valid || (reason == ModelRegistry.Reason.DataWithdrawn && caller == 1);
        bool shared = reason == ModelRegistry.Reason.KeyCompromise || reason == ModelRegistry.Reason.Superseded;
        valid = valid || (shared && caller < 2);
        if (!valid) {
            vm.expectRevert(
                abi.encodeWithSelector(EvaluationRegistry.NotEntitled.selector, evaluation, callers[caller], reason)
            );
        }
        vm.prank(callers[caller]);
        registry.revoke(evaluation, reason);
        (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
        assert((made.status == EvaluationCounts.Status.Revoked) == valid);
        assert(registry.standing(evaluation, CERTIFICATE) == (attested && !valid));
        if (!valid) return;
        assert(made.reason == reason);
        // For good: neither another reason nor an attestation.
        vm.expectRevert(_wrong(evaluation, EvaluationCounts.Status.Attested, EvaluationCounts.Status.Revoked));
        vm.prank(DATA_OWNER);
        registry.revoke(evaluation, ModelRegistry.Reason.DataWithdrawn);
        EvaluationRegistry.Attestation memory attestation = _attestation(evaluation);
        Quorum.Approval[] memory approvals = _approve(registry.hashAttestation(attestation), 7);
        vm.expectRevert(_wrong(evaluation, EvaluationCounts.Status.Seeded, EvaluationCounts.Status.Revoked));
        registry.attest(attestation, approvals);
    }

    function test_nobody_revokes_before_there_is_a_seed() public {
        _commitNonces(evaluation);
        _run(evaluation);
        vm.expectRevert(_wrong(evaluation, EvaluationCounts.Status.Attested, EvaluationCounts.Status.Run));
        vm.prank(DATA_OWNER);
        registry.revoke(evaluation, ModelRegistry.Reason.DataWithdrawn);
    }

    function testFuzz_a_quorum_of_auditors_revokes(uint8 bits, uint8 which, bool attested) public {
        _seed(evaluation);
        if (attested) _attest(evaluation);
        bytes32 certificate = attested ? CERTIFICATE : bytes32(0);
        ModelRegistry.Reason reason = ModelRegistry.Reason(which % 7);
        Quorum.Approval[] memory approvals = _approve(registry.hashRevocation(evaluation, certificate, reason), bits % 8);
        // What was signed before the attestation does not revoke the certificate, nor the other way round.
        bytes32 other = attested ? bytes32(0) : CERTIFICATE;
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.CertificateMismatch.selector, certificate, other));
        registry.revokeByAuditors(evaluation, other, reason, approvals);

        bool valid = approvals.length >= 2 && which % 7 >= 3;
        (bool success,) = address(registry)
            .call(abi.encodeCall(EvaluationRegistry.revokeByAuditors, (evaluation, certificate, reason, approvals)));
        assert(success == valid);
        (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
        assert((made.status == EvaluationCounts.Status.Revoked) == valid);
    }

    function test_a_certificate_stands_as_long_as_its_model_and_its_time() public {
        _seed(evaluation);
        _attest(evaluation);
        (,, uint48 validUntil) = registry.certificateOf(evaluation);
        uint256 time = block.timestamp;
        vm.warp(validUntil);
        assert(registry.standing(evaluation, CERTIFICATE));
        vm.warp(block.timestamp + 1);
        assert(!registry.standing(evaluation, CERTIFICATE));
        vm.warp(time);
        vm.prank(MODEL_OWNER);
        models.revoke(MODEL, ModelRegistry.Reason.Superseded);
        assert(!registry.standing(evaluation, CERTIFICATE));
    }

    function test_a_dispute_suspends_until_it_is_judged() public {
        _seed(evaluation);
        vm.expectRevert(_wrong(evaluation, EvaluationCounts.Status.Attested, EvaluationCounts.Status.Seeded));
        vm.prank(auditors[0]);
        registry.dispute(evaluation, 3, 1, keccak256("evidence"));
        _attest(evaluation);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.NotParty.selector, evaluation, PROVIDER));
        vm.prank(PROVIDER);
        registry.dispute(evaluation, 3, 1, keccak256("evidence"));
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.MissingHash.selector));
        vm.prank(auditors[0]);
        registry.dispute(evaluation, 3, 1, 0);

        vm.prank(auditors[0]);
        registry.dispute(evaluation, 3, 1, keccak256("evidence"));
        assert(!registry.standing(evaluation, CERTIFICATE));
        bytes32 dismissal = registry.hashResolution(evaluation, CERTIFICATE, auditors[0], false);
        registry.resolve(evaluation, auditors[0], false, _approve(dismissal, 6));
        assert(registry.standing(evaluation, CERTIFICATE));
        // Not twice by the same, and his dismissal does not dismiss another's.
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.AlreadyDisputed.selector, evaluation, auditors[0]));
        vm.prank(auditors[0]);
        registry.dispute(evaluation, 4, 1, keccak256("evidence"));
        vm.prank(DATA_OWNER);
        registry.dispute(evaluation, 3, 1, keccak256("evidence"));
        Quorum.Approval[] memory stale = _approve(dismissal, 6);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.DisputerMismatch.selector, DATA_OWNER, auditors[0]));
        registry.resolve(evaluation, auditors[0], false, stale);
        vm.expectRevert(abi.encodeWithSelector(Quorum.InvalidApproval.selector, stale[0].signer));
        registry.resolve(evaluation, DATA_OWNER, false, stale);
        bytes32 upheld = registry.hashResolution(evaluation, CERTIFICATE, DATA_OWNER, true);
        registry.resolve(evaluation, DATA_OWNER, true, _approve(upheld, 5));
        (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
        assert(made.status == EvaluationCounts.Status.Revoked && made.reason == ModelRegistry.Reason.AuditFailed);
        _checkCounts(registry.evaluationsOf(DATA_OWNER, DATA), [uint32(1), 1, 1, 1, 2, 1, 0]);
    }

    function test_a_dispute_that_nobody_judges_in_time_is_lost() public {
        _seed(evaluation);
        _attest(evaluation);
        vm.prank(auditors[2]);
        registry.dispute(evaluation, 0, 0, keccak256("the item was not opened"));
        (EvaluationRegistry.Evaluation memory made,) = registry.get(evaluation);
        vm.warp(made.disputeUntil + 1);
        Quorum.Approval[] memory approvals = _approve(registry.hashResolution(evaluation, CERTIFICATE, auditors[2], false), 3);
        vm.expectRevert(abi.encodeWithSelector(EvaluationRegistry.DeadlinePassed.selector, made.disputeUntil, block.timestamp));
        registry.resolve(evaluation, auditors[2], false, approvals);
        registry.expire(evaluation);
        assert(!registry.standing(evaluation, CERTIFICATE));
        (bytes32 certificate,,) = registry.certificateOf(evaluation);
        assert(certificate == CERTIFICATE);
    }

    /// @dev A leaf counts in its tree, at its place, for this evaluation.
    function testFuzz_a_leaf_of_a_run_is_verified(uint8 which, bytes32 digest, bytes16 salt, uint8 flaw) public {
        bytes32[3] memory kinds = [registry.TRACE_KIND(), registry.OUTPUT_KIND(), registry.SCORE_KIND()];
        bytes32 kind = kinds[which % 3];
        bytes32 sibling = keccak256("sibling");
        bytes32 leaf = PositionalTree.leaf(kind, registry.contextOf(evaluation), 1, 5, digest, salt);
        bytes32 record = PositionalTree.record(kind, 2, PositionalTree.node(sibling, leaf));
        EvaluationRegistry.Roots memory roots = _roots();
        if (which % 3 == 0) roots.trace = record;
        else if (which % 3 == 1) roots.outputs = record;
        else roots.scores = record;
        _commitNonces(evaluation);
        vm.prank(PROVIDER);
        registry.commitRun(evaluation, roots);

        bytes32[] memory proof = new bytes32[](1);
        proof[0] = sibling;
        EvaluationRegistry.Leaf memory opened = EvaluationRegistry.Leaf(kind, 2, 1, 5, digest, salt, proof);
        bool valid = flaw % 8 >= 6;
        if (flaw % 8 == 0) opened.kind = kinds[(which % 3 + 1) % 3];
        if (flaw % 8 == 1) opened.kind = keccak256("rexis/leaf/label/1");
        if (flaw % 8 == 2) opened.index = 0;
        if (flaw % 8 == 3) opened.sub = 4;
        if (flaw % 8 == 4) opened.digest = keccak256(abi.encode(digest));
        if (flaw % 8 == 5) opened.salt = salt ^ bytes16(uint128(1));
        (bool success,) = address(registry).call(abi.encodeCall(EvaluationRegistry.verify, (evaluation, opened)));
        assert(success == valid);
    }

    function _opening(uint64 sequence) private view returns (EvaluationRegistry.Opening memory) {
        uint48 time = uint48(block.timestamp);
        return EvaluationRegistry.Opening(
            keccak256("spec"),
            MODEL_OWNER,
            MODEL,
            DATA_OWNER,
            DATA,
            keccak256("key"),
            sequence,
            2,
            time + 1 hours,
            time + 2 hours,
            time + 3 hours,
            time + 10 days,
            auditors
        );
    }

    function _roots() private pure returns (EvaluationRegistry.Roots memory) {
        return EvaluationRegistry.Roots(keccak256("trace"), keccak256("outputs"), keccak256("scores"), keccak256("claim"));
    }

    function _nonce(bytes32 id, address party) private pure returns (bytes32) {
        return keccak256(abi.encode("nonce", id, party));
    }

    function _commitNonces(bytes32 id) private {
        (, EvaluationRegistry.Party[] memory parties) = registry.get(id);
        for (uint256 i = 0; i < parties.length; ++i) {
            address party = parties[i].party;
            bytes32 commitment = registry.nonceCommitment(id, party, _nonce(id, party));
            vm.prank(party);
            registry.commitNonce(id, commitment);
        }
    }

    function _run(bytes32 id) private {
        vm.prank(PROVIDER);
        registry.commitRun(id, _roots());
    }

    /// @dev Bits choose who reveals, in the order of the parties.
    function _reveal(bytes32 id, uint256 bits) private {
        (EvaluationRegistry.Evaluation memory made, EvaluationRegistry.Party[] memory parties) = registry.get(id);
        if (block.number <= made.beaconBlock) vm.roll(made.beaconBlock + 1);
        bytes32 beacon = made.beacon == 0 ? blockhash(made.beaconBlock) : made.beacon;
        for (uint256 i = 0; i < parties.length; ++i) {
            if (bits >> i & 1 == 0) continue;
            vm.prank(parties[i].party);
            registry.revealNonce(id, made.transcript, beacon, _nonce(id, parties[i].party));
        }
    }

    function _seed(bytes32 id) private {
        _commitNonces(id);
        _run(id);
        _reveal(id, 15);
    }

    function _attestation(bytes32 id) private view returns (EvaluationRegistry.Attestation memory) {
        (EvaluationRegistry.Evaluation memory made,) = registry.get(id);
        return EvaluationRegistry.Attestation(id, made.seed, CERTIFICATE, 2, uint48(block.timestamp + 365 days));
    }

    function _attest(bytes32 id) private {
        EvaluationRegistry.Attestation memory attestation = _attestation(id);
        registry.attest(attestation, _approve(registry.hashAttestation(attestation), 5));
    }

    function _overdueAfter(uint48 deadline) private {
        vm.warp(deadline);
        assert(!registry.isOverdue(evaluation));
        vm.warp(block.timestamp + 1);
        assert(registry.isOverdue(evaluation));
    }

    function _there(string memory json) private returns (EvaluationRegistry there) {
        assert(vm.parseJsonUint(json, ".chainId") == block.chainid);
        there = EvaluationRegistry(vm.parseJsonAddress(json, ".registry"));
        vm.etch(address(there), address(registry).code);
        if (!models.isAuthorised(MODEL_OWNER, vm.parseJsonBytes32(json, ".committed.model"))) {
            vm.prank(MODEL_OWNER);
            models.authorise(vm.parseJsonBytes32(json, ".committed.model"), keccak256("spec of the model"), "");
        }
    }

    function _openAsGiven(EvaluationRegistry there, string memory json, string memory one) private returns (bytes32) {
        uint256[] memory times = vm.parseJsonUintArray(json, ".times");
        EvaluationRegistry.Opening memory opening = _opening(uint64(vm.parseJsonUint(json, string.concat(one, ".sequence"))));
        opening.specHash = vm.parseJsonBytes32(json, ".committed.spec");
        opening.modelOwner = vm.parseJsonAddress(json, ".modelOwner");
        opening.model = vm.parseJsonBytes32(json, ".committed.model");
        opening.dataOwner = vm.parseJsonAddress(json, string.concat(one, ".dataOwner"));
        opening.dataRecord = vm.parseJsonBytes32(json, ".committed.data");
        opening.keyCommitment = vm.parseJsonBytes32(json, ".committed.key");
        (opening.nonceUntil, opening.runUntil) = (uint48(times[0]), uint48(times[1]));
        (opening.revealUntil, opening.attestUntil) = (uint48(times[2]), uint48(times[3]));
        opening.auditors = new address[](2);
        for (uint256 i = 0; i < 2; ++i) {
            opening.auditors[i] = vm.parseJsonAddress(json, string.concat(".auditors[", vm.toString(i), "]"));
        }
        vm.prank(vm.parseJsonAddress(json, ".provider"));
        return there.open(opening);
    }

    function _seedAsGiven(EvaluationRegistry there, string memory json, string memory one, bytes32 id) private {
        for (uint256 i = 0; i < 3; ++i) {
            string memory party = string.concat(one, ".parties[", vm.toString(i), "]");
            bytes32 commitment = vm.parseJsonBytes32(json, string.concat(party, ".commitment"));
            vm.prank(vm.parseJsonAddress(json, string.concat(party, ".party")));
            there.commitNonce(id, commitment);
        }
        vm.prank(vm.parseJsonAddress(json, ".provider"));
        there.commitRun(
            id,
            EvaluationRegistry.Roots(
                vm.parseJsonBytes32(json, ".committed.trace"),
                vm.parseJsonBytes32(json, ".committed.outputs"),
                vm.parseJsonBytes32(json, ".committed.scores"),
                vm.parseJsonBytes32(json, ".committed.claim")
            )
        );
        bytes32 beacon = vm.parseJsonBytes32(json, ".beacon");
        vm.roll(block.number + 5);
        vm.setBlockhash(block.number - 1, beacon);
        (EvaluationRegistry.Evaluation memory made,) = there.get(id);
        for (uint256 i = 0; i < 3; ++i) {
            string memory party = string.concat(one, ".parties[", vm.toString(i), "]");
            bytes32 nonce = vm.parseJsonBytes32(json, string.concat(party, ".nonce"));
            vm.prank(vm.parseJsonAddress(json, string.concat(party, ".party")));
            there.revealNonce(id, made.transcript, beacon, nonce);
        }
    }

    function _given(string memory json, string memory place) private pure returns (Quorum.Approval[] memory approvals) {
        approvals = new Quorum.Approval[](2);
        for (uint256 i = 0; i < 2; ++i) {
            address signer = vm.parseJsonAddress(json, string.concat(".auditors[", vm.toString(i), "]"));
            string memory signature = string.concat(place, ".signatures.", vm.toString(signer));
            approvals[i] = Quorum.Approval(signer, vm.parseJsonBytes(json, signature));
        }
    }

    function _approve(bytes32 digest, uint256 bits) private view returns (Quorum.Approval[] memory approvals) {
        uint256 count = (bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1);
        approvals = new Quorum.Approval[](count);
        uint256 next = 0;
        for (uint256 i = 0; i < 3; ++i) {
            if (bits >> i & 1 == 1) approvals[next++] = Quorum.Approval(auditors[i], _sign(keys[i], digest));
        }
    }

    function _keyOf(address signer) private view returns (uint256) {
        return signer == auditors[0] ? keys[0] : signer == auditors[1] ? keys[1] : keys[2];
    }

    function _sign(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev The same signature in its second form.
    function _malleated(bytes memory signature) private pure returns (bytes memory) {
        (bytes32 r, bytes32 s) = (bytes32(0), bytes32(0));
        assembly {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
        }
        uint8 v = uint8(signature[64]);
        return abi.encodePacked(r, bytes32(ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
    }

    function _wrong(bytes32 id, EvaluationCounts.Status expected, EvaluationCounts.Status got)
        private
        pure
        returns (bytes memory)
    {
        return abi.encodeWithSelector(EvaluationRegistry.WrongEvaluationStatus.selector, id, expected, got);
    }

    function _checkCounts(EvaluationCounts.Counts memory counts, uint32[7] memory expected) private pure {
        assert(counts.started == expected[0] && counts.runs == expected[1] && counts.seeded == expected[2]);
        assert(counts.attested == expected[3] && counts.disputed == expected[4]);
        assert(counts.revoked == expected[5] && counts.expired == expected[6]);
    }
}
