// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {Escrow} from "./Escrow.sol";
import {ModelRegistry} from "./ModelRegistry.sol";
import {PaymentTokens} from "./PaymentTokens.sol";
import {PositionalTree} from "./PositionalTree.sol";

/// @title Answers of models, committed in batches, with a stake on them
/// @notice A batch is the record of a tree of receipts (wire formats, sections 2 and 3). Afterwards its operator can neither add, drop
/// nor change an answer, and anybody who holds a receipt and its proof can show on chain that it was given. An operator may put a bond on
/// his batches: whoever finds a wrong answer in one challenges it, and an operator who does not answer in time is guilty.
/// @dev Leaves have the context of their batch, whose id names operator, owner and model: a proof counts for one batch, on one chain, in
/// one contract. A challenge names its leaf by the salted hash alone, so what the receipt says stays between the parties and the
/// arbiter. A batch goes Pending → Final, or Pending → Challenged → Pending, Final or Rejected. Nobody owns this contract.
contract InferenceRegistry is Escrow {
    /// @dev Challenged, and Final without a call, are told by `statusOf` and never stored.
    enum Status {
        Absent,
        Pending,
        Challenged,
        Final,
        Rejected
    }

    enum Outcome {
        Absent,
        Open,
        Answered,
        Upheld,
        Dismissed,
        Undecided,
        Moot
    }

    /// @param count Number of receipts.
    /// @param terms Number of the operator's terms that hold for this batch; 0 where nothing is staked on it.
    /// @param owner Whose model answered.
    /// @param open Challenges that are not over.
    /// @param record Record of the tree of receipts.
    struct Batch {
        address operator;
        uint40 committedAt;
        uint32 count;
        Status status;
        uint16 terms;
        address owner;
        uint32 open;
        bytes32 model;
        bytes32 record;
    }

    /// @notice What an operator stakes on each batch from now on.
    /// @param token Of the bond; zero with a bond of nothing.
    /// @param bond Locked a batch, and what a challenger puts against it.
    /// @param arbiter Who judges a challenge that was answered; whoever relies on a batch sees him before.
    struct Terms {
        address token;
        uint96 bond;
        address arbiter;
    }

    /// @param total What the operator put in and did not take out or lose.
    /// @param locked Part of it that is bound to batches.
    struct Stake {
        uint128 total;
        uint128 locked;
    }

    /// @param deadline Last second for the answer while it is open, for the ruling once it was answered.
    struct Challenge {
        Outcome outcome;
        uint48 deadline;
    }

    bytes32 public constant RECEIPT_KIND = keccak256("rexis/leaf/receipt/1");

    /// @notice Time to challenge a batch, from its commitment.
    uint48 public constant CHALLENGE_TIME = 7 days;

    /// @notice Time to answer a challenge.
    uint48 public constant ANSWER_TIME = 3 days;

    /// @notice Time to judge a challenge that was answered.
    uint48 public constant RULING_TIME = 14 days;

    /// @notice Has the half of a lost bond that nobody gets; no key is known for it, so nobody can withdraw it.
    address public constant BURNT = 0x000000000000000000000000000000000000dEaD;

    ModelRegistry public immutable MODELS;

    /// @notice Number of an operator's present terms, and what the next `setTerms` must name; 0 before the first.
    mapping(address operator => uint16) public termsCount;

    mapping(bytes32 batch => Batch) private _batches;
    mapping(address operator => mapping(uint16 number => Terms)) private _terms;
    mapping(address operator => mapping(address token => Stake)) private _stakes;
    mapping(bytes32 batch => mapping(uint64 index => mapping(address challenger => Challenge))) private _challenges;

    event BatchCommitted(
        bytes32 indexed batch,
        address indexed operator,
        bytes32 indexed model,
        address owner,
        uint64 sequence,
        bytes32 record,
        uint32 count,
        uint16 terms,
        uint48 until
    );
    event BatchFinalised(bytes32 indexed batch, address indexed operator);
    event BatchRejected(bytes32 indexed batch, address indexed operator, address indexed challenger, uint64 index);
    event TermsSet(address indexed operator, uint16 indexed number, address token, uint96 bond, address arbiter);
    event StakeChanged(address indexed operator, address indexed token, uint128 total);
    event ChallengeOpened(
        bytes32 indexed batch, uint64 indexed index, address indexed challenger, bytes32 leaf, bytes32 reason, uint48 deadline
    );
    event ChallengeAnswered(
        bytes32 indexed batch, uint64 indexed index, address indexed challenger, bytes32 answer, uint48 deadline
    );
    event ChallengeClosed(
        bytes32 indexed batch, uint64 indexed index, address indexed challenger, Outcome outcome, bytes32 reason
    );

    error EmptyBatch();
    error BatchExists(bytes32 batch);
    error UnknownBatch(bytes32 batch);
    error ModelNotAuthorised(address owner, bytes32 model);
    error TermsVersionMismatch(uint16 expected, uint16 got);
    error InvalidTerms(address token, uint96 bond, address arbiter);
    error InvalidAmount(uint256 amount);
    error StakeTooSmall(address operator, address token, uint256 required, uint256 free);
    error NothingStaked(bytes32 batch);
    error WrongBatchStatus(bytes32 batch, Status expected, Status got);
    error MissingReason();
    error ChallengeExists(bytes32 batch, uint64 index, address challenger);
    error WrongOutcome(bytes32 batch, uint64 index, address challenger, Outcome expected, Outcome got);
    error NotOperator(bytes32 batch, address caller);
    error NotArbiterOfBatch(bytes32 batch, address caller);
    error DeadlinePassed(uint48 deadline, uint256 blockTimestamp);
    error DeadlineNotReached(uint48 deadline, uint256 blockTimestamp);

    constructor(address forwarder, ModelRegistry models, PaymentTokens tokens) ERC2771Context(forwarder) Escrow(tokens) {
        MODELS = models;
    }

    /// @notice Adds to what the caller can stake on batches.
    /// @dev Keeps: the stake grows by exactly what came in.
    /// @param permit Over the amount, where it was not approved before.
    function deposit(address token, uint128 amount, Permit calldata permit) external {
        if (amount == 0) revert InvalidAmount(amount);
        address operator = _msgSender();
        Stake storage stake = _stakes[operator][token];
        stake.total += amount;
        emit StakeChanged(operator, token, stake.total);
        _requireAccepted(token);
        _take(token, operator, amount, permit);
    }

    /// @notice Takes stake back that is bound to no batch; it becomes a credit.
    /// @dev Keeps: what is locked stays until its batch is final, so no time of notice is needed besides.
    function unstake(address token, uint128 amount) external {
        address operator = _msgSender();
        Stake storage stake = _stakes[operator][token];
        uint128 free = stake.total - stake.locked;
        if (amount == 0) revert InvalidAmount(amount);
        if (amount > free) revert StakeTooSmall(operator, token, amount, free);
        stake.total -= amount;
        emit StakeChanged(operator, token, stake.total);
        _credit(token, operator, amount);
    }

    /// @notice Says what the caller stakes on each later batch; a bond of zero stakes nothing.
    /// @dev Keeps: terms that a batch has never change; a call that names an earlier number fails, so a late relay undoes nothing.
    /// @param version Present number of the caller's terms (`termsCount`).
    function setTerms(Terms calldata terms, uint16 version) external {
        address operator = _msgSender();
        uint16 expected = termsCount[operator];
        if (version != expected) revert TermsVersionMismatch(expected, version);
        bool nothing = terms.bond == 0;
        if (nothing != (terms.token == address(0)) || nothing != (terms.arbiter == address(0)) || terms.arbiter == operator) {
            revert InvalidTerms(terms.token, terms.bond, terms.arbiter);
        }
        if (!nothing) _requireAccepted(terms.token);
        termsCount[operator] = version + 1;
        _terms[operator][version + 1] = terms;
        emit TermsSet(operator, version + 1, terms.token, terms.bond, terms.arbiter);
    }

    /// @notice Commits to a batch of receipts; its id is known beforehand (`batchId`), as the leaves need it.
    /// @dev Keeps: written once; bound to a model that its owner vouches for at this time; the bond of the present terms is free and
    /// becomes locked. The sender is part of the id, so nobody takes the place of a pending batch.
    /// @param sequence Any number that this operator has not used for this model.
    function commit(address owner, bytes32 model, uint64 sequence, bytes32 record, uint32 count)
        external
        returns (bytes32 batch)
    {
        if (record == 0 || count == 0) revert EmptyBatch();
        if (!MODELS.isAuthorised(owner, model)) revert ModelNotAuthorised(owner, model);
        address operator = _msgSender();
        batch = batchId(operator, owner, model, sequence);
        if (_batches[batch].status != Status.Absent) revert BatchExists(batch);
        uint16 terms = _lock(operator);
        _batches[batch] = Batch(operator, uint40(block.timestamp), count, Status.Pending, terms, owner, 0, model, record);
        uint48 until = uint48(block.timestamp) + CHALLENGE_TIME;
        emit BatchCommitted(batch, operator, model, owner, sequence, record, count, terms, until);
    }

    /// @notice Challenges the answer at an index; the caller puts in as much as is staked on the batch.
    /// @dev Keeps: the leaf stands in the batch; it is named by its salted hash, which tells strangers nothing. Everybody may challenge
    /// each leaf once, so nobody keeps another from it by being first.
    /// @param leaf Hash of the receipt's leaf (wire formats, section 2).
    /// @param reason Salted digest of what is wrong, which the arbiter and the operator are told off chain.
    function challenge(
        bytes32 batch,
        uint64 index,
        bytes32 leaf,
        bytes32[] calldata proof,
        bytes32 reason,
        Permit calldata permit
    ) external {
        if (reason == 0) revert MissingReason();
        Batch storage challenged = _of(batch, Status.Pending);
        if (challenged.terms == 0) revert NothingStaked(batch);
        uint48 until = challenged.committedAt + CHALLENGE_TIME;
        if (block.timestamp > until) revert DeadlinePassed(until, block.timestamp);
        PositionalTree.verify(challenged.record, RECEIPT_KIND, challenged.count, index, leaf, proof);
        address challenger = _msgSender();
        Challenge storage made = _challenges[batch][index][challenger];
        if (made.outcome != Outcome.Absent) revert ChallengeExists(batch, index, challenger);

        made.outcome = Outcome.Open;
        made.deadline = uint48(block.timestamp + ANSWER_TIME);
        ++challenged.open;
        emit ChallengeOpened(batch, index, challenger, leaf, reason, made.deadline);
        Terms storage terms = _termsOf(challenged);
        _take(terms.token, challenger, terms.bond, permit);
    }

    /// @notice The operator answers a challenge, and the arbiter has `RULING_TIME` to judge.
    /// @dev Keeps: once a challenge, in time, and only while the batch can still be saved.
    /// @param answer Salted digest of what the operator shows the arbiter.
    function answerChallenge(bytes32 batch, uint64 index, address challenger, bytes32 answer) external {
        if (answer == 0) revert MissingReason();
        address caller = _msgSender();
        if (caller != _of(batch, Status.Pending).operator) revert NotOperator(batch, caller);
        Challenge storage made = _challengeOf(batch, index, challenger, Outcome.Open);
        if (block.timestamp > made.deadline) revert DeadlinePassed(made.deadline, block.timestamp);
        made.outcome = Outcome.Answered;
        made.deadline = uint48(block.timestamp + RULING_TIME);
        emit ChallengeAnswered(batch, index, challenger, answer, made.deadline);
    }

    /// @notice The arbiter judges a challenge that was answered: upheld, and the batch is rejected; or dismissed, and the challenger's
    /// bond is the operator's.
    /// @dev Keeps: the first challenge that is upheld has half of the batch's bond, and the operator has lost all of it whoever was the
    /// first; every other one gets its own back (`settle`).
    /// @param reason Salted digest of the grounds.
    function rule(bytes32 batch, uint64 index, address challenger, bool upheld, bytes32 reason) external {
        if (reason == 0) revert MissingReason();
        Batch storage challenged = _of(batch, Status.Pending);
        // What was challenged has terms.
        Challenge storage made = _challengeOf(batch, index, challenger, Outcome.Answered);
        Terms storage terms = _termsOf(challenged);
        address caller = _msgSender();
        if (caller != terms.arbiter) revert NotArbiterOfBatch(batch, caller);
        if (block.timestamp > made.deadline) revert DeadlinePassed(made.deadline, block.timestamp);
        if (upheld) {
            _uphold(batch, index, challenger, reason);
        } else {
            _close(batch, index, challenger, Outcome.Dismissed, reason);
            _credit(terms.token, challenged.operator, terms.bond);
        }
    }

    /// @notice Ends a challenge that nobody ended in time, whoever calls: without an answer it is upheld; without a ruling both sides
    /// have their bonds back; and once the batch was rejected for another one, so has this challenger.
    /// @dev Keeps: no challenge is without an exit, and nothing can close it.
    function settle(bytes32 batch, uint64 index, address challenger) external {
        Batch storage challenged = _batches[batch];
        Challenge storage made = _challenges[batch][index][challenger];
        Outcome outcome = made.outcome;
        if (outcome != Outcome.Open && outcome != Outcome.Answered) {
            revert WrongOutcome(batch, index, challenger, Outcome.Open, outcome);
        }
        bool rejected = challenged.status == Status.Rejected;
        if (!rejected && block.timestamp <= made.deadline) revert DeadlineNotReached(made.deadline, block.timestamp);
        if (!rejected && outcome == Outcome.Open) {
            _uphold(batch, index, challenger, 0);
        } else {
            _close(batch, index, challenger, rejected ? Outcome.Moot : Outcome.Undecided, 0);
            Terms storage terms = _termsOf(challenged);
            _credit(terms.token, challenger, terms.bond);
        }
    }

    /// @notice Frees the bond of a batch that nobody challenges any more; for anybody.
    /// @dev Keeps: not before its time to be challenged is over and every challenge is.
    function finalise(bytes32 batch) external {
        Batch storage committed = _of(batch, Status.Pending);
        uint48 until = committed.committedAt + CHALLENGE_TIME;
        if (block.timestamp <= until) revert DeadlineNotReached(until, block.timestamp);
        if (committed.open != 0) revert WrongBatchStatus(batch, Status.Pending, Status.Challenged);
        committed.status = Status.Final;
        if (committed.terms != 0) {
            Terms storage terms = _termsOf(committed);
            _stakes[committed.operator][terms.token].locked -= terms.bond;
        }
        emit BatchFinalised(batch, committed.operator);
    }

    /// @notice Reverts unless the batch holds this receipt at this index. It is meant to be asked, not sent: what is sent stays public.
    /// @dev Keeps: at most one digest and salt verify for an index. Says nothing about the model since: see `MODELS.statusOf`; nor
    /// about the batch since: see `statusOf`.
    /// @param digest Of the receipt (model, input, output, time of issue).
    function verify(bytes32 batch, uint64 index, bytes32 digest, bytes16 salt, bytes32[] calldata proof) external view {
        Batch memory committed = get(batch);
        bytes32 leaf = PositionalTree.leaf(RECEIPT_KIND, contextOf(batch), index, 0, digest, salt);
        PositionalTree.verify(committed.record, RECEIPT_KIND, committed.count, index, leaf, proof);
    }

    /// @notice What became of a batch by now; an unchallenged one is final by time, whether or not anybody freed its bond.
    function statusOf(bytes32 batch) external view returns (Status) {
        Batch storage committed = _batches[batch];
        if (committed.status != Status.Pending) return committed.status;
        if (committed.open != 0) return Status.Challenged;
        return block.timestamp > committed.committedAt + CHALLENGE_TIME ? Status.Final : Status.Pending;
    }

    /// @notice What became of somebody's challenge of a leaf.
    function challengeOf(bytes32 batch, uint64 index, address challenger) external view returns (Challenge memory) {
        return _challenges[batch][index][challenger];
    }

    /// @notice An operator's terms by their number, from 1; all zero for 0, under which nothing is staked.
    function termsOf(address operator, uint16 number) external view returns (Terms memory) {
        return _terms[operator][number];
    }

    /// @notice What an operator has put in of a token, and how much of it is locked.
    function stakeOf(address operator, address token) external view returns (Stake memory) {
        return _stakes[operator][token];
    }

    /// @notice A batch as it was committed.
    function get(bytes32 batch) public view returns (Batch memory committed) {
        committed = _batches[batch];
        if (committed.status == Status.Absent) revert UnknownBatch(batch);
    }

    /// @notice Id of the batch with this number that this operator makes of answers of this model.
    function batchId(address operator, address owner, bytes32 model, uint64 sequence) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), operator, owner, model, sequence));
    }

    /// @notice Context of every leaf of a batch (wire formats, section 3).
    function contextOf(bytes32 batch) public view returns (bytes32) {
        return PositionalTree.contextOf(block.chainid, address(this), batch);
    }

    /// @dev Locks the bond of the present terms. Returns their number, 0 where they stake nothing.
    function _lock(address operator) private returns (uint16 number) {
        number = termsCount[operator];
        if (number == 0) return 0;
        Terms storage terms = _terms[operator][number];
        uint96 bond = terms.bond;
        if (bond == 0) return 0;
        Stake storage stake = _stakes[operator][terms.token];
        uint128 free = stake.total - stake.locked;
        if (bond > free) revert StakeTooSmall(operator, terms.token, bond, free);
        stake.locked += bond;
    }

    /// @dev The challenger has his own bond back, and half of the batch's besides. The other half is nobody's: an operator who is caught
    /// could else challenge his own batch under another name, be the first whose challenge is upheld, and lose nothing.
    function _uphold(bytes32 batch, uint64 index, address challenger, bytes32 reason) private {
        Batch storage rejected = _batches[batch];
        Terms storage terms = _termsOf(rejected);
        uint96 bond = terms.bond;
        Stake storage stake = _stakes[rejected.operator][terms.token];
        stake.total -= bond;
        stake.locked -= bond;
        rejected.status = Status.Rejected;
        _close(batch, index, challenger, Outcome.Upheld, reason);
        emit BatchRejected(batch, rejected.operator, challenger, index);
        emit StakeChanged(rejected.operator, terms.token, stake.total);
        uint256 reward = bond / 2;
        _credit(terms.token, challenger, bond + reward);
        _credit(terms.token, BURNT, bond - reward);
    }

    function _close(bytes32 batch, uint64 index, address challenger, Outcome outcome, bytes32 reason) private {
        _challenges[batch][index][challenger].outcome = outcome;
        --_batches[batch].open;
        emit ChallengeClosed(batch, index, challenger, outcome, reason);
    }

    function _of(bytes32 batch, Status expected) private view returns (Batch storage found) {
        found = _batches[batch];
        if (found.status != expected) revert WrongBatchStatus(batch, expected, found.status);
    }

    /// @dev Of a batch that has terms.
    function _termsOf(Batch storage batch) private view returns (Terms storage) {
        return _terms[batch.operator][batch.terms];
    }

    function _challengeOf(bytes32 batch, uint64 index, address challenger, Outcome expected)
        private
        view
        returns (Challenge storage made)
    {
        made = _challenges[batch][index][challenger];
        if (made.outcome != expected) revert WrongOutcome(batch, index, challenger, expected, made.outcome);
    }
}
