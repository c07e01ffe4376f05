// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {InferenceRegistry} from "../src/InferenceRegistry.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {PaymentTokens} from "../src/PaymentTokens.sol";
import {PositionalTree} from "../src/PositionalTree.sol";
import {vm} from "./Vm.sol";

contract InferenceRegistryTest {
    ModelRegistry private models;
    InferenceRegistry private registry;
    address private constant OWNER = address(0xA11CE);
    address private constant OPERATOR = address(0x0B);
    bytes32 private constant MODEL = keccak256("model");

    function setUp() public {
        vm.warp(1_800_000_000);
        models = new ModelRegistry(address(0xF0));
        registry = new InferenceRegistry(address(0xF0), models, new PaymentTokens(address(this)));
        vm.prank(OWNER);
        models.authorise(MODEL, keccak256("spec"), "");
    }

    /// @dev The vectors fix the registry's address; its code is put there, and contexts follow.
    function test_a_receipt_of_the_vectors_verifies() public {
        string memory json = vm.readFile("../tests/vectors/receipt.json");
        InferenceRegistry there = InferenceRegistry(vm.parseJsonAddress(json, ".batch.contract"));
        vm.etch(address(there), address(registry).code);
        address owner = vm.parseJsonAddress(json, ".batch.owner");
        bytes32 model = vm.parseJsonBytes32(json, ".batch.model");
        uint64 sequence = uint64(vm.parseJsonUint(json, ".batch.sequence"));
        vm.prank(owner);
        models.authorise(model, keccak256("spec"), "");
        vm.prank(vm.parseJsonAddress(json, ".batch.operator"));
        bytes32 batch = there.commit(owner, model, sequence, vm.parseJsonBytes32(json, ".batch.record"), 2);
        assert(batch == vm.parseJsonBytes32(json, ".batch.id"));
        assert(there.contextOf(batch) == vm.parseJsonBytes32(json, ".batch.context"));

        bytes32 digest = vm.parseJsonBytes32(json, ".digest");
        assert(digest == vm.parseJsonBytes32Array(json, ".batch.digests")[0]);
        bytes16 salt = bytes16(vm.parseJsonBytesArray(json, ".batch.salts")[0]);
        there.verify(batch, 0, digest, salt, vm.parseJsonBytes32Array(json, ".batch.proofs[0]"));
    }

    function testFuzz_a_receipt_verifies_at_its_index_in_its_batch_only(uint256 seed, uint32 count, uint32 index, uint8 bit)
        public
    {
        count = 1 + count % 20;
        index = index % count;
        bytes32 batch = registry.batchId(OPERATOR, OWNER, MODEL, 1);
        (bytes32 record, bytes32[] memory proof) = _tree(batch, seed, count, index);
        bytes32 committed = _commit(1, record, count);
        assert(committed == batch);
        (bytes32 digest, bytes16 salt) = _receipt(seed, index);
        registry.verify(batch, index, digest, salt, proof);

        (bool success,) = address(registry)
            .staticcall(
                abi.encodeCall(InferenceRegistry.verify, (batch, index, digest ^ bytes32(uint256(1) << bit), salt, proof))
            );
        assert(!success);
        (success,) = address(registry)
            .staticcall(
                abi.encodeCall(InferenceRegistry.verify, (batch, index, digest, salt ^ bytes16(uint128(1) << (bit / 2)), proof))
            );
        assert(!success);
        (success,) =
            address(registry).staticcall(abi.encodeCall(InferenceRegistry.verify, (batch, index + 1, digest, salt, proof)));
        assert(!success);
        // The same record in another batch proves nothing there: its leaves name this one.
        bytes32 other = _commit(2, record, count);
        (success,) = address(registry).staticcall(abi.encodeCall(InferenceRegistry.verify, (other, index, digest, salt, proof)));
        assert(!success);
    }

    function test_refused_proofs_are_named() public {
        bytes32 batch = registry.batchId(OPERATOR, OWNER, MODEL, 1);
        (bytes32 record, bytes32[] memory proof) = _tree(batch, 7, 4, 2);
        _commit(1, record, 4);
        (bytes32 digest, bytes16 salt) = _receipt(7, 2);
        vm.expectRevert(abi.encodeWithSelector(PositionalTree.LeafOutOfRange.selector, 4, 4));
        registry.verify(batch, 4, digest, salt, proof);
        vm.expectRevert(abi.encodeWithSelector(PositionalTree.ProofLengthMismatch.selector, 2, 0));
        registry.verify(batch, 2, digest, salt, new bytes32[](0));
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.UnknownBatch.selector, keccak256("none")));
        registry.verify(keccak256("none"), 0, digest, salt, proof);
    }

    function test_a_batch_needs_a_model_that_its_owner_vouches_for() public {
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.ModelNotAuthorised.selector, OWNER, keccak256("other")));
        registry.commit(OWNER, keccak256("other"), 1, keccak256("record"), 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.ModelNotAuthorised.selector, OPERATOR, MODEL));
        registry.commit(OPERATOR, MODEL, 1, keccak256("record"), 1);
        bytes32 batch = _commit(1, keccak256("record"), 1);
        vm.prank(OWNER);
        models.revoke(MODEL, ModelRegistry.Reason.AuditFailed);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.ModelNotAuthorised.selector, OWNER, MODEL));
        registry.commit(OWNER, MODEL, 2, keccak256("record"), 1);
        // What was answered before stays provable.
        assert(registry.get(batch).count == 1);
    }

    function testFuzz_a_batch_is_written_once_and_nobody_takes_its_place(address other, uint64 sequence) public {
        vm.assume(other != OPERATOR && other != address(0xF0));
        vm.prank(other);
        bytes32 taken = registry.commit(OWNER, MODEL, sequence, keccak256("record"), 3);
        bytes32 batch = _commit(sequence, keccak256("record"), 3);
        assert(batch != taken);
        InferenceRegistry.Batch memory made = registry.get(batch);
        assert(made.operator == OPERATOR && made.owner == OWNER && made.model == MODEL && made.count == 3);
        assert(made.record == keccak256("record") && made.committedAt == 1_800_000_000);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.BatchExists.selector, batch));
        vm.prank(OPERATOR);
        registry.commit(OWNER, MODEL, sequence, keccak256("another record"), 4);
    }

    function test_there_is_no_empty_batch() public {
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.EmptyBatch.selector));
        registry.commit(OWNER, MODEL, 1, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.EmptyBatch.selector));
        registry.commit(OWNER, MODEL, 1, keccak256("record"), 0);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.UnknownBatch.selector, keccak256("none")));
        registry.get(keccak256("none"));
        assert(registry.isTrustedForwarder(address(0xF0)) && !registry.isTrustedForwarder(address(this)));
    }

    function _commit(uint64 sequence, bytes32 record, uint32 count) private returns (bytes32) {
        vm.prank(OPERATOR);
        return registry.commit(OWNER, MODEL, sequence, record, count);
    }

    function _receipt(uint256 seed, uint64 index) private pure returns (bytes32 digest, bytes16 salt) {
        return (keccak256(abi.encode(seed, index)), bytes16(keccak256(abi.encode("salt", seed, index))));
    }

    /// @dev Record of `count` receipts, and the proof of the one at `index`, level by level.
    function _tree(bytes32 batch, uint256 seed, uint32 count, uint32 index)
        private
        view
        returns (bytes32 record, bytes32[] memory proof)
    {
        bytes32 kind = registry.RECEIPT_KIND();
        bytes32 context = registry.contextOf(batch);
        proof = new bytes32[](PositionalTree.height(count));
        bytes32[] memory level = new bytes32[](1 << proof.length);
        for (uint64 i = 0; i < level.length; ++i) {
            (bytes32 digest, bytes16 salt) = _receipt(seed, i);
            level[i] = i < count ? PositionalTree.leaf(kind, context, i, 0, digest, salt) : PositionalTree.EMPTY;
        }
        for (uint256 depth = 0; depth < proof.length; ++depth) {
            proof[depth] = level[(index >> depth) ^ 1];
            for (uint256 i = 0; i < level.length >> (depth + 1); ++i) {
                level[i] = PositionalTree.node(level[2 * i], level[2 * i + 1]);
            }
        }
        record = PositionalTree.record(kind, count, level[0]);
    }
}
