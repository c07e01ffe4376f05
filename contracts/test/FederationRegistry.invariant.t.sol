// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {FederationRegistry} from "../src/FederationRegistry.sol";
import {Quorum} from "../src/Quorum.sol";
import {vm} from "./Vm.sol";

/// @dev Five participants and three aggregators of one federation act at random, honestly and not. Beside it the handler keeps the plain
/// story, from which it knows what must be accepted and what must not.
contract FederationHandler {
    FederationRegistry public immutable REGISTRY;
    uint256 public constant PARTICIPANTS = 5;
    uint256 public constant AGGREGATORS = 3;

    bytes32 public federation;
    bytes32 public model;
    uint64 public round;
    uint64 public attempt;
    FederationRegistry.Status public status;
    uint256 public commitUntil;
    uint256 public deadline;
    bytes32 public ctx;
    mapping(bytes32 ctx => mapping(uint256 participant => bytes32)) public commitments;
    uint256 public committed;
    uint256 public survivors;

    mapping(bytes32 base => uint256) public survivorsFixedOn;
    uint256[3] private keys;
    // Ascending by address, and one of nobody.
    uint256[6] private participantKeys;
    address[6] private participants;
    uint256 private unique;
    uint256 public fixedLate;
    uint256 public attempts;
    uint256 public accepted;
    uint256 public finalised;
    uint256 public finalisedEver;

    modifier counted() {
        ++attempts;
        _;
    }

    constructor() {
        REGISTRY = new FederationRegistry(address(0xF0));
        keys = [uint256(0xA1), 0xA2, 0xA3];
        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 j = i + 1; j < 3; ++j) {
                if (vm.addr(keys[j]) < vm.addr(keys[i])) (keys[i], keys[j]) = (keys[j], keys[i]);
            }
        }
        participantKeys = [uint256(0xB1), 0xB2, 0xB3, 0xB4, 0xB5, 0xB6];
        for (uint256 i = 0; i < PARTICIPANTS; ++i) {
            for (uint256 j = i + 1; j < PARTICIPANTS; ++j) {
                if (vm.addr(participantKeys[j]) < vm.addr(participantKeys[i])) {
                    (participantKeys[i], participantKeys[j]) = (participantKeys[j], participantKeys[i]);
                }
            }
        }
        for (uint256 i = 0; i <= PARTICIPANTS; ++i) {
            participants[i] = vm.addr(participantKeys[i]);
        }
        _found();
    }

    function open(uint8 who, uint16 time, uint8 wrong) external counted {
        if (status == FederationRegistry.Status.Closed) _found();
        bytes32 manifest = keccak256(abi.encode("manifest", ++unique));
        time = time % 1000;
        bool wrongRound = wrong % 8 == 7;
        uint64 named = wrongRound ? round + 1 : round;
        (uint48 commitsEnd, uint48 end) = (uint48(block.timestamp) + 1 + time, uint48(block.timestamp) + 2 + 2 * uint48(time));
        address caller = who % 8 == 0 ? participant(who) : vm.addr(keys[who % AGGREGATORS]);
        bool valid = status == FederationRegistry.Status.Idle && !wrongRound && who % 8 != 0;
        vm.prank(caller);
        try REGISTRY.openRound(federation, named, attempt + 1, manifest, commitsEnd, end) {
            assert(valid);
            ++attempt;
            (status, committed, survivors) = (FederationRegistry.Status.Open, 0, 0);
            (commitUntil, deadline) = (commitsEnd, end);
            ctx = REGISTRY.contextOf(federation, round, attempt, manifest);
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function commit(uint8 who) external counted {
        if (status == FederationRegistry.Status.Idle) return;
        uint256 which = who % (PARTICIPANTS + 1);
        bytes32 commitment = keccak256(abi.encode("update", ++unique));
        bool valid = status == FederationRegistry.Status.Open && which < PARTICIPANTS && block.timestamp <= commitUntil
            && commitments[ctx][which] == 0;
        // The one after the last participant is nobody.
        vm.prank(participant(which));
        try REGISTRY.commitUpdate(federation, ctx, commitment) {
            assert(valid);
            commitments[ctx][which] = commitment;
            ++committed;
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function fix(uint8 bits, uint8 signers, uint8 everybody) external counted {
        if (status == FederationRegistry.Status.Idle) return;
        uint256 chosen = everybody % 4 == 0 ? bits % (1 << PARTICIPANTS) : _committedBits();
        address[] memory list = _list(chosen);
        bool valid = status == FederationRegistry.Status.Open && list.length >= 3 && _ones(_signing(signers)) >= 2;
        valid = valid && (list.length == PARTICIPANTS || block.timestamp > commitUntil) && block.timestamp <= deadline;
        for (uint256 i = 0; i < PARTICIPANTS; ++i) {
            if (chosen >> i & 1 == 1 && commitments[ctx][i] == 0) valid = false;
        }
        FederationRegistry.SurvivorSet memory set =
            FederationRegistry.SurvivorSet(federation, round, attempt, keccak256("masked"), list);
        bytes32 digest = REGISTRY.hashSurvivors(set, keccak256(abi.encode(ctx, list)));
        try REGISTRY.fixSurvivors(set, _approve(digest, _signing(signers))) {
            assert(valid);
            (status, survivors) = (FederationRegistry.Status.Fixed, chosen);
            ++survivorsFixedOn[model];
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    /// @dev Survivors that participants signed: they are in time also after the deadline. Bit i of `consenting` stands for participant i.
    function fixLate(uint8 signers, uint8 consenting, uint8 absent) external counted {
        if (status == FederationRegistry.Status.Idle) return;
        uint256 chosen = _committedBits();
        if (absent % 8 < PARTICIPANTS) chosen &= ~(1 << absent % 8);
        uint256 consents = consenting % 4 == 0 ? consenting / 4 % (1 << PARTICIPANTS) : (1 << PARTICIPANTS) - 1;
        address[] memory list = _list(chosen);
        FederationRegistry.SurvivorSet memory set =
            FederationRegistry.SurvivorSet(federation, round, attempt, keccak256("masked"), list);
        bool valid = status == FederationRegistry.Status.Open && list.length >= 3 && _ones(_signing(signers)) >= 2;
        valid = valid && (list.length == PARTICIPANTS || block.timestamp > commitUntil) && _ones(consents) >= 3;
        bytes32 digest = REGISTRY.hashSurvivors(set, keccak256(abi.encode(ctx, list)));
        try REGISTRY.fixConsented(set, _approve(digest, _signing(signers)), _consent(set, consents)) {
            assert(valid);
            (status, survivors) = (FederationRegistry.Status.Fixed, chosen);
            if (block.timestamp > deadline) {
                deadline = block.timestamp + deadline - commitUntil;
                ++fixedLate;
            }
            ++survivorsFixedOn[model];
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    /// @dev What is wrong with the result, if anything, is bit by bit in `lies`.
    function finalise(uint8 signers, uint8 lies, uint8 dropped) external counted {
        if (status == FederationRegistry.Status.Idle) return;
        lies = lies % 4 == 0 ? lies / 4 % 16 : 0;
        bytes32 next = keccak256(abi.encode("model", ++unique));
        // An update more or less than the survivors': the sum would be another.
        uint256 summed = lies & 1 == 0 ? survivors : survivors ^ (1 << (dropped % PARTICIPANTS));
        address[] memory list = _list(survivors);
        FederationRegistry.Result memory result = FederationRegistry.Result(
            federation,
            round,
            lies & 2 == 0 ? attempt : attempt + 1,
            keccak256(abi.encode(ctx, list)),
            accumulator(summed),
            uint32(lies & 4 == 0 ? list.length : list.length + 1),
            lies & 8 == 0 ? model : keccak256("another base"),
            keccak256("aggregate"),
            next,
            0,
            0
        );
        bool valid = status == FederationRegistry.Status.Fixed && lies == 0 && _ones(_signing(signers)) >= 2;
        try REGISTRY.finalise(result, _approve(REGISTRY.hashResult(result), _signing(signers))) {
            assert(valid);
            (model, status) = (next, FederationRegistry.Status.Idle);
            (round, attempt) = (round + 1, 0);
            ++finalised;
            ++finalisedEver;
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function abandon(uint8 who) external counted {
        if (status == FederationRegistry.Status.Idle) return;
        bool open_ = status == FederationRegistry.Status.Open;
        bool over = block.timestamp > deadline || (open_ && block.timestamp > commitUntil && committed < 3);
        // Seldom where survivors are fixed, for that is the end.
        if (!open_ && who % 16 != 0) return;
        bool valid = (open_ || status == FederationRegistry.Status.Fixed) && over;
        vm.prank(participant(who));
        try REGISTRY.abandon(federation, round, attempt) {
            assert(valid && who % (PARTICIPANTS + 1) < PARTICIPANTS);
            status = open_ ? FederationRegistry.Status.Idle : FederationRegistry.Status.Closed;
            ++accepted;
        } catch {
            assert(!valid || who % (PARTICIPANTS + 1) == PARTICIPANTS);
        }
    }

    function wait_(uint16 time) external {
        vm.warp(block.timestamp + time);
    }

    /// @dev Ends what is under way, then does the whole of a round: so every sequence sees some.
    function run(uint8 absent) external {
        if (status == FederationRegistry.Status.Open) {
            if (block.timestamp <= deadline) this.wait_(uint16(deadline + 1 - block.timestamp));
            this.abandon(0);
        }
        if (status == FederationRegistry.Status.Fixed) this.finalise(1, 1, 0);
        this.open(1, 100, 0);
        for (uint256 i = 0; i < PARTICIPANTS; ++i) {
            if (i != absent % 16) this.commit(uint8(i));
        }
        this.wait_(200);
        this.fix(0, 1, 1);
        this.finalise(1, 1, 0);
    }

    /// @dev The same of a round whose survivors come after its deadline.
    function runLate(uint8 absent) external {
        if (status == FederationRegistry.Status.Open) {
            if (block.timestamp <= deadline) this.wait_(uint16(deadline + 1 - block.timestamp));
            this.abandon(0);
        }
        if (status == FederationRegistry.Status.Fixed) this.finalise(1, 1, 0);
        this.open(1, 100, 0);
        for (uint256 i = 0; i < PARTICIPANTS; ++i) {
            this.commit(uint8(i));
        }
        this.wait_(400);
        this.fixLate(1, 1, absent);
        this.finalise(1, 1, 0);
    }

    function accumulator(uint256 chosen) public view returns (bytes32 folded) {
        folded = ctx;
        for (uint256 i = 0; i < PARTICIPANTS; ++i) {
            if (chosen >> i & 1 == 1) folded = keccak256(abi.encode(folded, participant(i), commitments[ctx][i]));
        }
    }

    function participant(uint256 which) public view returns (address) {
        return participants[which % (PARTICIPANTS + 1)];
    }

    /// @dev Founds a federation, also after one was closed.
    function _found() private {
        model = keccak256(abi.encode("model", ++unique));
        FederationRegistry.Founding memory founding = FederationRegistry.Founding(
            keccak256(abi.encode("config", unique)), model, 3, 2, new address[](PARTICIPANTS), new address[](AGGREGATORS)
        );
        for (uint256 i = 0; i < PARTICIPANTS; ++i) {
            founding.participants[i] = participant(i);
        }
        for (uint256 i = 0; i < AGGREGATORS; ++i) {
            founding.aggregators[i] = vm.addr(keys[i]);
        }
        federation = REGISTRY.create(founding);
        (round, attempt, finalised, status) = (1, 0, 0, FederationRegistry.Status.Idle);
    }

    /// @dev All three most times; else any of them, bit by bit.
    function _signing(uint8 signers) private pure returns (uint256) {
        return signers % 4 == 0 ? signers / 4 % 8 : 7;
    }

    function _committedBits() private view returns (uint256 bits) {
        for (uint256 i = 0; i < PARTICIPANTS; ++i) {
            if (commitments[ctx][i] != 0) bits |= 1 << i;
        }
    }

    function _list(uint256 chosen) private view returns (address[] memory list) {
        list = new address[](_ones(chosen));
        uint256 next = 0;
        for (uint256 i = 0; i < PARTICIPANTS; ++i) {
            if (chosen >> i & 1 == 1) list[next++] = participant(i);
        }
    }

    function _approve(bytes32 digest, uint256 signers) private view returns (Quorum.Approval[] memory approvals) {
        approvals = new Quorum.Approval[](_ones(signers));
        uint256 next = 0;
        for (uint256 i = 0; i < AGGREGATORS; ++i) {
            if (signers >> i & 1 == 1) {
                (uint8 v, bytes32 r, bytes32 s) = vm.sign(keys[i], digest);
                approvals[next++] = Quorum.Approval(vm.addr(keys[i]), abi.encodePacked(r, s, v));
            }
        }
    }

    function _consent(FederationRegistry.SurvivorSet memory set, uint256 consenting)
        private
        view
        returns (Quorum.Approval[] memory consents)
    {
        consents = new Quorum.Approval[](_ones(consenting));
        uint256 next = 0;
        for (uint256 i = 0; i < PARTICIPANTS; ++i) {
            if (consenting >> i & 1 == 1) {
                (uint8 v, bytes32 r, bytes32 s) = vm.sign(participantKeys[i], REGISTRY.hashConsent(ctx, set, participant(i)));
                consents[next++] = Quorum.Approval(participant(i), abi.encodePacked(r, s, v));
            }
        }
    }

    function _ones(uint256 bits) private pure returns (uint256 n) {
        for (; bits != 0; bits >>= 1) {
            n += bits & 1;
        }
    }
}

/// forge-config: default.invariant.fail-on-revert = true
contract FederationRegistryInvariantTest {
    FederationHandler private handler;

    function setUp() public {
        vm.warp(1_800_000_000);
        handler = new FederationHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_the_model_is_what_accepted_results_made_of_it() public view {
        FederationRegistry.Federation memory current = handler.REGISTRY().get(handler.federation());
        assert(current.model == handler.model() && current.round == handler.round());
        assert(current.round == handler.finalised() + 1 && current.attempt == handler.attempt());
        assert(current.status == handler.status());
    }

    function invariant_the_accumulator_holds_the_survivors_and_nobody_else() public view {
        FederationRegistry.Federation memory current = handler.REGISTRY().get(handler.federation());
        if (current.status == FederationRegistry.Status.Open) assert(current.committed == handler.committed());
        if (current.status == FederationRegistry.Status.Fixed) {
            assert(current.accumulator == handler.accumulator(handler.survivors()));
            assert(current.updates >= current.minSurvivors);
        }
    }

    function invariant_no_model_is_the_base_of_two_sets_of_survivors() public view {
        assert(handler.survivorsFixedOn(handler.model()) <= 1);
    }

    /// @dev A handler whose calls were mostly refused, or that never finished a round, would prove little. (Replays of an old failure are
    /// short.)
    function afterInvariant() public view {
        assert(handler.attempts() < 32 || handler.accepted() * 4 >= handler.attempts());
        assert(handler.attempts() < 64 || (handler.finalisedEver() > 0 && handler.fixedLate() > 0));
    }
}
