// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {DatasetRegistry} from "./DatasetRegistry.sol";

/// @title Who may use which data set for what, and until when
/// @notice A grant is necessary, never sufficient: whoever serves the data evaluates the whole policy (modifiers, ethics approval,
/// place of processing) against the conditions that the grant names by hash.
/// @dev Signed calls arrive late and in any order. So whatever is replaced here names the number of what it replaces, and a
/// revocation needs none: it always succeeds and outdates every grant that was signed before. Nobody owns this contract.
contract AccessManager is ERC2771Context {
    enum Status {
        Absent,
        Active,
        Expired,
        Suspended,
        Withdrawn
    }

    /// @param dataset Id in the registry.
    /// @param consumer Who gets access.
    /// @param purpose Number of the DUO permission: 4 NRES, 6 HMB, 7 DS, 11 POA, 42 GRU.
    /// @param until Last second of the grant.
    /// @param policyVersion Version of the policy that was weighed; the call fails if another is in force by then.
    /// @param grantEpoch Changes of this grant so far; the call fails if there were more by then.
    /// @param conditionsHash Digest of the canonical conditions (wire formats, section 0), which are published off chain.
    struct Terms {
        uint256 dataset;
        address consumer;
        uint16 purpose;
        uint48 until;
        uint32 policyVersion;
        uint64 grantEpoch;
        bytes32 conditionsHash;
    }

    struct Grant {
        uint48 grantedAt;
        uint48 until;
        uint32 policyVersion;
        uint64 ownerEpoch;
        uint64 grantEpoch;
        bytes32 conditionsHash;
    }

    uint256 public constant MAX_COMMITTEE = 16;
    uint48 public constant MAX_TERM = 730 days;

    DatasetRegistry public immutable REGISTRY;

    /// @notice Committees appointed so far; the latest holds as long as its owner does.
    mapping(uint256 dataset => uint64) public committeeVersion;

    mapping(uint256 dataset => mapping(uint64 ownerEpoch => mapping(uint64 version => mapping(address member => bool)))) private
        _members;
    mapping(uint256 dataset => mapping(address consumer => mapping(uint16 purpose => Grant))) private _grants;

    event CommitteeSet(uint256 indexed dataset, address indexed owner, uint64 ownerEpoch, uint64 version, address[] members);
    event AccessGranted(
        uint256 indexed dataset,
        address indexed consumer,
        uint16 indexed purpose,
        address grantedBy,
        uint48 until,
        bytes32 conditionsHash,
        bytes32 policyHash,
        uint32 policyVersion,
        uint64 ownerEpoch,
        uint64 grantEpoch
    );
    event AccessRevoked(
        uint256 indexed dataset, address indexed consumer, uint16 indexed purpose, address revokedBy, uint64 grantEpoch
    );

    error NotOwnerOfDataset(uint256 dataset, address caller);
    error NotOnCommittee(uint256 dataset, address caller);
    error CommitteeTooLarge(uint256 length, uint256 limit);
    error MembersNotAscending(address previous, address member);
    error CommitteeVersionMismatch(uint64 expected, uint64 got);
    error InvalidConsumer();
    error UnknownPurpose(uint16 purpose);
    error TermOutOfBounds(uint48 until, uint256 earliest, uint256 latest);
    error MissingConditions();
    error PolicyVersionMismatch(uint32 expected, uint32 got);
    error GrantEpochMismatch(uint64 expected, uint64 got);
    error DatasetNotActive(uint256 dataset);

    constructor(address forwarder, DatasetRegistry registry) ERC2771Context(forwarder) {
        REGISTRY = registry;
    }

    /// @notice Appoints the data access committee in place of the present one; an empty list dismisses it. The owner always decides
    /// like a member.
    /// @dev Keeps: only members whom the present owner appointed decide, since a transfer starts an owner epoch without any; a call
    /// that names an earlier version fails, so nobody who was dismissed comes back by a late relay.
    /// @param members Strictly ascending.
    /// @param version Present value of `committeeVersion`.
    function setCommittee(uint256 dataset, address[] calldata members, uint64 version) external {
        address owner = _msgSender();
        if (REGISTRY.ownerOf(dataset) != owner) revert NotOwnerOfDataset(dataset, owner);
        if (members.length > MAX_COMMITTEE) revert CommitteeTooLarge(members.length, MAX_COMMITTEE);
        if (version != committeeVersion[dataset]) revert CommitteeVersionMismatch(committeeVersion[dataset], version);
        committeeVersion[dataset] = ++version;
        uint64 ownerEpoch = REGISTRY.ownerEpoch(dataset);
        address previous = address(0);
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i] <= previous) revert MembersNotAscending(previous, members[i]);
            previous = members[i];
            _members[dataset][ownerEpoch][version][previous] = true;
        }
        emit CommitteeSet(dataset, owner, ownerEpoch, version, members);
    }

    /// @notice Grants access, or confirms, prolongs or shortens it.
    /// @dev Keeps: a grant ends within `MAX_TERM`, names its conditions, and was given under the policy now in force by the present
    /// owner or his committee. Each change has its number, so a signed grant takes effect at most once and never after a later one.
    function grant(Terms calldata terms) external {
        address caller = _onCommittee(terms.dataset);
        if (terms.consumer == address(0)) revert InvalidConsumer();
        if (!isPurpose(terms.purpose)) revert UnknownPurpose(terms.purpose);
        if (terms.until <= block.timestamp || terms.until > block.timestamp + MAX_TERM) {
            revert TermOutOfBounds(terms.until, block.timestamp + 1, block.timestamp + MAX_TERM);
        }
        if (terms.conditionsHash == 0) revert MissingConditions();
        (bytes32 policyHash, uint32 policyVersion, bool active) = REGISTRY.policyOf(terms.dataset);
        if (!active) revert DatasetNotActive(terms.dataset);
        if (terms.policyVersion != policyVersion) revert PolicyVersionMismatch(policyVersion, terms.policyVersion);
        Grant storage current = _grants[terms.dataset][terms.consumer][terms.purpose];
        if (terms.grantEpoch != current.grantEpoch) revert GrantEpochMismatch(current.grantEpoch, terms.grantEpoch);

        current.grantedAt = uint48(block.timestamp);
        current.until = terms.until;
        current.policyVersion = policyVersion;
        current.ownerEpoch = REGISTRY.ownerEpoch(terms.dataset);
        current.grantEpoch = terms.grantEpoch + 1;
        current.conditionsHash = terms.conditionsHash;
        emit AccessGranted(
            terms.dataset,
            terms.consumer,
            terms.purpose,
            caller,
            terms.until,
            terms.conditionsHash,
            policyHash,
            policyVersion,
            current.ownerEpoch,
            current.grantEpoch
        );
    }

    /// @notice Ends access at once, and outdates every grant that was signed before, also where none has arrived yet.
    /// @dev Keeps: nothing on chain stops the owner or his committee from revoking, in any state of data set and grant.
    function revoke(uint256 dataset, address consumer, uint16 purpose) external {
        address caller = _onCommittee(dataset);
        uint64 grantEpoch = _grants[dataset][consumer][purpose].grantEpoch + 1;
        delete _grants[dataset][consumer][purpose];
        _grants[dataset][consumer][purpose].grantEpoch = grantEpoch;
        emit AccessRevoked(dataset, consumer, purpose, caller, grantEpoch);
    }

    /// @notice Whether this use is granted now; not yet whether it is allowed (see the contract's notice).
    function hasAccess(uint256 dataset, address consumer, uint16 purpose) external view returns (bool) {
        return statusOf(dataset, consumer, purpose) == Status.Active;
    }

    /// @notice The grant as it was given, all zero but `grantEpoch` if there is none; `grantEpoch` is what the next grant must name.
    function grantOf(uint256 dataset, address consumer, uint16 purpose) external view returns (Grant memory) {
        return _grants[dataset][consumer][purpose];
    }

    /// @notice What has become of a grant. Suspended: the policy or the owner changed since, and it waits to be confirmed.
    /// @dev Keeps: a data set that is merely deprecated leaves present grants alone; a withdrawn one ends them all.
    function statusOf(uint256 dataset, address consumer, uint16 purpose) public view returns (Status) {
        DatasetRegistry.Dataset memory current = REGISTRY.get(dataset);
        Grant storage given = _grants[dataset][consumer][purpose];
        if (given.until == 0) return Status.Absent;
        if (current.state == DatasetRegistry.State.Withdrawn) return Status.Withdrawn;
        if (block.timestamp > given.until) return Status.Expired;
        if (given.policyVersion != current.policyVersion || given.ownerEpoch != current.ownerEpoch) return Status.Suspended;
        return Status.Active;
    }

    /// @notice Whether somebody may grant and revoke: the owner, or a member whom he appointed.
    function isOnCommittee(uint256 dataset, address who) public view returns (bool) {
        return
            REGISTRY.ownerOf(dataset) == who || _members[dataset][REGISTRY.ownerEpoch(dataset)][committeeVersion[dataset]][who];
    }

    /// @notice Whether a number is a DUO permission; modifiers are no purposes.
    function isPurpose(uint16 purpose) public pure returns (bool) {
        return purpose == 4 || purpose == 6 || purpose == 7 || purpose == 11 || purpose == 42;
    }

    function _onCommittee(uint256 dataset) private view returns (address caller) {
        caller = _msgSender();
        if (!isOnCommittee(dataset, caller)) revert NotOnCommittee(dataset, caller);
    }
}
