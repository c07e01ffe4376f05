// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {Escrow} from "./Escrow.sol";
import {FederationRegistry} from "./FederationRegistry.sol";
import {PaymentTokens} from "./PaymentTokens.sol";
import {PositionalTree} from "./PositionalTree.sol";

/// @title Rewards for rounds of training
/// @notice Whoever wants rounds to be run puts the money here before they open, so that nobody trains for a promise. Afterwards the
/// publisher commits to who gets how much (a tree of type `reward`), members may object for a while, and then everybody's share is
/// claimed. What is not claimed goes back.
/// @dev An epoch goes Funded → Published → Closed; an objection makes it Challenged, from where the arbiter confirms it, or sends it back
/// to Funded. The funder names publisher and arbiter, and every time, when he pays in: who takes part in the rounds can read them
/// before. Every state ends by time, by calls that anybody may make, and nobody can pause one. Nobody owns this contract.
contract RewardDistributor is Escrow {
    using BitMaps for BitMaps.BitMap;

    enum Status {
        Absent,
        Funded,
        Published,
        Challenged,
        Confirmed,
        Closed
    }

    /// @param federation Whose rounds are rewarded.
    /// @param firstRound Number of the first of them; it has not opened yet.
    /// @param lastRound Number of the last of them; the same as the first for a single round.
    /// @param label Anything that tells epochs of this funder for the same rounds apart.
    /// @param token An accepted ERC-20.
    /// @param amount All that can be paid out, in the token's smallest unit.
    /// @param publisher Who says how much each gets.
    /// @param arbiter Who decides about objections; neither funder nor publisher, nor in the roster.
    /// @param publishBy Last second for publications, and also for one that replaces a rejected one.
    /// @param challengeSeconds How long after a publication members may object.
    /// @param answerSeconds How long after that the arbiter may decide.
    /// @param claimSeconds How long shares may then be claimed.
    struct Terms {
        bytes32 federation;
        uint64 firstRound;
        uint64 lastRound;
        bytes32 label;
        address token;
        uint256 amount;
        address publisher;
        address arbiter;
        uint48 publishBy;
        uint32 challengeSeconds;
        uint32 answerSeconds;
        uint32 claimSeconds;
    }

    /// @param number Publications so far.
    /// @param nLeaves Shares in the latest one.
    /// @param challengeUntil Last second for objections to it.
    /// @param claimFrom First second in which it can not be changed any more, and shares are claimed.
    /// @param claimUntil Last second for claims.
    /// @param total Sum of its shares.
    /// @param claimed What of it was claimed.
    /// @param record Record of the tree of shares.
    struct Epoch {
        Status status;
        address funder;
        uint32 number;
        uint32 nLeaves;
        uint48 challengeUntil;
        uint48 claimFrom;
        uint48 claimUntil;
        uint256 total;
        uint256 claimed;
        bytes32 record;
        Terms terms;
    }

    bytes32 public constant REWARD_KIND = keccak256("rexis/leaf/reward/1");

    uint48 public constant MAX_PUBLISH_TERM = 730 days;
    uint32 public constant MIN_WINDOW = 1 hours;
    uint32 public constant MAX_WINDOW = 30 days;
    uint32 public constant MIN_CLAIM_TERM = 7 days;
    uint32 public constant MAX_CLAIM_TERM = 730 days;
    uint256 public constant MAX_URI_BYTES = 512;

    FederationRegistry public immutable FEDERATIONS;

    mapping(bytes32 epoch => Epoch) private _epochs;
    mapping(bytes32 epoch => BitMaps.BitMap) private _claimed;
    mapping(bytes32 epoch => mapping(uint32 number => mapping(address challenger => bool))) private _challenged;

    event EpochFunded(bytes32 indexed epoch, bytes32 indexed federation, address indexed funder, Terms terms);
    event RewardsPublished(
        bytes32 indexed epoch,
        bytes32 indexed federation,
        uint32 number,
        bytes32 record,
        uint32 nLeaves,
        uint256 total,
        uint48 challengeUntil,
        uint48 claimFrom,
        uint48 claimUntil,
        string uri
    );
    event RewardsChallenged(
        bytes32 indexed epoch,
        address indexed challenger,
        uint32 number,
        bytes32 reasonHash,
        uint48 answerUntil,
        uint48 claimFrom,
        uint48 claimUntil
    );
    event RewardsConfirmed(bytes32 indexed epoch, uint32 number, bytes32 reasonHash, uint48 claimFrom, uint48 claimUntil);
    event RewardsRejected(bytes32 indexed epoch, uint32 number, bytes32 reasonHash);
    event RewardClaimed(
        bytes32 indexed epoch, address indexed account, uint32 index, uint256 amount, uint256 claimed, address claimedBy
    );
    event EpochClosed(bytes32 indexed epoch, address indexed funder, uint256 returned, address closedBy);

    error EpochExists(bytes32 epoch);
    error WrongStatus(bytes32 epoch, Status got);
    error NoAmount();
    error RoundsOutOfOrder(uint64 firstRound, uint64 lastRound);
    error FederationNotRunning(bytes32 federation, FederationRegistry.Status status);
    error RoundHasOpened(bytes32 federation, uint64 firstRound, uint64 currentRound, FederationRegistry.Status status);
    error RoundsNotFinalised(bytes32 federation, uint64 lastRound, uint64 currentRound, FederationRegistry.Status status);
    error PublisherMissing();
    error ArbiterNotIndependent(address arbiter);
    error PublishTermOutOfBounds(uint48 publishBy, uint256 earliest, uint256 latest);
    error WindowOutOfBounds(uint32 duration, uint32 least, uint32 most);
    error NotPublisher(bytes32 epoch, address caller);
    error NotArbiter(bytes32 epoch, address caller);
    error NoStanding(bytes32 epoch, address caller);
    error PublicationMismatch(bytes32 epoch, uint32 expected, uint32 got);
    error PublicationTooLate(uint48 publishBy, uint256 blockTimestamp);
    error EmptyPublication();
    error UriTooLong(uint256 length, uint256 limit);
    error TotalOutOfBounds(uint256 total, uint256 least, uint256 most);
    error ChallengeTooLate(uint48 challengeUntil, uint256 blockTimestamp);
    error AlreadyChallenged(bytes32 epoch, uint32 number, address challenger);
    error StillOpenToChallenges(uint48 challengeUntil, uint256 blockTimestamp);
    error DecisionTooLate(uint48 answerUntil, uint256 blockTimestamp);
    error MissingReason();
    error NotClaimable(bytes32 epoch, uint48 claimFrom, uint48 claimUntil, uint256 blockTimestamp);
    error AlreadyClaimed(bytes32 epoch, uint32 index);
    error InvalidAccount(address account);
    error TotalExceeded(uint256 total, uint256 claimed, uint256 amount);
    error NotOver(bytes32 epoch, uint48 until, uint256 blockTimestamp);

    constructor(address forwarder, FederationRegistry federations, PaymentTokens tokens)
        Escrow(tokens)
        ERC2771Context(forwarder)
    {
        FEDERATIONS = federations;
    }

    /// @notice Pays in the reward of rounds that have not opened; for anybody. Its id is known beforehand (`epochId`). It can not be taken
    /// back: only time, or the end of the federation before the first of these rounds, returns it.
    /// @dev Keeps: what an epoch promises is here in full, in an accepted token, before the first of its rounds opens. Between two
    /// attempts at a round counts as before it: an abandoned attempt has no sum, so its training rewards nobody. Everything that its
    /// outcome depends on is fixed here, and the arbiter is no party. The funder is part of the id, so nobody takes its place.
    function fund(Terms calldata terms, Permit calldata permit) external returns (bytes32 epoch) {
        address funder = _msgSender();
        epoch = epochId(funder, terms.federation, terms.firstRound, terms.lastRound, terms.label);
        Epoch storage made = _epochs[epoch];
        if (made.status != Status.Absent) revert EpochExists(epoch);
        _checkTerms(terms, funder);
        _checkNotOpened(terms);

        made.status = Status.Funded;
        made.funder = funder;
        made.terms = terms;
        emit EpochFunded(epoch, terms.federation, funder, terms);
        _requireAccepted(terms.token);
        _take(terms.token, funder, terms.amount, permit);
    }

    /// @notice Commits to who gets how much, after the last of the rounds was finalised; for the publisher. Where the federation has
    /// closed early, what it finished is rewarded.
    /// @dev Keeps: one publication stands at a time, within `amount`; it replaces only what was rejected, and names its number, so an
    /// earlier one that arrives late replaces nothing.
    /// @param number The publications so far and one.
    /// @param record Record of the tree of shares: leaves of type `reward` in the epoch's context, digest of `digestOf`.
    /// @param nLeaves Number of shares.
    /// @param total Sum of the shares; claims stop there, so if they sum to more, the last come short: recount it, and object.
    /// @param uri Where members find all shares and salts; names neither patients nor sites.
    function publish(bytes32 epoch, uint32 number, bytes32 record, uint32 nLeaves, uint256 total, string calldata uri)
        external
    {
        Epoch storage current = _inStatus(epoch, Status.Funded);
        address caller = _msgSender();
        if (caller != current.terms.publisher) revert NotPublisher(epoch, caller);
        if (number != current.number + 1) revert PublicationMismatch(epoch, current.number + 1, number);
        if (block.timestamp > current.terms.publishBy) {
            revert PublicationTooLate(current.terms.publishBy, block.timestamp);
        }
        if (record == 0 || nLeaves == 0) revert EmptyPublication();
        if (total == 0 || total > current.terms.amount) revert TotalOutOfBounds(total, 1, current.terms.amount);
        if (bytes(uri).length > MAX_URI_BYTES) revert UriTooLong(bytes(uri).length, MAX_URI_BYTES);
        _checkFinalised(current.terms);

        current.status = Status.Published;
        (current.number, current.nLeaves, current.total, current.record) = (number, nLeaves, total, record);
        current.challengeUntil = uint48(block.timestamp) + current.terms.challengeSeconds;
        _setClaimFrom(current, current.challengeUntil + 1);
        emit RewardsPublished(
            epoch,
            current.terms.federation,
            number,
            record,
            nLeaves,
            total,
            current.challengeUntil,
            current.claimFrom,
            current.claimUntil,
            uri
        );
    }

    /// @notice Objects to a publication; for participants of the federation and the funder. From the first objection on nothing is
    /// claimed before the arbiter decides, or his time is over; then the publication stands.
    /// @dev Keeps: everybody is heard within the whole window, once a publication, whoever came first; the number is named, so an
    /// objection that arrives late does not hit a publication that it does not mean. Without an answer the publication stands: an
    /// objection alone takes nobody's reward away.
    /// @param reasonHash Digest of the reasons, which the arbiter is given off chain.
    function challenge(bytes32 epoch, uint32 number, bytes32 reasonHash) external {
        Epoch storage current = _epochs[epoch];
        if (current.status != Status.Published && current.status != Status.Challenged) {
            revert WrongStatus(epoch, current.status);
        }
        address caller = _msgSender();
        if (caller != current.funder && FEDERATIONS.positionOf(current.terms.federation, caller) == 0) {
            revert NoStanding(epoch, caller);
        }
        if (number != current.number) revert PublicationMismatch(epoch, current.number, number);
        if (block.timestamp > current.challengeUntil) revert ChallengeTooLate(current.challengeUntil, block.timestamp);
        if (reasonHash == 0) revert MissingReason();
        if (_challenged[epoch][number][caller]) revert AlreadyChallenged(epoch, number, caller);

        _challenged[epoch][number][caller] = true;
        uint48 answerUntil = current.challengeUntil + current.terms.answerSeconds;
        current.status = Status.Challenged;
        _setClaimFrom(current, answerUntil + 1);
        emit RewardsChallenged(epoch, caller, number, reasonHash, answerUntil, current.claimFrom, current.claimUntil);
    }

    /// @notice Lets a publication stand against the objections; for the arbiter, after the window in which they are raised.
    /// @dev Keeps: nobody's objection is cut off by the answer to another's; claims begin at once and have their full time.
    function confirm(bytes32 epoch, uint32 number, bytes32 reasonHash) external {
        Epoch storage current = _deciding(epoch, number, reasonHash);
        if (block.timestamp <= current.challengeUntil) {
            revert StillOpenToChallenges(current.challengeUntil, block.timestamp);
        }
        current.status = Status.Confirmed;
        _setClaimFrom(current, uint48(block.timestamp));
        emit RewardsConfirmed(epoch, number, reasonHash, current.claimFrom, current.claimUntil);
    }

    /// @notice Takes a publication off on the strength of an objection; for the arbiter. The publisher may make another until `publishBy`.
    /// @dev Keeps: only what nobody could claim from yet is taken off.
    function reject(bytes32 epoch, uint32 number, bytes32 reasonHash) external {
        Epoch storage current = _deciding(epoch, number, reasonHash);
        current.status = Status.Funded;
        (current.nLeaves, current.total, current.record) = (0, 0, 0);
        (current.challengeUntil, current.claimFrom, current.claimUntil) = (0, 0, 0);
        emit RewardsRejected(epoch, number, reasonHash);
    }

    /// @notice Credits a share to its account, which fetches it by `withdraw`; for anybody who has the proof.
    /// @dev Keeps: each index once, from the one publication that can not change any more, and never more than its total; to nobody but
    /// the account in the leaf. No state of the federation matters any more.
    function claim(bytes32 epoch, uint32 index, address account, uint256 amount, bytes16 salt, bytes32[] calldata proof)
        external
    {
        Epoch storage current = _epochs[epoch];
        if (current.status < Status.Published || current.status > Status.Confirmed) revert WrongStatus(epoch, current.status);
        if (block.timestamp < current.claimFrom || block.timestamp > current.claimUntil) {
            revert NotClaimable(epoch, current.claimFrom, current.claimUntil, block.timestamp);
        }
        // Credits of these two could never be withdrawn.
        if (account == address(0) || account == address(this)) revert InvalidAccount(account);
        if (_claimed[epoch].get(index)) revert AlreadyClaimed(epoch, index);
        bytes32 leaf = PositionalTree.leaf(REWARD_KIND, contextOf(epoch), index, 0, digestOf(account, amount), salt);
        PositionalTree.verify(current.record, REWARD_KIND, current.nLeaves, index, leaf, proof);
        if (amount > current.total - current.claimed) revert TotalExceeded(current.total, current.claimed, amount);

        _claimed[epoch].set(index);
        current.claimed += amount;
        emit RewardClaimed(epoch, account, index, amount, current.claimed, _msgSender());
        _credit(current.terms.token, account, amount);
    }

    /// @notice Returns what is left to the funder, as a credit, once nobody can get it any more; for anybody.
    /// @dev Keeps: every epoch has this exit: where nothing stands, after `publishBy`, or as soon as the federation has closed before the
    /// first of the rounds was finalised; where a publication stands, after `claimUntil`. Closed is terminal.
    function close(bytes32 epoch) external {
        Epoch storage current = _epochs[epoch];
        Status status = current.status;
        if (status == Status.Absent || status == Status.Closed) revert WrongStatus(epoch, status);
        uint48 until = status == Status.Funded ? current.terms.publishBy : current.claimUntil;
        bool hopeless = status == Status.Funded && _isHopeless(current.terms);
        if (!hopeless && block.timestamp <= until) revert NotOver(epoch, until, block.timestamp);

        uint256 returned = current.terms.amount - current.claimed;
        current.status = Status.Closed;
        emit EpochClosed(epoch, current.funder, returned, _msgSender());
        _credit(current.terms.token, current.funder, returned);
    }

    /// @notice Everything about an epoch; all zero where there is none.
    function get(bytes32 epoch) external view returns (Epoch memory) {
        return _epochs[epoch];
    }

    /// @notice Whether the share at this index was claimed.
    function isClaimed(bytes32 epoch, uint32 index) external view returns (bool) {
        return _claimed[epoch].get(index);
    }

    /// @notice Id of the epoch that this funder makes for these rounds with this label.
    function epochId(address funder, bytes32 federation, uint64 firstRound, uint64 lastRound, bytes32 label)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(block.chainid, address(this), funder, federation, firstRound, lastRound, label));
    }

    /// @notice Context of every leaf of an epoch (wire formats, section 2).
    function contextOf(bytes32 epoch) public view returns (bytes32) {
        return PositionalTree.contextOf(block.chainid, address(this), epoch);
    }

    /// @notice Digest of a share, which its leaf holds under a salt.
    function digestOf(address account, uint256 amount) public pure returns (bytes32) {
        return keccak256(abi.encode(account, amount));
    }

    function _checkTerms(Terms calldata terms, address funder) private view {
        if (terms.amount == 0) revert NoAmount();
        if (terms.firstRound == 0 || terms.lastRound < terms.firstRound) {
            revert RoundsOutOfOrder(terms.firstRound, terms.lastRound);
        }
        if (terms.publisher == address(0)) revert PublisherMissing();
        address arbiter = terms.arbiter;
        if (
            arbiter == address(0) || arbiter == funder || arbiter == terms.publisher
                || FEDERATIONS.positionOf(terms.federation, arbiter) != 0
        ) revert ArbiterNotIndependent(arbiter);
        uint256 latest = block.timestamp + MAX_PUBLISH_TERM;
        if (terms.publishBy <= block.timestamp || terms.publishBy > latest) {
            revert PublishTermOutOfBounds(terms.publishBy, block.timestamp + 1, latest);
        }
        _checkWindow(terms.challengeSeconds, MIN_WINDOW, MAX_WINDOW);
        _checkWindow(terms.answerSeconds, MIN_WINDOW, MAX_WINDOW);
        _checkWindow(terms.claimSeconds, MIN_CLAIM_TERM, MAX_CLAIM_TERM);
    }

    function _checkWindow(uint32 duration, uint32 least, uint32 most) private pure {
        if (duration < least || duration > most) revert WindowOutOfBounds(duration, least, most);
    }

    /// @dev A later round than the present one has not opened, whatever that one does; the present one while nothing runs.
    function _checkNotOpened(Terms calldata terms) private view {
        FederationRegistry.Federation memory federation = FEDERATIONS.get(terms.federation);
        FederationRegistry.Status status = federation.status;
        if (status == FederationRegistry.Status.Absent || status == FederationRegistry.Status.Closed) {
            revert FederationNotRunning(terms.federation, status);
        }
        uint64 next = status == FederationRegistry.Status.Idle ? federation.round : federation.round + 1;
        if (terms.firstRound < next) revert RoundHasOpened(terms.federation, terms.firstRound, federation.round, status);
    }

    function _checkFinalised(Terms storage terms) private view {
        FederationRegistry.Federation memory federation = FEDERATIONS.get(terms.federation);
        bool closed = federation.status == FederationRegistry.Status.Closed;
        // A finalised round's number lies below the present one's.
        if (federation.round <= (closed ? terms.firstRound : terms.lastRound)) {
            revert RoundsNotFinalised(terms.federation, terms.lastRound, federation.round, federation.status);
        }
    }

    /// @dev No round of the epoch was finalised, and none ever will be: Closed is terminal.
    function _isHopeless(Terms storage terms) private view returns (bool) {
        FederationRegistry.Federation memory federation = FEDERATIONS.get(terms.federation);
        return federation.status == FederationRegistry.Status.Closed && federation.round <= terms.firstRound;
    }

    /// @dev The challenged epoch, if the caller is its arbiter, means this publication, and is in time.
    function _deciding(bytes32 epoch, uint32 number, bytes32 reasonHash) private view returns (Epoch storage current) {
        current = _inStatus(epoch, Status.Challenged);
        address caller = _msgSender();
        if (caller != current.terms.arbiter) revert NotArbiter(epoch, caller);
        if (number != current.number) revert PublicationMismatch(epoch, current.number, number);
        if (block.timestamp >= current.claimFrom) revert DecisionTooLate(current.claimFrom - 1, block.timestamp);
        if (reasonHash == 0) revert MissingReason();
    }

    function _setClaimFrom(Epoch storage current, uint48 claimFrom) private {
        current.claimFrom = claimFrom;
        current.claimUntil = claimFrom + current.terms.claimSeconds;
    }

    function _inStatus(bytes32 epoch, Status expected) private view returns (Epoch storage current) {
        current = _epochs[epoch];
        if (current.status != expected) revert WrongStatus(epoch, current.status);
    }
}
