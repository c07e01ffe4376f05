// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";

/// @title Models that their owners vouch for
/// @notice A model is its record (wire formats, section 1): of the encrypted weights where a provider serves it encrypted. The owner
/// says that this is the model he published, and may take it back; that it is any good is no claim made here.
/// @dev Keyed by owner and record, so nobody can take or block the record of another. Nobody owns this contract.
contract ModelRegistry is ERC2771Context {
    enum Status {
        Absent,
        Authorised,
        Revoked
    }

    enum Reason {
        None,
        ModelWithdrawn,
        DataWithdrawn,
        KeyCompromise,
        AuditFailed,
        Superseded,
        ToolingBug
    }

    struct Model {
        Status status;
        Reason reason;
        uint48 authorisedAt;
        uint48 revokedAt;
        bytes32 specDigest;
    }

    uint256 public constant MAX_LOCATION_BYTES = 512;

    mapping(address owner => mapping(bytes32 model => Model)) private _models;

    event ModelAuthorised(address indexed owner, bytes32 indexed model, bytes32 specDigest, string uri);
    event ModelRevoked(address indexed owner, bytes32 indexed model, Reason reason);

    error MissingModel();
    error LocationTooLong(uint256 length, uint256 limit);
    error ModelNotNew(address owner, bytes32 model, Status status);
    error ModelAlreadyRevoked(address owner, bytes32 model);
    error MissingReason();

    constructor(address forwarder) ERC2771Context(forwarder) {}

    /// @notice Vouches for a model from now on.
    /// @dev Keeps: an owner authorises a record once, and never after he revoked it.
    /// @param model Record of spec and weights.
    /// @param specDigest Digest of the spec, which is leaf 0 of the record; with it weights can be checked without asking the owner.
    /// @param uri Where the description is published; names neither patients nor sites.
    function authorise(bytes32 model, bytes32 specDigest, string calldata uri) external {
        if (model == 0 || specDigest == 0) revert MissingModel();
        if (bytes(uri).length > MAX_LOCATION_BYTES) revert LocationTooLong(bytes(uri).length, MAX_LOCATION_BYTES);
        address owner = _msgSender();
        Model storage made = _models[owner][model];
        if (made.status != Status.Absent) revert ModelNotNew(owner, model, made.status);
        made.status = Status.Authorised;
        made.authorisedAt = uint48(block.timestamp);
        made.specDigest = specDigest;
        emit ModelAuthorised(owner, model, specDigest, uri);
    }

    /// @notice Takes a model back, for good; also one whose signed authorisation has not arrived yet, and then never does.
    /// @dev Keeps: revoked is terminal, and the first reason stands.
    function revoke(bytes32 model, Reason reason) external {
        if (model == 0) revert MissingModel();
        if (reason == Reason.None) revert MissingReason();
        address owner = _msgSender();
        Model storage made = _models[owner][model];
        if (made.status == Status.Revoked) revert ModelAlreadyRevoked(owner, model);
        made.status = Status.Revoked;
        made.reason = reason;
        made.revokedAt = uint48(block.timestamp);
        emit ModelRevoked(owner, model, reason);
    }

    /// @notice All that is known of an owner's model; all zero if he never named it.
    function statusOf(address owner, bytes32 model) external view returns (Model memory) {
        return _models[owner][model];
    }

    /// @notice Whether the owner vouches for this model now.
    function isAuthorised(address owner, bytes32 model) external view returns (bool) {
        return _models[owner][model].status == Status.Authorised;
    }
}
