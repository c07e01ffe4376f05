// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EvaluationCounts} from "../src/EvaluationCounts.sol";
import {EvaluationRegistry} from "../src/EvaluationRegistry.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {Quorum} from "../src/Quorum.sol";
import {vm} from "./Vm.sol";

/// @dev Provider, two owners, three auditors and a stranger act at random on two evaluations of one data set, honestly and not. Beside
/// them the handler keeps the plain story, from which it knows what must be accepted and what must not.
contract EvaluationHandler {
    EvaluationRegistry public immutable REGISTRY;
    ModelRegistry public immutable MODELS;
    address public constant PROVIDER = address(0x51);
    address public constant MODEL_OWNER = address(0x52);
    bytes32 public constant MODEL = keccak256("model");
    bytes32 public constant DATA = keccak256("data");
    uint256 public constant PARTIES = 4;
    /// @dev Place of the data owner among the parties; the stranger comes after them.
    uint256 public constant OWNER = 1;

    /// @dev What must be so, told by the accepted calls alone.
    struct Story {
        bytes32 id;
        EvaluationCounts.Status status;
        uint256 committed;
        uint256 revealed;
        uint256 disputed;
        uint256 disputer;
        uint256 disputeUntil;
        uint256 beaconBlock;
        bytes32 beacon;
        bytes32 seed;
        bytes32 certificate;
        uint256 committedAtRun;
        uint256 signers;
    }

    Story[2] private stories;
    mapping(bytes32 id => mapping(uint256 status => bool)) public was;
    uint256[8] public reached;
    uint256[PARTIES] public withheld;
    uint256[PARTIES + 1] private keys;
    uint256 private unique;
    uint256 private unfitting;
    uint256 public attempts;
    uint256 public accepted;

    /// @dev Most calls in a state that they do not fit are left out; the others must be refused.
    modifier tried(uint8 which, EvaluationCounts.Status least, EvaluationCounts.Status most) {
        EvaluationCounts.Status status = stories[which % 2].status;
        if ((status < least || status > most) && ++unfitting % 8 != 0) return;
        ++attempts;
        _;
    }

    constructor() {
        MODELS = new ModelRegistry(address(0xF0));
        REGISTRY = new EvaluationRegistry(address(0xF0), MODELS);
        vm.prank(MODEL_OWNER);
        MODELS.authorise(MODEL, keccak256("spec of the model"), "");
        keys = [uint256(0xA1), 0xA2, 0xA3, 0xA4, 0xBAD];
        for (uint256 i = 0; i < PARTIES; ++i) {
            for (uint256 j = i + 1; j < PARTIES; ++j) {
                if (vm.addr(keys[j]) < vm.addr(keys[i])) (keys[i], keys[j]) = (keys[j], keys[i]);
            }
        }
        _open(0);
        _open(1);
    }

    function commitNonce(uint8 which, uint8 who)
        external
        tried(which, EvaluationCounts.Status.Open, EvaluationCounts.Status.Open)
    {
        Story storage story = _live(which);
        uint256 place = who % (PARTIES + 1);
        (EvaluationRegistry.Evaluation memory now_,) = REGISTRY.get(story.id);
        bool valid = story.status == EvaluationCounts.Status.Open && place < PARTIES && story.committed >> place & 1 == 0
            && block.timestamp <= now_.nonceUntil;
        bytes32 commitment = REGISTRY.nonceCommitment(story.id, party(place), nonceOf(story.id, place));
        vm.prank(party(place));
        try REGISTRY.commitNonce(story.id, commitment) {
            assert(valid);
            story.committed |= 1 << place;
            if (place == OWNER) _reach(story, EvaluationCounts.Status.Open);
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function commitRun(uint8 which, uint8 who)
        external
        tried(which, EvaluationCounts.Status.Open, EvaluationCounts.Status.Open)
    {
        Story storage story = _live(which);
        address caller = who % 8 == 0 ? party(who / 8) : PROVIDER;
        (EvaluationRegistry.Evaluation memory now_,) = REGISTRY.get(story.id);
        bool valid = story.status == EvaluationCounts.Status.Open && story.committed == 15 && caller == PROVIDER
            && block.timestamp <= now_.runUntil;
        bytes32 trace = keccak256(abi.encode("trace", ++unique));
        vm.prank(caller);
        try REGISTRY.commitRun(story.id, EvaluationRegistry.Roots(trace, trace, trace, trace)) {
            assert(valid);
            (story.beaconBlock, story.committedAtRun) = (block.number + 4, story.committed);
            _enter(story, EvaluationCounts.Status.Run);
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function fixBeacon(uint8 which) external tried(which, EvaluationCounts.Status.Run, EvaluationCounts.Status.Run) {
        Story storage story = _live(which);
        bool valid = story.status == EvaluationCounts.Status.Run && story.beacon == 0 && _beaconIsKnown(story);
        try REGISTRY.fixBeacon(story.id) {
            assert(valid);
            story.beacon = blockhash(story.beaconBlock);
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    /// @dev What is wrong with the nonce, if anything, is bit by bit in `lies`.
    function reveal(uint8 which, uint8 who, uint8 lies)
        external
        tried(which, EvaluationCounts.Status.Run, EvaluationCounts.Status.Run)
    {
        Story storage story = _live(which);
        lies = lies % 4 == 0 ? lies / 4 % 8 : 0;
        uint256 place = who % (PARTIES + 1);
        (EvaluationRegistry.Evaluation memory now_,) = REGISTRY.get(story.id);
        bool valid = story.status == EvaluationCounts.Status.Run && place < PARTIES && story.revealed >> place & 1 == 0
            && lies == 0 && block.timestamp <= now_.revealUntil && (story.beacon != 0 || _beaconIsKnown(story));
        bytes32 beacon = story.beacon != 0 ? story.beacon : blockhash(story.beaconBlock);
        bytes32 nonce = nonceOf(story.id, lies & 1 == 0 ? place : place + 1);
        bytes32 transcript = lies & 2 == 0 ? now_.transcript : keccak256("other roots");
        vm.prank(party(place));
        try REGISTRY.revealNonce(story.id, transcript, lies & 4 == 0 ? beacon : keccak256("other beacon"), nonce) {
            assert(valid);
            (story.beacon, story.revealed) = (beacon, story.revealed | 1 << place);
            if (story.revealed == 15) {
                bytes memory mixed = bytes.concat(transcript, beacon);
                for (uint256 i = 0; i < PARTIES; ++i) {
                    mixed = bytes.concat(mixed, nonceOf(story.id, i));
                }
                story.seed = sha256(mixed);
                _enter(story, EvaluationCounts.Status.Seeded);
            }
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function attest(uint8 which, uint8 signers, uint8 lies)
        external
        tried(which, EvaluationCounts.Status.Seeded, EvaluationCounts.Status.Seeded)
    {
        Story storage story = _live(which);
        signers = _signing(signers);
        (EvaluationRegistry.Evaluation memory now_,) = REGISTRY.get(story.id);
        bool valid = story.status == EvaluationCounts.Status.Seeded && lies % 8 != 7 && _isQuorum(signers)
            && block.timestamp <= now_.attestUntil;
        bytes32 certificate = keccak256(abi.encode("certificate", ++unique));
        EvaluationRegistry.Attestation memory attestation = EvaluationRegistry.Attestation(
            story.id, lies % 8 == 7 ? keccak256("another seed") : now_.seed, certificate, 3, uint48(block.timestamp + 100 days)
        );
        try REGISTRY.attest(attestation, _approve(REGISTRY.hashAttestation(attestation), signers)) {
            assert(valid);
            (story.certificate, story.signers) = (certificate, signers);
            _enter(story, EvaluationCounts.Status.Attested);
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function dispute(uint8 which, uint8 who)
        external
        tried(which, EvaluationCounts.Status.Attested, EvaluationCounts.Status.Attested)
    {
        Story storage story = _live(which);
        uint256 place = who % (PARTIES + 1);
        bool valid = story.status == EvaluationCounts.Status.Attested && place < PARTIES && story.disputed >> place & 1 == 0;
        vm.prank(party(place));
        try REGISTRY.dispute(story.id, 1, 2, keccak256("evidence")) {
            assert(valid);
            (story.disputed, story.disputer) = (story.disputed | 1 << place, place);
            story.disputeUntil = block.timestamp + REGISTRY.DISPUTE_DURATION();
            _enter(story, EvaluationCounts.Status.Disputed);
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function resolve(uint8 which, uint8 who, uint8 upheld, uint8 signers)
        external
        tried(which, EvaluationCounts.Status.Disputed, EvaluationCounts.Status.Disputed)
    {
        Story storage story = _live(which);
        signers = _signing(signers);
        uint256 place = who % 8 == 7 ? PARTIES : story.disputer;
        bool valid = story.status == EvaluationCounts.Status.Disputed && place == story.disputer && _isQuorum(signers)
            && block.timestamp <= story.disputeUntil;
        bytes32 digest = REGISTRY.hashResolution(story.id, story.certificate, party(place), upheld % 4 == 0);
        try REGISTRY.resolve(story.id, party(place), upheld % 4 == 0, _approve(digest, signers)) {
            assert(valid);
            if (upheld % 4 == 0) _enter(story, EvaluationCounts.Status.Revoked);
            else story.status = EvaluationCounts.Status.Attested;
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    /// @dev Seldom, for it is an end.
    function revoke(uint8 which, uint8 who, uint8 reason)
        external
        tried(which, EvaluationCounts.Status.Seeded, EvaluationCounts.Status.Disputed)
    {
        Story storage story = _live(which);
        address caller = [MODEL_OWNER, party(OWNER), PROVIDER, party(OWNER + 1)][who % 4];
        bool shared = reason % 7 == 3 || reason % 7 == 5;
        bool valid = (who % 4 == 0 && (reason % 7 == 1 || shared)) || (who % 4 == 1 && (reason % 7 == 2 || shared));
        valid = valid && story.status >= EvaluationCounts.Status.Seeded && story.status <= EvaluationCounts.Status.Disputed;
        vm.prank(caller);
        try REGISTRY.revoke(story.id, ModelRegistry.Reason(reason % 7)) {
            assert(valid);
            _enter(story, EvaluationCounts.Status.Revoked);
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function expire(uint8 which, uint8 patience)
        external
        tried(which, EvaluationCounts.Status.Open, EvaluationCounts.Status.Disputed)
    {
        Story storage story = _live(which);
        if (patience % 4 == 1) vm.warp(block.timestamp + 15 days);
        (EvaluationRegistry.Evaluation memory now_,) = REGISTRY.get(story.id);
        EvaluationCounts.Status from = story.status;
        bool valid = false;
        if (from == EvaluationCounts.Status.Open) {
            valid = block.timestamp > (story.committed == 15 ? now_.runUntil : now_.nonceUntil);
        }
        if (from == EvaluationCounts.Status.Run) {
            valid = block.timestamp > now_.revealUntil || (story.beacon == 0 && block.number > story.beaconBlock + 256);
        }
        if (from == EvaluationCounts.Status.Seeded) valid = block.timestamp > now_.attestUntil;
        if (from == EvaluationCounts.Status.Disputed) valid = block.timestamp > story.disputeUntil;
        try REGISTRY.expire(story.id) {
            assert(valid);
            for (uint256 i = 0; i < PARTIES; ++i) {
                if (from == EvaluationCounts.Status.Run && story.beacon != 0) withheld[i] += 1 - (story.revealed >> i & 1);
            }
            if (story.committed >> OWNER & 1 == 1) _enter(story, EvaluationCounts.Status.Expired);
            else story.status = EvaluationCounts.Status.Expired;
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function wait_(uint16 time, uint8 blocks) external {
        vm.warp(block.timestamp + time % 4000);
        vm.roll(block.number + blocks % 80);
    }

    /// @dev Does what comes next honestly, or nearly, so that every sequence sees whole evaluations; after an end, opens a new one.
    function goOn(uint8 which, uint8 steps, uint8 withholding) external {
        for (uint256 i = 0; i < 2 + steps % 3; ++i) {
            EvaluationCounts.Status status = _live(which).status;
            if (status == EvaluationCounts.Status.Open) _commitAll(which);
            else if (status == EvaluationCounts.Status.Run) _revealAll(which, withholding % 64);
            else if (status == EvaluationCounts.Status.Seeded) this.attest(which, 1, 0);
            else if (status == EvaluationCounts.Status.Attested && steps % 8 == 7) this.dispute(which, withholding);
            else if (status == EvaluationCounts.Status.Disputed) this.resolve(which, 0, withholding, 1);
            else if (status != EvaluationCounts.Status.Attested) _open(which % 2);
        }
    }

    function storyOf(uint256 which) external view returns (Story memory) {
        return stories[which];
    }

    function party(uint256 place) public view returns (address) {
        return vm.addr(keys[place % (PARTIES + 1)]);
    }

    function nonceOf(bytes32 id, uint256 place) public pure returns (bytes32) {
        return keccak256(abi.encode("nonce", id, place));
    }

    function _open(uint256 which) private {
        uint48 time = uint48(block.timestamp);
        EvaluationRegistry.Opening memory opening = EvaluationRegistry.Opening(
            keccak256("spec"),
            MODEL_OWNER,
            MODEL,
            party(OWNER),
            DATA,
            keccak256("key"),
            uint64(++unique),
            2,
            time + 1 hours,
            time + 2 hours,
            time + 3 hours,
            time + 5 hours,
            new address[](PARTIES - 1)
        );
        uint256 next = 0;
        for (uint256 i = 0; i < PARTIES; ++i) {
            if (i != OWNER) opening.auditors[next++] = party(i);
        }
        delete stories[which];
        vm.prank(PROVIDER);
        stories[which].id = REGISTRY.open(opening);
        stories[which].status = EvaluationCounts.Status.Open;
    }

    function _commitAll(uint8 which) private {
        for (uint8 i = 0; i < PARTIES; ++i) {
            if (_live(which).committed >> i & 1 == 0) this.commitNonce(which, i);
        }
        this.commitRun(which, 1);
        if (_live(which).status == EvaluationCounts.Status.Open) this.expire(which, 1);
    }

    function _revealAll(uint8 which, uint8 withholding) private {
        vm.roll(block.number + 5);
        for (uint8 i = 0; i < PARTIES; ++i) {
            if (i != withholding && _live(which).revealed >> i & 1 == 0) this.reveal(which, i, 1);
        }
        if (_live(which).status == EvaluationCounts.Status.Run) this.expire(which, 1);
    }

    function _enter(Story storage story_, EvaluationCounts.Status status) private {
        story_.status = status;
        _reach(story_, status);
    }

    /// @dev Forward only: no state is entered a second time but Disputed, and none after an end.
    function _reach(Story storage story_, EvaluationCounts.Status status) private {
        assert(status == EvaluationCounts.Status.Disputed || !was[story_.id][uint256(status)]);
        assert(!was[story_.id][uint256(EvaluationCounts.Status.Revoked)]);
        assert(!was[story_.id][uint256(EvaluationCounts.Status.Expired)]);
        was[story_.id][uint256(status)] = true;
        ++reached[uint256(status)];
    }

    function _live(uint8 which) private view returns (Story storage) {
        return stories[which % 2];
    }

    function _beaconIsKnown(Story storage story_) private view returns (bool) {
        return block.number > story_.beaconBlock && block.number <= story_.beaconBlock + 256;
    }

    /// @dev All three auditors most times; else any of parties and stranger, bit by bit.
    function _signing(uint8 signers) private pure returns (uint8) {
        return signers % 4 == 0 ? signers / 4 % 32 : 13;
    }

    /// @dev Only auditors, and two of them.
    function _isQuorum(uint256 bits) private pure returns (bool) {
        return bits & (1 << OWNER | 1 << PARTIES) == 0 && _ones(bits) >= 2;
    }

    function _approve(bytes32 digest, uint256 bits) private view returns (Quorum.Approval[] memory approvals) {
        approvals = new Quorum.Approval[](_ones(bits));
        uint256 next = 0;
        for (uint256 i = 0; i <= PARTIES; ++i) {
            if (bits >> i & 1 == 0) continue;
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(keys[i], digest);
            approvals[next++] = Quorum.Approval(vm.addr(keys[i]), abi.encodePacked(r, s, v));
        }
        // Ascending, wherever the stranger's address is.
        for (uint256 i = next; i > 1 && approvals[i - 1].signer < approvals[i - 2].signer; --i) {
            (approvals[i - 1], approvals[i - 2]) = (approvals[i - 2], approvals[i - 1]);
        }
    }

    function _ones(uint256 bits) private pure returns (uint256 n) {
        for (; bits != 0; bits >>= 1) {
            n += bits & 1;
        }
    }
}

contract EvaluationRegistryInvariantTest {
    EvaluationHandler private handler;

    function setUp() public {
        vm.warp(1_800_000_000);
        vm.roll(1000);
        handler = new EvaluationHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev A seed is there exactly if every nonce was committed before the run and revealed; a certificate, if a quorum of auditors signed.
    function invariant_the_registry_holds_what_accepted_calls_made_of_it() public view {
        for (uint256 i = 0; i < 2; ++i) {
            EvaluationHandler.Story memory story = handler.storyOf(i);
            (EvaluationRegistry.Evaluation memory made, EvaluationRegistry.Party[] memory parties) =
                handler.REGISTRY().get(story.id);
            assert(made.status == story.status && made.certificate == story.certificate);
            assert(made.beacon == story.beacon && made.beaconBlock == story.beaconBlock);
            // Compared with the first that was made, so also: never replaced.
            assert(made.seed == story.seed && (made.transcript != 0) == (story.committedAtRun == 15));
            assert((made.seed != 0) == (story.revealed == 15));
            for (uint256 j = 0; j < parties.length; ++j) {
                assert((parties[j].commitment != 0) == (story.committed >> j & 1 == 1));
                assert((parties[j].nonce != 0) == (story.revealed >> j & 1 == 1));
                assert(parties[j].nonce == 0 || parties[j].nonce == handler.nonceOf(story.id, j));
            }
            if (made.certificate == 0) continue;
            assert((story.signers & 1) + (story.signers >> 2 & 1) + (story.signers >> 3 & 1) >= 2 && story.seed != 0);
        }
    }

    function invariant_counts_are_the_sums_of_what_happened() public view {
        EvaluationRegistry registry = handler.REGISTRY();
        address owner = handler.party(handler.OWNER());
        bytes32 record = handler.DATA();
        EvaluationCounts.Counts memory counts = registry.evaluationsOf(owner, record);
        bytes32 same = keccak256(abi.encode(counts));
        assert(same == keccak256(abi.encode(registry.evaluationsOfModel(owner, record, handler.MODEL()))));
        assert(same == keccak256(abi.encode(registry.evaluationsOfRecord(record))));
        assert(counts.started == handler.reached(1) && counts.runs == handler.reached(2));
        assert(counts.seeded == handler.reached(3) && counts.attested == handler.reached(4));
        assert(counts.disputed == handler.reached(5) && counts.revoked == handler.reached(6));
        assert(counts.expired == handler.reached(7));
        assert(counts.started >= counts.runs && counts.runs >= counts.seeded && counts.seeded >= counts.attested);
        // Nothing that was agreed to vanishes: it ends in public, or it is one of the two that are open.
        assert(counts.started <= counts.revoked + counts.expired + counts.attested + 2);
        for (uint256 i = 0; i < handler.PARTIES(); ++i) {
            assert(registry.withheldBy(handler.party(i)) == handler.withheld(i));
        }
    }

    /// @dev A handler whose calls were mostly refused, or that never came to a certificate, would prove little. (Replays of an old failure
    /// are short.)
    function afterInvariant() public view {
        assert(handler.attempts() < 32 || handler.accepted() * 4 >= handler.attempts());
        assert(handler.attempts() < 128 || handler.reached(uint256(EvaluationCounts.Status.Attested)) > 0);
    }
}
