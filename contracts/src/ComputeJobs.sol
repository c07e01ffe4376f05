// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {Context} from "@openzeppelin/contracts/utils/Context.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {AccessManager} from "./AccessManager.sol";
import {DatasetRegistry} from "./DatasetRegistry.sol";
import {Escrow} from "./Escrow.sol";
import {PaymentTokens} from "./PaymentTokens.sol";

/// @title Compute-to-data jobs, paid from escrow
/// @notice A consumer pays in; a provider, whom the data set's owner trusts, runs an algorithm that the owner trusts, and commits to its
/// result; the consumer releases the money or disputes. Nothing of the job itself is on chain, only salted digests.
/// @dev Requested → Accepted → Committed → Released, or Disputed → Resolved, or Refunded from any of them but Committed. Every state on
/// the way has a deadline, after which anybody ends it, and the last ones are never left. The chain decides about money alone: access
/// and trust are asked for at request and at acceptance, and a provider weighs the whole policy again before the run and before a result
/// leaves. Access that ends during a run does not take the pay of a run that began under it; who must stop therefore abandons the job,
/// which refunds it. The owner of this contract, first the deployer, can keep jobs from beginning and decides nothing else.
contract ComputeJobs is Escrow, Ownable2Step, Pausable {
    enum Status {
        Absent,
        Requested,
        Accepted,
        Committed,
        Disputed,
        Released,
        Resolved,
        Refunded
    }

    enum Refund {
        Cancelled,
        Declined,
        Abandoned,
        NotAccepted,
        NotCommitted,
        NotResolved
    }

    /// @param dataset Id in the registry.
    /// @param purpose Number of the DUO permission of the consumer's grant.
    /// @param provider Who is to run the algorithm.
    /// @param arbiter Who decides a dispute: neither consumer nor provider, who agrees to him by accepting.
    /// @param algorithm Digest of image digest, entry point and schema of the parameters.
    /// @param document Salted digest of what is asked for (parameters, form of the result); with the other terms it makes
    /// the job's id, which is used only once.
    /// @param token Of the price; zero where the job is free.
    /// @param acceptUntil Last second for the acceptance.
    /// @param runSeconds Time to commit a result, from the acceptance.
    /// @param reviewSeconds Time to dispute the result, from its commitment.
    struct Terms {
        uint256 dataset;
        uint16 purpose;
        address provider;
        address arbiter;
        bytes32 algorithm;
        bytes32 document;
        address token;
        uint96 price;
        uint48 acceptUntil;
        uint32 runSeconds;
        uint32 reviewSeconds;
    }

    /// @param deadline Last second of the present state; of no meaning in a last one.
    /// @param result Digest that the provider committed to, or zero.
    struct Job {
        address consumer;
        Status status;
        uint16 purpose;
        uint32 runSeconds;
        uint32 reviewSeconds;
        address provider;
        uint48 deadline;
        address arbiter;
        address token;
        uint96 price;
        uint256 dataset;
        bytes32 algorithm;
        bytes32 result;
    }

    /// @dev Counts under the owner who gave it only, as a sale ends it.
    struct Trust {
        bool given;
        uint64 ownerEpoch;
        uint64 version;
    }

    uint48 public constant MAX_ACCEPT = 30 days;
    uint32 public constant MAX_RUN = 90 days;
    uint32 public constant MIN_REVIEW = 1 hours;
    uint32 public constant MAX_REVIEW = 30 days;

    /// @notice Time to decide a dispute. The same for every job: the refund after it is the consumer's, who writes the terms.
    uint32 public constant ARBITRATION = 14 days;

    uint16 public constant WHOLE = 10_000;

    AccessManager public immutable ACCESS;
    DatasetRegistry public immutable REGISTRY;

    mapping(uint256 dataset => mapping(bytes32 algorithm => Trust)) private _algorithms;
    mapping(uint256 dataset => mapping(address provider => Trust)) private _providers;
    mapping(bytes32 job => Job) private _jobs;

    event AlgorithmTrustChanged(
        uint256 indexed dataset, bytes32 indexed algorithm, bool trusted, address changedBy, uint64 ownerEpoch, uint64 version
    );
    event ProviderTrustChanged(
        uint256 indexed dataset, address indexed provider, bool trusted, address changedBy, uint64 ownerEpoch, uint64 version
    );
    event JobRequested(
        bytes32 indexed job,
        uint256 indexed dataset,
        address indexed consumer,
        address provider,
        address arbiter,
        uint16 purpose,
        bytes32 algorithm,
        bytes32 document
    );
    event JobFunded(
        bytes32 indexed job, address indexed token, uint96 price, uint48 acceptUntil, uint32 runSeconds, uint32 reviewSeconds
    );
    event JobAccepted(bytes32 indexed job, address indexed provider, uint48 deadline);
    event ResultCommitted(bytes32 indexed job, bytes32 result, bytes32 logs, bytes32 meter, uint48 deadline);
    event JobDisputed(bytes32 indexed job, bytes32 reason, uint48 deadline);
    event JobReleased(bytes32 indexed job, bool byTimeout, uint96 paid, address royaltyReceiver, uint96 royalty);
    event JobResolved(
        bytes32 indexed job, uint16 providerShareBps, uint96 refunded, uint96 paid, address royaltyReceiver, uint96 royalty
    );
    event JobRefunded(bytes32 indexed job, Refund reason, uint96 refunded);

    error NotInChargeOfDataset(uint256 dataset, address caller);
    error TrustVersionMismatch(uint64 expected, uint64 got);
    error AlgorithmNotTrusted(uint256 dataset, bytes32 algorithm);
    error ProviderNotTrusted(uint256 dataset, address provider);
    error AccessNotGranted(uint256 dataset, address consumer, uint16 purpose);
    error InvalidArbiter(address arbiter);
    error AcceptUntilOutOfBounds(uint48 acceptUntil, uint256 earliest, uint256 latest);
    error RunTimeOutOfBounds(uint32 runSeconds, uint32 least, uint32 most);
    error ReviewTimeOutOfBounds(uint32 reviewSeconds, uint32 least, uint32 most);
    error PriceWithoutToken(address token, uint96 price);
    error MissingDigest();
    error JobExists(bytes32 job);
    error NotTheirJob(bytes32 job, address expected, address caller);
    error WrongJobStatus(bytes32 job, Status expected, Status got);
    error JobOver(bytes32 job, Status status);
    error TooLate(bytes32 job, uint48 deadline, uint256 blockTimestamp);
    error TooEarly(bytes32 job, uint48 deadline, uint256 blockTimestamp);
    error ShareTooHigh(uint16 shareBps, uint16 limit);

    constructor(address forwarder, AccessManager access, PaymentTokens tokens, address initialOwner)
        ERC2771Context(forwarder)
        Escrow(tokens)
        Ownable(initialOwner)
    {
        ACCESS = access;
        REGISTRY = access.REGISTRY();
    }

    /// @notice Lets an algorithm run on a data set, decided by its owner or committee.
    /// @dev Keeps: a call that names an earlier version fails, so trust that was taken back is not given again by a late relay.
    /// @param version Present version of this trust (`algorithmTrust`).
    function trustAlgorithm(uint256 dataset, bytes32 algorithm, uint64 version) external {
        if (algorithm == 0) revert MissingDigest();
        Trust storage trust = _algorithms[dataset][algorithm];
        uint64 ownerEpoch = _changeTrust(trust, dataset, true, version);
        emit AlgorithmTrustChanged(dataset, algorithm, true, _msgSender(), ownerEpoch, trust.version);
    }

    /// @notice Takes that back, also where it has not arrived yet; jobs that were accepted before go on.
    /// @dev Keeps: owner and committee can always do so, and it outdates all trust that was signed before.
    function distrustAlgorithm(uint256 dataset, bytes32 algorithm) external {
        Trust storage trust = _algorithms[dataset][algorithm];
        uint64 ownerEpoch = _changeTrust(trust, dataset, false, trust.version);
        emit AlgorithmTrustChanged(dataset, algorithm, false, _msgSender(), ownerEpoch, trust.version);
    }

    /// @notice Lets somebody beside the owner run jobs on a data set, decided by its owner or committee.
    /// @dev Keeps: as `trustAlgorithm`.
    /// @param version Present version of this trust (`providerTrust`).
    function trustProvider(uint256 dataset, address provider, uint64 version) external {
        if (provider == address(0)) revert ProviderNotTrusted(dataset, provider);
        Trust storage trust = _providers[dataset][provider];
        uint64 ownerEpoch = _changeTrust(trust, dataset, true, version);
        emit ProviderTrustChanged(dataset, provider, true, _msgSender(), ownerEpoch, trust.version);
    }

    /// @notice Takes that back, also where it has not arrived yet; jobs that he accepted before go on. The owner always stays a provider.
    /// @dev Keeps: as `distrustAlgorithm`.
    function distrustProvider(uint256 dataset, address provider) external {
        Trust storage trust = _providers[dataset][provider];
        uint64 ownerEpoch = _changeTrust(trust, dataset, false, trust.version);
        emit ProviderTrustChanged(dataset, provider, false, _msgSender(), ownerEpoch, trust.version);
    }

    /// @notice Asks for a run and pays its price in; the id is known beforehand (`jobId`).
    /// @dev Keeps: the consumer has access, owner or committee trust algorithm and provider, all times are bounded, and exactly the price
    /// came in. The sender is part of the id, so nobody takes the place of a pending request; so are all terms, so who signs for an id
    /// has signed for them, whatever a reorganisation of the chain puts in another's place.
    /// @param permit Over the price, where it was not approved before.
    function request(Terms calldata terms, Permit calldata permit) external whenNotPaused returns (bytes32 id) {
        address consumer = _msgSender();
        if (terms.document == 0) revert MissingDigest();
        id = jobId(consumer, terms);
        Job storage job = _jobs[id];
        if (job.status != Status.Absent) revert JobExists(id);
        _checkTerms(terms, consumer);

        job.consumer = consumer;
        job.status = Status.Requested;
        job.purpose = terms.purpose;
        job.runSeconds = terms.runSeconds;
        job.reviewSeconds = terms.reviewSeconds;
        job.provider = terms.provider;
        job.deadline = terms.acceptUntil;
        job.arbiter = terms.arbiter;
        job.token = terms.token;
        job.price = terms.price;
        job.dataset = terms.dataset;
        job.algorithm = terms.algorithm;
        _checkStanding(job);
        emit JobRequested(
            id, terms.dataset, consumer, terms.provider, terms.arbiter, terms.purpose, terms.algorithm, terms.document
        );
        emit JobFunded(id, terms.token, terms.price, terms.acceptUntil, terms.runSeconds, terms.reviewSeconds);
        if (terms.price != 0) {
            _requireAccepted(terms.token);
            _take(terms.token, consumer, terms.price, permit);
        }
    }

    /// @notice The provider takes the job on; from now on he has `runSeconds`.
    /// @dev Keeps: access and trust still hold, whatever changed since the request.
    function accept(bytes32 id) external whenNotPaused {
        Job storage job = _of(id, Status.Requested, _jobs[id].provider);
        _inTime(id, job);
        _checkStanding(job);
        job.status = Status.Accepted;
        job.deadline = uint48(block.timestamp + job.runSeconds);
        emit JobAccepted(id, job.provider, job.deadline);
    }

    /// @notice The provider refuses a request, and the consumer has his money back.
    /// @dev Keeps: works before the acceptance only, so one that is held back does not undo the work of somebody who accepted after all.
    function decline(bytes32 id) external {
        _refund(id, _of(id, Status.Requested, _jobs[id].provider), Refund.Declined);
    }

    /// @notice The consumer takes a request back that nobody accepted, and has his money back.
    /// @dev Keeps: a job that was accepted can not be called off by its consumer any more.
    function cancel(bytes32 id) external {
        _refund(id, _of(id, Status.Requested, _jobs[id].consumer), Refund.Cancelled);
    }

    /// @notice The provider gives an accepted job up (the run failed, or access ended), and the consumer has his money back.
    /// @dev Keeps: works until a result is committed.
    function abandon(bytes32 id) external {
        _refund(id, _of(id, Status.Accepted, _jobs[id].provider), Refund.Abandoned);
    }

    /// @notice The provider binds himself to a result, which the consumer then has `reviewSeconds` to look at.
    /// @dev Keeps: written once.
    /// @param result Salted digest of what the consumer gets.
    /// @param logs Digest of the logs of the run, or zero.
    /// @param meter Digest of what the run used, or zero.
    function commitResult(bytes32 id, bytes32 result, bytes32 logs, bytes32 meter) external {
        if (result == 0) revert MissingDigest();
        Job storage job = _of(id, Status.Accepted, _jobs[id].provider);
        _inTime(id, job);
        job.status = Status.Committed;
        job.result = result;
        job.deadline = uint48(block.timestamp + job.reviewSeconds);
        emit ResultCommitted(id, result, logs, meter, job.deadline);
    }

    /// @notice The consumer is content: the provider is paid.
    /// @dev Keeps: a release that is held back comes too late where a dispute was faster.
    function release(bytes32 id) external {
        _release(id, _of(id, Status.Committed, _jobs[id].consumer), false);
    }

    /// @notice The consumer refuses the result; the arbiter has `ARBITRATION` to decide.
    /// @dev Keeps: once a job, and within the time of review.
    /// @param reason Salted digest of what is wrong with it.
    function dispute(bytes32 id, bytes32 reason) external {
        if (reason == 0) revert MissingDigest();
        Job storage job = _of(id, Status.Committed, _jobs[id].consumer);
        _inTime(id, job);
        job.status = Status.Disputed;
        job.deadline = uint48(block.timestamp + ARBITRATION);
        emit JobDisputed(id, reason, job.deadline);
    }

    /// @notice The arbiter divides the price between provider and consumer.
    /// @dev Keeps: both parts sum to the price; rounding is the consumer's gain.
    /// @param providerShareBps Of the price, in basis points.
    function resolve(bytes32 id, uint16 providerShareBps) external {
        if (providerShareBps > WHOLE) revert ShareTooHigh(providerShareBps, WHOLE);
        Job storage job = _of(id, Status.Disputed, _jobs[id].arbiter);
        _inTime(id, job);
        job.status = Status.Resolved;
        // The product fits 110 bits, and the quotient is at most the price.
        // forge-lint: disable-next-line(unsafe-typecast)
        uint96 share = uint96(uint256(job.price) * providerShareBps / WHOLE);
        (uint96 paid, address receiver, uint96 royalty) = _pay(job, share);
        emit JobResolved(id, providerShareBps, job.price - share, paid, receiver, royalty);
        _credit(job.token, job.consumer, job.price - share);
    }

    /// @notice Ends a job whose deadline has passed, whoever calls: in the provider's favour if he waits for a review, else in the
    /// consumer's.
    /// @dev Keeps: no state before the last ones is without this exit, and nothing can close it.
    function timeout(bytes32 id) external {
        Job storage job = _jobs[id];
        Status status = job.status;
        if (status == Status.Absent || status > Status.Disputed) revert JobOver(id, status);
        if (block.timestamp <= job.deadline) revert TooEarly(id, job.deadline, block.timestamp);
        if (status == Status.Committed) _release(id, job, true);
        else if (status == Status.Requested) _refund(id, job, Refund.NotAccepted);
        else if (status == Status.Accepted) _refund(id, job, Refund.NotCommitted);
        else _refund(id, job, Refund.NotResolved);
    }

    /// @notice Keeps new jobs from being requested and accepted.
    /// @dev Keeps: nothing else asks whether it is paused; above all no refund, no settlement, no withdrawal.
    function pause() external onlyOwner {
        _pause();
    }

    /// @notice Lets jobs begin again.
    /// @dev Keeps: undoes `pause` and no more.
    function unpause() external onlyOwner {
        _unpause();
    }

    /// @notice A job as it stands, all zero if there is none with this id.
    function get(bytes32 id) external view returns (Job memory) {
        return _jobs[id];
    }

    function statusOf(bytes32 id) external view returns (Status) {
        return _jobs[id].status;
    }

    /// @notice Whether an algorithm may run on a data set, and the version that the next `trustAlgorithm` must name.
    function algorithmTrust(uint256 dataset, bytes32 algorithm) public view returns (bool trusted, uint64 version) {
        Trust storage trust = _algorithms[dataset][algorithm];
        return (trust.given && trust.ownerEpoch == REGISTRY.ownerEpoch(dataset), trust.version);
    }

    /// @notice Whether somebody may run jobs on a data set, and the version that the next `trustProvider` must name.
    function providerTrust(uint256 dataset, address provider) public view returns (bool trusted, uint64 version) {
        Trust storage trust = _providers[dataset][provider];
        bool appointed = trust.given && trust.ownerEpoch == REGISTRY.ownerEpoch(dataset);
        return (appointed || REGISTRY.ownerOf(dataset) == provider, trust.version);
    }

    /// @notice Id of the job that a consumer asks for by these terms.
    function jobId(address consumer, Terms calldata terms) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), consumer, terms));
    }

    /// @dev Keeps: only the present owner's word and that of his committee counts, and each change has its number.
    function _changeTrust(Trust storage trust, uint256 dataset, bool given, uint64 version)
        private
        returns (uint64 ownerEpoch)
    {
        address caller = _msgSender();
        if (!ACCESS.isOnCommittee(dataset, caller)) revert NotInChargeOfDataset(dataset, caller);
        if (version != trust.version) revert TrustVersionMismatch(trust.version, version);
        ownerEpoch = REGISTRY.ownerEpoch(dataset);
        trust.given = given;
        trust.ownerEpoch = ownerEpoch;
        trust.version = version + 1;
    }

    /// @dev Pays a part of the price to the provider, less the royalty of the data set (ERC-2981), which is at most that part.
    function _pay(Job storage job, uint96 amount) private returns (uint96 paid, address receiver, uint96 royalty) {
        uint256 due;
        (receiver, due) = REGISTRY.royaltyInfo(job.dataset, amount);
        if (receiver != address(0)) {
            // At most the amount, which has 96 bits.
            // forge-lint: disable-next-line(unsafe-typecast)
            royalty = due < amount ? uint96(due) : amount;
        }
        paid = amount - royalty;
        _credit(job.token, receiver, royalty);
        _credit(job.token, job.provider, paid);
    }

    function _release(bytes32 id, Job storage job, bool byTimeout) private {
        job.status = Status.Released;
        (uint96 paid, address receiver, uint96 royalty) = _pay(job, job.price);
        emit JobReleased(id, byTimeout, paid, receiver, royalty);
    }

    function _refund(bytes32 id, Job storage job, Refund reason) private {
        job.status = Status.Refunded;
        emit JobRefunded(id, reason, job.price);
        _credit(job.token, job.consumer, job.price);
    }

    /// @dev The job, if it is in this state and the caller is this party to it.
    function _of(bytes32 id, Status expected, address party) private view returns (Job storage job) {
        job = _jobs[id];
        if (job.status != expected) revert WrongJobStatus(id, expected, job.status);
        address caller = _msgSender();
        if (caller != party) revert NotTheirJob(id, party, caller);
    }

    function _inTime(bytes32 id, Job storage job) private view {
        if (block.timestamp > job.deadline) revert TooLate(id, job.deadline, block.timestamp);
    }

    function _checkStanding(Job storage job) private view {
        uint256 dataset = job.dataset;
        if (!ACCESS.hasAccess(dataset, job.consumer, job.purpose)) {
            revert AccessNotGranted(dataset, job.consumer, job.purpose);
        }
        (bool trusted,) = algorithmTrust(dataset, job.algorithm);
        if (!trusted) revert AlgorithmNotTrusted(dataset, job.algorithm);
        (trusted,) = providerTrust(dataset, job.provider);
        if (!trusted) revert ProviderNotTrusted(dataset, job.provider);
    }

    function _checkTerms(Terms calldata terms, address consumer) private view {
        if (terms.arbiter == address(0) || terms.arbiter == consumer || terms.arbiter == terms.provider) {
            revert InvalidArbiter(terms.arbiter);
        }
        if (terms.acceptUntil < block.timestamp || terms.acceptUntil > block.timestamp + MAX_ACCEPT) {
            revert AcceptUntilOutOfBounds(terms.acceptUntil, block.timestamp, block.timestamp + MAX_ACCEPT);
        }
        if (terms.runSeconds == 0 || terms.runSeconds > MAX_RUN) revert RunTimeOutOfBounds(terms.runSeconds, 1, MAX_RUN);
        if (terms.reviewSeconds < MIN_REVIEW || terms.reviewSeconds > MAX_REVIEW) {
            revert ReviewTimeOutOfBounds(terms.reviewSeconds, MIN_REVIEW, MAX_REVIEW);
        }
        if ((terms.price == 0) != (terms.token == address(0))) revert PriceWithoutToken(terms.token, terms.price);
    }

    function _msgSender() internal view override(Context, ERC2771Context) returns (address) {
        return ERC2771Context._msgSender();
    }

    function _msgData() internal view override(Context, ERC2771Context) returns (bytes calldata) {
        return ERC2771Context._msgData();
    }

    function _contextSuffixLength() internal view override(Context, ERC2771Context) returns (uint256) {
        return ERC2771Context._contextSuffixLength();
    }
}
