// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {ModelRegistry} from "./ModelRegistry.sol";
import {PositionalTree} from "./PositionalTree.sol";

/// @title Answers of models, committed in batches
/// @notice A batch is the record of a tree of receipts (wire formats, sections 2 and 3). Afterwards its operator can neither add, drop
/// nor change an answer, and anybody who holds a receipt and its proof can show on chain that it was given.
/// @dev Leaves have the context of their batch, whose id names operator, owner and model: a proof counts for one batch, on one chain, in
/// one contract. Nobody owns this contract.
contract InferenceRegistry is ERC2771Context {
    /// @param count Number of receipts.
    /// @param owner Whose model answered.
    /// @param record Record of the tree of receipts.
    struct Batch {
        address operator;
        uint48 committedAt;
        uint32 count;
        address owner;
        bytes32 model;
        bytes32 record;
    }

    bytes32 public constant RECEIPT_KIND = keccak256("rexis/leaf/receipt/1");

    ModelRegistry public immutable MODELS;

    mapping(bytes32 batch => Batch) private _batches;

    event BatchCommitted(
        bytes32 indexed batch,
        address indexed operator,
        bytes32 indexed model,
        address owner,
        uint64 sequence,
        bytes32 record,
        uint32 count
    );

    error EmptyBatch();
    error BatchExists(bytes32 batch);
    error UnknownBatch(bytes32 batch);
    error ModelNotAuthorised(address owner, bytes32 model);

    constructor(address forwarder, ModelRegistry models) ERC2771Context(forwarder) {
        MODELS = models;
    }

    /// @notice Commits to a batch of receipts; its id is known beforehand (`batchId`), as the leaves need it.
    /// @dev Keeps: written once; bound to a model that its owner vouches for at this time. The sender is part of the id, so nobody takes
    /// the place of a pending batch.
    /// @param sequence Any number that this operator has not used for this model.
    function commit(address owner, bytes32 model, uint64 sequence, bytes32 record, uint32 count)
        external
        returns (bytes32 batch)
    {
        if (record == 0 || count == 0) revert EmptyBatch();
        if (!MODELS.isAuthorised(owner, model)) revert ModelNotAuthorised(owner, model);
        address operator = _msgSender();
        batch = batchId(operator, owner, model, sequence);
        if (_batches[batch].count != 0) revert BatchExists(batch);
        _batches[batch] = Batch(operator, uint48(block.timestamp), count, owner, model, record);
        emit BatchCommitted(batch, operator, model, owner, sequence, record, count);
    }

    /// @notice Reverts unless the batch holds this receipt at this index.
    /// @dev Keeps: at most one digest and salt verify for an index. Says nothing about the model since: see `MODELS.statusOf`.
    /// @param digest Of the receipt (model, input, output, time of issue).
    function verify(bytes32 batch, uint64 index, bytes32 digest, bytes16 salt, bytes32[] calldata proof) external view {
        Batch memory committed = get(batch);
        bytes32 leaf = PositionalTree.leaf(RECEIPT_KIND, contextOf(batch), index, 0, digest, salt);
        PositionalTree.verify(committed.record, RECEIPT_KIND, committed.count, index, leaf, proof);
    }

    /// @notice A batch as it was committed.
    function get(bytes32 batch) public view returns (Batch memory committed) {
        committed = _batches[batch];
        if (committed.count == 0) revert UnknownBatch(batch);
    }

    /// @notice Id of the batch with this number that this operator makes of answers of this model.
    function batchId(address operator, address owner, bytes32 model, uint64 sequence) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), operator, owner, model, sequence));
    }

    /// @notice Context of every leaf of a batch (wire formats, section 3).
    function contextOf(bytes32 batch) public view returns (bytes32) {
        return PositionalTree.contextOf(block.chainid, address(this), batch);
    }
}
