// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC4906} from "@openzeppelin/contracts/interfaces/IERC4906.sol";
import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {ERC2981} from "@openzeppelin/contracts/token/common/ERC2981.sol";
import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {Context} from "@openzeppelin/contracts/utils/Context.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @title Data sets as assets: provenance, ownership, access policy
/// @notice The chain holds commitments only. `contentRoot` is the record of a salted tree over the rows: without the salts it
/// tells nothing even about a table whose rows can be guessed. Documents are published under `uri` and bound by their hashes.
/// @dev No proxy: a new version is a new contract, which `successor` points to; from then on this one registers nothing new.
contract DatasetRegistry is IERC4906, ERC721, ERC2981, ERC2771Context, Ownable2Step {
    enum State {
        Active,
        Deprecated,
        Withdrawn
    }

    /// @param contentRoot Salted commitment to the rows; never changes.
    /// @param policyHash Digest of the canonical access policy (wire formats, section 0).
    /// @param metadataHash Digest of the canonical Croissant metadata (wire formats, section 0).
    /// @param uri Where the documents are published; names neither patients nor sites.
    /// @param parents Ids of the data sets this one was made from, strictly ascending.
    /// @param royaltyBps Royalty of the registrant in basis points (ERC-2981).
    struct Registration {
        bytes32 contentRoot;
        bytes32 policyHash;
        bytes32 metadataHash;
        string uri;
        uint256[] parents;
        uint16 royaltyBps;
    }

    struct Dataset {
        bytes32 contentRoot;
        bytes32 policyHash;
        bytes32 metadataHash;
        uint32 policyVersion;
        uint32 metadataVersion;
        uint64 ownerEpoch;
        uint48 registeredAt;
        State state;
    }

    uint256 public constant MAX_PARENTS = 16;
    uint256 public constant MAX_URI_BYTES = 512;
    uint16 public constant MAX_ROYALTY_BPS = 1_000;

    /// @notice Number of registered data sets, and the id of the latest: ids are 1, 2, 3, …
    uint256 public count;

    /// @notice The contract that replaces this one, or zero.
    address public successor;

    mapping(uint256 id => Dataset) private _datasets;
    mapping(uint256 id => string) private _uris;
    mapping(uint256 id => uint256[]) private _parents;
    mapping(address registrant => mapping(bytes32 contentRoot => uint256 id)) private _registered;

    event DatasetRegistered(
        uint256 indexed id, address indexed owner, bytes32 contentRoot, bytes32 policyHash, bytes32 metadataHash, string uri
    );
    event DatasetDerived(uint256 indexed id, uint256 indexed parent);
    event RoyaltySet(uint256 indexed id, address indexed receiver, uint16 royaltyBps);
    event PolicyChanged(uint256 indexed id, bytes32 previousHash, bytes32 policyHash, uint32 version, string uri);
    event MetadataChanged(uint256 indexed id, bytes32 previousHash, bytes32 metadataHash, uint32 version, string uri);
    event StateChanged(uint256 indexed id, State previous, State state);
    event OwnerEpochChanged(uint256 indexed id, address indexed owner, uint64 ownerEpoch);
    event SuccessorSet(address indexed successor);

    error ZeroHash();
    error UriTooLong(uint256 length, uint256 limit);
    error TooManyParents(uint256 length, uint256 limit);
    error ParentsNotAscending(uint256 previous, uint256 parent);
    error UnknownParent(uint256 parent);
    error ParentWithdrawn(uint256 parent);
    error RoyaltyTooHigh(uint16 royaltyBps, uint16 limit);
    error ContentAlreadyRegistered(address registrant, bytes32 contentRoot, uint256 id);
    error NotDatasetOwner(uint256 id, address caller);
    error DatasetWithdrawn(uint256 id);
    error VersionMismatch(uint256 id, uint32 expected, uint32 got);
    error StateUnchanged(uint256 id, State state);
    error RegistryReplaced(address successor);
    error InvalidSuccessor(address successor);

    constructor(address forwarder, address initialOwner)
        ERC721("Rexis Dataset", "REXDATA")
        ERC2771Context(forwarder)
        Ownable(initialOwner)
    {}

    /// @notice Registers a data set and mints its token to the caller, also if that is a contract without a receiver hook.
    /// @dev Keeps: parents exist, are not withdrawn, strictly ascend and have smaller ids, so provenance has no cycle and no
    /// duplicate; a registrant registers a content root once. Others may register the same root: global uniqueness would let
    /// whoever sees a pending registration take it. The key is the registrant, not the present owner, so that nobody blocks a
    /// registration by giving the registrant a token, and nobody registers again what he has given away.
    function register(Registration calldata registration) external returns (uint256 id) {
        if (successor != address(0)) revert RegistryReplaced(successor);
        if (registration.contentRoot == 0) revert ZeroHash();
        if (registration.royaltyBps > MAX_ROYALTY_BPS) revert RoyaltyTooHigh(registration.royaltyBps, MAX_ROYALTY_BPS);
        address registrant = _msgSender();
        id = _registered[registrant][registration.contentRoot];
        if (id != 0) revert ContentAlreadyRegistered(registrant, registration.contentRoot, id);

        id = ++count;
        _registered[registrant][registration.contentRoot] = id;
        Dataset storage dataset = _datasets[id];
        dataset.contentRoot = registration.contentRoot;
        dataset.registeredAt = uint48(block.timestamp);
        (dataset.policyVersion, dataset.metadataVersion) = (1, 1);
        dataset.policyHash = _nonzero(registration.policyHash);
        dataset.metadataHash = _nonzero(registration.metadataHash);
        _setUri(id, registration.uri);

        _mint(registrant, id);
        emit DatasetRegistered(
            id, registrant, registration.contentRoot, registration.policyHash, registration.metadataHash, registration.uri
        );
        _setParents(id, registration.parents);
        if (registration.royaltyBps != 0) {
            _setTokenRoyalty(id, registrant, registration.royaltyBps);
            emit RoyaltySet(id, registrant, registration.royaltyBps);
        }
    }

    /// @notice Replaces the access policy.
    /// @dev Keeps: the version grows by one with every change, so a grant that recorded a version sees that it is out of date. The version
    /// that is replaced is named, so a change that was signed before a later one, and arrives after it, puts no old policy in force.
    /// @param version Present value of `policyVersion`.
    function setPolicy(uint256 id, bytes32 policyHash, string calldata uri, uint32 version) external {
        Dataset storage dataset = _changeable(id);
        if (version != dataset.policyVersion) revert VersionMismatch(id, dataset.policyVersion, version);
        bytes32 previous = dataset.policyHash;
        dataset.policyHash = _nonzero(policyHash);
        dataset.policyVersion = ++version;
        _setUri(id, uri);
        emit PolicyChanged(id, previous, policyHash, version, uri);
        emit MetadataUpdate(id);
    }

    /// @notice Replaces the description. What was registered, `contentRoot`, stays.
    /// @dev Keeps: the version grows by one with every change, and names the one that it replaces: see `setPolicy`.
    /// @param version Present value of `metadataVersion`.
    function setMetadata(uint256 id, bytes32 metadataHash, string calldata uri, uint32 version) external {
        Dataset storage dataset = _changeable(id);
        if (version != dataset.metadataVersion) revert VersionMismatch(id, dataset.metadataVersion, version);
        bytes32 previous = dataset.metadataHash;
        dataset.metadataHash = _nonzero(metadataHash);
        dataset.metadataVersion = ++version;
        _setUri(id, uri);
        emit MetadataChanged(id, previous, metadataHash, version, uri);
        emit MetadataUpdate(id);
    }

    /// @notice Moves between Active and Deprecated, or to Withdrawn.
    /// @dev Keeps: Withdrawn is terminal; nothing but the token's owner changes from then on. A change that arrives late can not undo
    /// that, and between Active and Deprecated it opens nothing: what is granted stays the owner's and his committee's to say.
    function setState(uint256 id, State state) external {
        Dataset storage dataset = _changeable(id);
        State previous = dataset.state;
        if (state == previous) revert StateUnchanged(id, state);
        dataset.state = state;
        emit StateChanged(id, previous, state);
    }

    /// @notice Points to the contract that replaces this one and ends registration here; everything registered stays as it is.
    /// @dev Keeps: set once, never changed.
    function setSuccessor(address next) external onlyOwner {
        if (successor != address(0)) revert RegistryReplaced(successor);
        if (next == address(this) || next.code.length == 0) revert InvalidSuccessor(next);
        successor = next;
        emit SuccessorSet(next);
    }

    /// @notice Everything but owner, uri and parents.
    function get(uint256 id) external view returns (Dataset memory) {
        _requireOwned(id);
        return _datasets[id];
    }

    /// @notice Policy in force; `active` is false once the data set is deprecated or withdrawn, and then nothing new is granted.
    function policyOf(uint256 id) external view returns (bytes32 policyHash, uint32 version, bool active) {
        _requireOwned(id);
        Dataset storage dataset = _datasets[id];
        return (dataset.policyHash, dataset.policyVersion, dataset.state == State.Active);
    }

    /// @notice Ids of the data sets this one was made from, strictly ascending, all smaller than `id`.
    function parentsOf(uint256 id) external view returns (uint256[] memory) {
        _requireOwned(id);
        return _parents[id];
    }

    /// @notice Number of transfers so far. What an owner sets up (committees, delegations) is keyed by it and ends with a sale.
    function ownerEpoch(uint256 id) external view returns (uint64) {
        _requireOwned(id);
        return _datasets[id].ownerEpoch;
    }

    /// @notice Id under which this registrant registered this content, or 0.
    function datasetOf(address registrant, bytes32 contentRoot) external view returns (uint256) {
        return _registered[registrant][contentRoot];
    }

    /// @notice Where the current documents are published.
    function tokenURI(uint256 id) public view override returns (string memory) {
        _requireOwned(id);
        return _uris[id];
    }

    function supportsInterface(bytes4 interfaceId) public view override(ERC721, ERC2981, IERC165) returns (bool) {
        // ERC-4906 has no functions, so its id is given by the standard, not derived.
        return interfaceId == 0x49064906 || super.supportsInterface(interfaceId);
    }

    /// @dev Keeps: every transfer, also to the same owner, starts a new epoch; minting is epoch 0.
    function _update(address to, uint256 id, address auth) internal override returns (address from) {
        from = super._update(to, id, auth);
        if (from != address(0)) {
            uint64 epoch = ++_datasets[id].ownerEpoch;
            emit OwnerEpochChanged(id, to, epoch);
        }
    }

    function _setParents(uint256 id, uint256[] calldata parents) private {
        if (parents.length > MAX_PARENTS) revert TooManyParents(parents.length, MAX_PARENTS);
        uint256 previous = 0;
        for (uint256 i = 0; i < parents.length; ++i) {
            uint256 parent = parents[i];
            if (parent <= previous) revert ParentsNotAscending(previous, parent);
            if (parent >= id) revert UnknownParent(parent);
            if (_datasets[parent].state == State.Withdrawn) revert ParentWithdrawn(parent);
            previous = parent;
            emit DatasetDerived(id, parent);
        }
        _parents[id] = parents;
    }

    function _setUri(uint256 id, string calldata uri) private {
        uint256 length = bytes(uri).length;
        if (length > MAX_URI_BYTES) revert UriTooLong(length, MAX_URI_BYTES);
        _uris[id] = uri;
    }

    /// @dev The data set, if the caller owns it and it is not withdrawn.
    function _changeable(uint256 id) private view returns (Dataset storage dataset) {
        address caller = _msgSender();
        if (_requireOwned(id) != caller) revert NotDatasetOwner(id, caller);
        dataset = _datasets[id];
        if (dataset.state == State.Withdrawn) revert DatasetWithdrawn(id);
    }

    function _nonzero(bytes32 hash) private pure returns (bytes32) {
        if (hash == 0) revert ZeroHash();
        return hash;
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
