// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {Quorum} from "./Quorum.sol";

/// @title Federations: who trains together, and what every round was made of
/// @notice The chain fixes what an aggregator could otherwise show differently to different sites: the manifest of a round, whose
/// updates its sum holds, and the model that comes next. It sees hashes, never an update or a model.
/// @dev A round goes Idle → Open → Fixed → Idle, or is abandoned after its deadline. The roster holds for the federation's life:
/// another roster is another federation. Nobody owns this contract.
contract FederationRegistry is EIP712, ERC2771Context {
    enum Status {
        Absent,
        Idle,
        Open,
        Fixed,
        Closed
    }

    /// @param configHash Digest of the canonical configuration (wire formats, section 0); a founder uses each only once.
    /// @param model Record of the model that the first round starts from.
    /// @param minSurvivors Updates that a published sum must hold, above half of the participants.
    /// @param quorum Aggregators who must sign, above half of them.
    /// @param participants Strictly ascending; the place in this list, from 1, is a participant's position in every round.
    /// @param aggregators Strictly ascending.
    struct Founding {
        bytes32 configHash;
        bytes32 model;
        uint16 minSurvivors;
        uint16 quorum;
        address[] participants;
        address[] aggregators;
    }

    /// @param committed Commitments in the latest attempt.
    /// @param round Number of the round that runs, or runs next, from 1.
    /// @param attempt Number of the latest attempt at it; 0 before the first.
    /// @param commitUntil Last second for commitments.
    /// @param deadline Last second before the round may be abandoned.
    /// @param updates Number of survivors of the latest round that has any, like `survivorsHash` and `accumulator`.
    /// @param model Record of the model that the round that runs, or runs next, starts from.
    /// @param manifestHash Digest of the canonical manifest of the latest attempt.
    struct Federation {
        address founder;
        Status status;
        uint16 minSurvivors;
        uint16 quorum;
        uint16 committed;
        uint64 round;
        uint64 attempt;
        uint48 commitUntil;
        uint48 deadline;
        uint32 updates;
        bytes32 configHash;
        bytes32 model;
        bytes32 manifestHash;
        bytes32 survivorsHash;
        bytes32 accumulator;
    }

    /// @param survivors Participants whose complete masked vectors are in the sum, strictly ascending.
    /// @param maskedRecord Record of the masked vectors (tree of kind `update`).
    struct SurvivorSet {
        bytes32 federation;
        uint64 round;
        uint64 attempt;
        bytes32 maskedRecord;
        address[] survivors;
    }

    /// @param updates Number of survivors.
    /// @param aggregate Digest of the sum that was unmasked.
    /// @param metrics Digest of the canonical metrics of the round, or zero.
    /// @param epsilonMicro Privacy loss spent by the federation so far, in millionths of ε; zero where no differential privacy is claimed.
    struct Result {
        bytes32 federation;
        uint64 round;
        uint64 attempt;
        bytes32 survivorsHash;
        bytes32 accumulator;
        uint32 updates;
        bytes32 baseModel;
        bytes32 aggregate;
        bytes32 model;
        bytes32 metrics;
        uint64 epsilonMicro;
    }

    bytes32 public constant SURVIVORS_TYPEHASH =
        keccak256("Survivors(bytes32 federation,uint64 round,uint64 attempt,bytes32 survivorsHash,bytes32 maskedRecord)");
    bytes32 public constant RESULT_TYPEHASH = keccak256(
        "Result(bytes32 federation,uint64 round,uint64 attempt,bytes32 survivorsHash,bytes32 accumulator,uint32 updates,"
        "bytes32 baseModel,bytes32 aggregate,bytes32 model,bytes32 metrics,uint64 epsilonMicro)"
    );

    bytes32 public constant MESSAGE_TYPEHASH =
        keccak256("SecureAggregationMessage(bytes32 ctx,string stage,address sender,bytes32 payload)");

    uint256 public constant MIN_PARTICIPANTS = 3;
    uint256 public constant MAX_PARTICIPANTS = 128;
    uint256 public constant MAX_AGGREGATORS = 16;
    uint48 public constant MAX_ROUND = 30 days;

    mapping(bytes32 federation => Federation) private _federations;
    mapping(bytes32 federation => address[]) private _participants;
    mapping(bytes32 federation => mapping(address participant => uint16)) private _positions;
    mapping(bytes32 federation => mapping(address aggregator => bool)) private _aggregators;
    mapping(bytes32 ctx => mapping(address participant => bytes32)) private _commitments;

    event FederationCreated(
        bytes32 indexed federation,
        address indexed founder,
        bytes32 configHash,
        bytes32 model,
        uint16 minSurvivors,
        uint16 quorum,
        address[] participants,
        address[] aggregators
    );
    event FederationClosed(bytes32 indexed federation, address indexed closedBy, uint64 round, bytes32 model);
    event RoundOpened(
        bytes32 indexed federation,
        uint64 indexed round,
        uint64 attempt,
        address openedBy,
        bytes32 ctx,
        bytes32 manifestHash,
        bytes32 baseModel,
        uint48 commitUntil,
        uint48 deadline
    );
    event UpdateCommitted(
        bytes32 indexed federation,
        uint64 indexed round,
        address indexed participant,
        uint64 attempt,
        bytes32 ctx,
        bytes32 commitment
    );
    event SurvivorsFixed(
        bytes32 indexed federation,
        uint64 indexed round,
        uint64 attempt,
        bytes32 ctx,
        bytes32 survivorsHash,
        bytes32 maskedRecord,
        bytes32 accumulator,
        address[] survivors,
        address[] signers
    );
    event RoundFinalised(
        bytes32 indexed federation,
        uint64 indexed round,
        uint64 attempt,
        bytes32 baseModel,
        bytes32 model,
        bytes32 aggregate,
        bytes32 metrics,
        uint32 updates,
        uint64 epsilonMicro,
        address[] signers
    );
    event RoundAbandoned(
        bytes32 indexed federation, uint64 indexed round, uint64 attempt, address abandonedBy, bool survivorsWereFixed
    );

    error FederationExists(bytes32 federation);
    error WrongStatus(bytes32 federation, Status expected, Status got);
    error MissingHash();
    error ParticipantsOutOfBounds(uint256 length, uint256 least, uint256 most);
    error AggregatorsOutOfBounds(uint256 length, uint256 least, uint256 most);
    error MinSurvivorsOutOfBounds(uint16 minSurvivors, uint256 least, uint256 most);
    error QuorumOutOfBounds(uint16 quorum, uint256 least, uint256 most);
    error NotFounder(bytes32 federation, address caller);
    error NotAggregator(bytes32 federation, address caller);
    error NotParticipant(bytes32 federation, address caller);
    error NotMember(bytes32 federation, address caller);
    error RoundMismatch(uint64 expectedRound, uint64 expectedAttempt, uint64 round, uint64 attempt);
    error ContextMismatch(bytes32 expected, bytes32 got);
    error TimesOutOfOrder(uint48 commitUntil, uint48 deadline, uint256 blockTimestamp);
    error RoundTooLong(uint48 deadline, uint256 latest);
    error CommitmentsClosed(uint48 commitUntil, uint256 blockTimestamp);
    error CommitmentsStillOpen(uint48 commitUntil, uint256 blockTimestamp);
    error AlreadyCommitted(address participant, bytes32 commitment);
    error NoCommitment(address participant);
    error TooFewSurvivors(uint256 required, uint256 got);
    error SurvivorsTooLate(uint48 deadline, uint256 blockTimestamp);
    error SurvivorsMismatch(bytes32 expected, bytes32 got);
    error AccumulatorMismatch(bytes32 expected, bytes32 got);
    error UpdatesMismatch(uint32 expected, uint32 got);
    error BaseModelMismatch(bytes32 expected, bytes32 got);
    error DeadlineNotReached(uint48 deadline, uint256 blockTimestamp);

    constructor(address forwarder) EIP712("Rexis", "1") ERC2771Context(forwarder) {}

    /// @notice Founds a federation; its id is known beforehand (`federationId`).
    /// @dev Keeps: any two sets of survivors, and any two quorums, of one federation overlap, since both are above half; lists have no
    /// duplicates and are bounded; listing somebody binds him to nothing before he commits.
    function create(Founding calldata founding) external returns (bytes32 federation) {
        address founder = _msgSender();
        if (founding.configHash == 0 || founding.model == 0) revert MissingHash();
        federation = federationId(founder, founding.configHash);
        Federation storage created = _federations[federation];
        if (created.status != Status.Absent) revert FederationExists(federation);
        _checkBounds(founding);

        created.founder = founder;
        created.status = Status.Idle;
        created.round = 1;
        created.minSurvivors = founding.minSurvivors;
        created.quorum = founding.quorum;
        created.configHash = founding.configHash;
        created.model = founding.model;
        _setMembers(federation, founding.participants, founding.aggregators);
        emit FederationCreated(
            federation,
            founder,
            founding.configHash,
            founding.model,
            founding.minSurvivors,
            founding.quorum,
            founding.participants,
            founding.aggregators
        );
    }

    /// @notice Opens the next round, or the next attempt at a round that was abandoned; for any one aggregator.
    /// @dev Keeps: one round runs at a time; its manifest is fixed before anybody commits; it ends within `MAX_ROUND`. Round and
    /// attempt are named, so a late relay opens nothing that was not meant.
    function openRound(
        bytes32 federation,
        uint64 round,
        uint64 attempt,
        bytes32 manifestHash,
        uint48 commitUntil,
        uint48 deadline
    ) external {
        Federation storage current = _inStatus(federation, Status.Idle);
        address caller = _msgSender();
        if (!_aggregators[federation][caller]) revert NotAggregator(federation, caller);
        _checkRound(current, round, attempt, current.attempt + 1);
        if (manifestHash == 0) revert MissingHash();
        if (commitUntil <= block.timestamp || deadline <= commitUntil) {
            revert TimesOutOfOrder(commitUntil, deadline, block.timestamp);
        }
        if (deadline > block.timestamp + MAX_ROUND) revert RoundTooLong(deadline, block.timestamp + MAX_ROUND);

        current.status = Status.Open;
        current.committed = 0;
        current.attempt = attempt;
        (current.commitUntil, current.deadline) = (commitUntil, deadline);
        current.manifestHash = manifestHash;
        emit RoundOpened(
            federation,
            round,
            attempt,
            caller,
            contextOf(federation, round, attempt, manifestHash),
            manifestHash,
            current.model,
            commitUntil,
            deadline
        );
    }

    /// @notice A participant commits to its update before anybody can see a sum.
    /// @dev Keeps: one commitment a participant and attempt, never replaced. The context names round, attempt and manifest, so it
    /// counts for what the participant saw and nothing else.
    /// @param commitment keccak256(abi.encode(ctx, participant, digest of the update, salt)): nobody can copy it, or guess its content.
    function commitUpdate(bytes32 federation, bytes32 ctx, bytes32 commitment) external {
        Federation storage current = _inStatus(federation, Status.Open);
        address participant = _msgSender();
        if (_positions[federation][participant] == 0) revert NotParticipant(federation, participant);
        bytes32 expected = contextOf(federation, current.round, current.attempt, current.manifestHash);
        if (ctx != expected) revert ContextMismatch(expected, ctx);
        if (block.timestamp > current.commitUntil) revert CommitmentsClosed(current.commitUntil, block.timestamp);
        if (commitment == 0) revert MissingHash();
        bytes32 present = _commitments[ctx][participant];
        if (present != 0) revert AlreadyCommitted(participant, present);

        _commitments[ctx][participant] = commitment;
        ++current.committed;
        emit UpdateCommitted(federation, current.round, participant, current.attempt, ctx, commitment);
    }

    /// @notice Fixes whose updates the sum of this round holds; for anybody who has the signatures of a quorum.
    /// @dev Keeps: written once a round, whatever attempts follow, since two sums over different survivors differ by single updates.
    /// Every survivor has committed; there are `minSurvivors` of them; before `commitUntil` nobody is left out. Not after `deadline`, when
    /// members may abandon: a late call would leave them a round with survivors, whose abandonment closes the federation.
    function fixSurvivors(SurvivorSet calldata set, Quorum.Approval[] calldata approvals) external {
        Federation storage current = _currentRound(set);
        if (block.timestamp > current.deadline) revert SurvivorsTooLate(current.deadline, block.timestamp);
        _fix(current, set, approvals);
    }

    /// @notice Fixes survivors although `deadline` has passed, where the participants themselves signed them: they agreed on this set,
    /// and may have opened its sum, while this chain could not be reached. For anybody who has the signatures.
    /// @dev Keeps: as `fixSurvivors`, but for the time: once a round, and a quorum of aggregators signed it too. `minSurvivors` participants
    /// signed this set off chain (wire formats, section 5), above half of them, so that no late call of aggregators alone leaves members a
    /// round that they can only close. Not after somebody abandoned the attempt. The result then has as long as one in time has for it.
    /// @param consents Participants' signatures of the stage survivors of this attempt, strictly ascending.
    function fixConsented(SurvivorSet calldata set, Quorum.Approval[] calldata approvals, Quorum.Approval[] calldata consents)
        external
    {
        Federation storage current = _currentRound(set);
        _requireConsents(current, set, consents);
        if (block.timestamp > current.deadline) {
            current.deadline = uint48(block.timestamp) + (current.deadline - current.commitUntil);
        }
        _fix(current, set, approvals);
    }

    /// @notice Records the result of a round, and with it the model that the next one starts from; for anybody who has the
    /// signatures of a quorum.
    /// @dev Keeps: every model follows from the one before it, through exactly the updates of the survivors that were fixed.
    function finalise(Result calldata result, Quorum.Approval[] calldata approvals) external {
        Federation storage current = _inStatus(result.federation, Status.Fixed);
        _checkRound(current, result.round, result.attempt, current.attempt);
        if (result.survivorsHash != current.survivorsHash) {
            revert SurvivorsMismatch(current.survivorsHash, result.survivorsHash);
        }
        if (result.accumulator != current.accumulator) revert AccumulatorMismatch(current.accumulator, result.accumulator);
        if (result.updates != current.updates) revert UpdatesMismatch(current.updates, result.updates);
        if (result.baseModel != current.model) revert BaseModelMismatch(current.model, result.baseModel);
        if (result.aggregate == 0 || result.model == 0) revert MissingHash();
        address[] memory signers = _requireQuorum(result.federation, hashResult(result), current.quorum, approvals);

        current.status = Status.Idle;
        current.model = result.model;
        (current.round, current.attempt) = (result.round + 1, 0);
        emit RoundFinalised(
            result.federation,
            result.round,
            result.attempt,
            result.baseModel,
            result.model,
            result.aggregate,
            result.metrics,
            result.updates,
            result.epsilonMicro,
            signers
        );
    }

    /// @notice Gives up a round that has passed its deadline, or that can no longer gather `minSurvivors`; for any member.
    /// @dev Keeps: every round has an exit. Where survivors were fixed, somebody may know their sum, and a second sum from the same base
    /// model could reveal a single update; so that federation closes, and its members go on from another model in a new one.
    function abandon(bytes32 federation, uint64 round, uint64 attempt) external {
        Federation storage current = _federations[federation];
        bool survivorsWereFixed = current.status == Status.Fixed;
        if (!survivorsWereFixed) _inStatus(federation, Status.Open);
        address caller = _msgSender();
        if (!isMember(federation, caller)) revert NotMember(federation, caller);
        _checkRound(current, round, attempt, current.attempt);
        bool hopeless = !survivorsWereFixed && block.timestamp > current.commitUntil && current.committed < current.minSurvivors;
        if (!hopeless && block.timestamp <= current.deadline) revert DeadlineNotReached(current.deadline, block.timestamp);

        current.status = survivorsWereFixed ? Status.Closed : Status.Idle;
        emit RoundAbandoned(federation, round, attempt, caller, survivorsWereFixed);
        if (survivorsWereFixed) emit FederationClosed(federation, caller, round, current.model);
    }

    /// @notice Ends a federation between two rounds; for its founder.
    /// @dev Keeps: a closed federation never changes again.
    function close(bytes32 federation) external {
        Federation storage current = _inStatus(federation, Status.Idle);
        address caller = _msgSender();
        if (caller != current.founder) revert NotFounder(federation, caller);
        current.status = Status.Closed;
        emit FederationClosed(federation, caller, current.round, current.model);
    }

    /// @notice Everything about a federation but its members.
    function get(bytes32 federation) external view returns (Federation memory) {
        return _federations[federation];
    }

    /// @notice The roster, strictly ascending: positions 1, 2, 3, …
    function participantsOf(bytes32 federation) external view returns (address[] memory) {
        return _participants[federation];
    }

    /// @notice Place in the roster from 1, or 0 for who is not in it.
    function positionOf(bytes32 federation, address participant) external view returns (uint16) {
        return _positions[federation][participant];
    }

    function isAggregator(bytes32 federation, address who) external view returns (bool) {
        return _aggregators[federation][who];
    }

    /// @notice What a participant committed to under this context, or zero.
    function commitmentOf(bytes32 ctx, address participant) external view returns (bytes32) {
        return _commitments[ctx][participant];
    }

    /// @notice Whether somebody is founder, participant or aggregator.
    function isMember(bytes32 federation, address who) public view returns (bool) {
        return _positions[federation][who] != 0 || _aggregators[federation][who] || _federations[federation].founder == who;
    }

    /// @notice Id of the federation that this founder makes of this configuration.
    function federationId(address founder, bytes32 configHash) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), founder, configHash));
    }

    /// @notice What every hash, key derivation and signature of one attempt at one round includes (wire formats, section 5).
    function contextOf(bytes32 federation, uint64 round, uint64 attempt, bytes32 manifestHash) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), federation, round, attempt, manifestHash));
    }

    /// @notice EIP-712 digest that aggregators sign to fix survivors.
    function hashSurvivors(SurvivorSet calldata set, bytes32 survivorsHash) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(abi.encode(SURVIVORS_TYPEHASH, set.federation, set.round, set.attempt, survivorsHash, set.maskedRecord))
        );
    }

    /// @notice EIP-712 digest of a participant's message of the stage survivors, which names this set.
    /// @param ctx Of the attempt (`contextOf`).
    function hashConsent(bytes32 ctx, SurvivorSet calldata set, address participant) external view returns (bytes32) {
        return _hashConsent(ctx, participant, _consentPayload(set));
    }

    /// @notice EIP-712 digest that aggregators sign to finalise a round.
    function hashResult(Result calldata result) public view returns (bytes32) {
        // All members are words of their own, so the struct's encoding is EIP-712's.
        return _hashTypedDataV4(keccak256(abi.encode(RESULT_TYPEHASH, result)));
    }

    function _checkBounds(Founding calldata founding) private pure {
        uint256 n = founding.participants.length;
        if (n < MIN_PARTICIPANTS || n > MAX_PARTICIPANTS) {
            revert ParticipantsOutOfBounds(n, MIN_PARTICIPANTS, MAX_PARTICIPANTS);
        }
        uint256 m = founding.aggregators.length;
        if (m == 0 || m > MAX_AGGREGATORS) revert AggregatorsOutOfBounds(m, 1, MAX_AGGREGATORS);
        if (founding.minSurvivors <= n / 2 || founding.minSurvivors > n) {
            revert MinSurvivorsOutOfBounds(founding.minSurvivors, n / 2 + 1, n);
        }
        if (founding.quorum <= m / 2 || founding.quorum > m) revert QuorumOutOfBounds(founding.quorum, m / 2 + 1, m);
    }

    function _setMembers(bytes32 federation, address[] calldata participants, address[] calldata aggregators) private {
        address previous = address(0);
        for (uint16 i = 0; i < participants.length; ++i) {
            previous = Quorum.ascend(previous, participants[i]);
            _positions[federation][previous] = i + 1;
        }
        _participants[federation] = participants;
        previous = address(0);
        for (uint256 i = 0; i < aggregators.length; ++i) {
            previous = Quorum.ascend(previous, aggregators[i]);
            _aggregators[federation][previous] = true;
        }
    }

    function _currentRound(SurvivorSet calldata set) private view returns (Federation storage current) {
        current = _inStatus(set.federation, Status.Open);
        _checkRound(current, set.round, set.attempt, current.attempt);
    }

    function _fix(Federation storage current, SurvivorSet calldata set, Quorum.Approval[] calldata approvals) private {
        if (set.maskedRecord == 0) revert MissingHash();
        if (set.survivors.length < current.minSurvivors) revert TooFewSurvivors(current.minSurvivors, set.survivors.length);
        if (set.survivors.length != _participants[set.federation].length && block.timestamp <= current.commitUntil) {
            revert CommitmentsStillOpen(current.commitUntil, block.timestamp);
        }
        bytes32 ctx = contextOf(set.federation, set.round, set.attempt, current.manifestHash);
        bytes32 survivorsHash = keccak256(abi.encode(ctx, set.survivors));
        bytes32 accumulator = _accumulate(ctx, set.survivors);
        address[] memory signers = _requireQuorum(set.federation, hashSurvivors(set, survivorsHash), current.quorum, approvals);

        current.status = Status.Fixed;
        current.survivorsHash = survivorsHash;
        current.accumulator = accumulator;
        current.updates = uint32(set.survivors.length);
        emit SurvivorsFixed(
            set.federation, set.round, set.attempt, ctx, survivorsHash, set.maskedRecord, accumulator, set.survivors, signers
        );
    }

    /// @dev Reverts unless at least `minSurvivors` different participants signed, and every given signature is one's.
    function _requireConsents(Federation storage current, SurvivorSet calldata set, Quorum.Approval[] calldata consents)
        private
        view
    {
        if (consents.length < current.minSurvivors) {
            revert Quorum.QuorumNotReached(current.minSurvivors, consents.length);
        }
        bytes32 ctx = contextOf(set.federation, set.round, set.attempt, current.manifestHash);
        bytes32 payload = _consentPayload(set);
        address previous = address(0);
        for (uint256 i = 0; i < consents.length; ++i) {
            previous = Quorum.ascend(previous, consents[i].signer);
            if (_positions[set.federation][previous] == 0) revert NotParticipant(set.federation, previous);
            if (!Quorum.hasSigned(previous, _hashConsent(ctx, previous, payload), consents[i].signature)) {
                revert Quorum.InvalidApproval(previous);
            }
        }
    }

    function _hashConsent(bytes32 ctx, address participant, bytes32 payload) private view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(MESSAGE_TYPEHASH, ctx, keccak256("survivors"), participant, payload)));
    }

    /// @dev SHA-256 of what participants sign in the stage survivors: its tag, a zero byte, and the canonical JSON (RFC 8785) of the set.
    function _consentPayload(SurvivorSet calldata set) private pure returns (bytes32) {
        bytes memory json =
            abi.encodePacked('{"masked":"', Strings.toHexString(uint256(set.maskedRecord), 32), '","survivors":[');
        for (uint256 i = 0; i < set.survivors.length; ++i) {
            json = abi.encodePacked(json, i == 0 ? '"' : ',"', Strings.toChecksumHexString(set.survivors[i]), '"');
        }
        return sha256(abi.encodePacked("rexis/secagg/survivors/1", bytes1(0), json, "]}"));
    }

    /// @dev Chain of hashes over the survivors and what each committed to, in order of address; starts from the context.
    function _accumulate(bytes32 ctx, address[] calldata survivors) private view returns (bytes32 accumulator) {
        accumulator = ctx;
        address previous = address(0);
        for (uint256 i = 0; i < survivors.length; ++i) {
            previous = Quorum.ascend(previous, survivors[i]);
            bytes32 commitment = _commitments[ctx][previous];
            if (commitment == 0) revert NoCommitment(previous);
            accumulator = keccak256(abi.encode(accumulator, previous, commitment));
        }
    }

    /// @dev Reverts unless at least `quorum` different aggregators signed, and every given signature is one's.
    function _requireQuorum(bytes32 federation, bytes32 digest, uint256 quorum, Quorum.Approval[] calldata approvals)
        private
        view
        returns (address[] memory signers)
    {
        signers = Quorum.requireSigned(approvals, digest, quorum);
        for (uint256 i = 0; i < signers.length; ++i) {
            if (!_aggregators[federation][signers[i]]) revert NotAggregator(federation, signers[i]);
        }
    }

    function _inStatus(bytes32 federation, Status expected) private view returns (Federation storage current) {
        current = _federations[federation];
        if (current.status != expected) revert WrongStatus(federation, expected, current.status);
    }

    function _checkRound(Federation storage current, uint64 round, uint64 attempt, uint64 expectedAttempt) private view {
        if (round != current.round || attempt != expectedAttempt) {
            revert RoundMismatch(current.round, expectedAttempt, round, attempt);
        }
    }
}
