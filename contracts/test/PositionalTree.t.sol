// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PositionalTree} from "../src/PositionalTree.sol";
import {PositionalTreeHarness} from "./PositionalTreeHarness.sol";
import {vm} from "./Vm.sol";

contract PositionalTreeTest {
    bytes32 private constant KIND = keccak256("rexis/leaf/receipt/1");

    PositionalTreeHarness private tree;
    string private json;

    function setUp() public {
        tree = new PositionalTreeHarness();
        json = vm.readFile("../tests/vectors/positional_tree.json");
    }

    function test_constants_equal_the_vectors() public view {
        assert(tree.empty() == vm.parseJsonBytes32(json, ".empty"));
        assert(KIND == vm.parseJsonBytes32(json, ".kind_receipt"));
        bytes32 context = tree.contextOf(
            vm.parseJsonUint(json, ".context.chainId"),
            vm.parseJsonAddress(json, ".context.contract"),
            vm.parseJsonBytes32(json, ".context.id")
        );
        assert(context == vm.parseJsonBytes32(json, ".context.value"));
    }

    function test_every_leaf_root_record_and_proof_equals_the_vectors() public view {
        assert(_checkTrees(json, false) == 1 + 2 + 3 + 5 + 8 + 13);
        // Every kind of leaf, with positions inside the item.
        assert(_checkTrees(vm.readFile("../tests/vectors/tree_kinds.json"), true) > 0);
    }

    /// @dev Built here the slow way, level by level, so that the library is checked against a second implementation.
    function testFuzz_a_proof_verifies_for_its_own_index_only(uint256 seed, uint64 n, uint64 i, uint64 j) public {
        n = 1 + n % 40;
        i = i % n;
        (bytes32[] memory leaves, bytes32[] memory proof, bytes32 record) = _build(seed, n, i);
        tree.verify(record, KIND, n, i, leaves[i], proof);

        j = j % n;
        if (j != i) {
            vm.expectRevert(_recordMismatch(record, n, j, leaves[i], proof));
            tree.verify(record, KIND, n, j, leaves[i], proof);
            vm.expectRevert(_recordMismatch(record, n, i, leaves[j], proof));
            tree.verify(record, KIND, n, i, leaves[j], proof);
        }
    }

    function testFuzz_any_changed_bit_is_refused(uint256 seed, uint64 n, uint64 i, uint8 bit, uint256 which) public {
        n = 1 + n % 40;
        i = i % n;
        (bytes32[] memory leaves, bytes32[] memory proof, bytes32 record) = _build(seed, n, i);
        bytes32 leafHash = leaves[i];
        bytes32 flip = bytes32(uint256(1) << bit);
        which = which % (proof.length + 1);
        if (which == proof.length) leafHash ^= flip;
        else proof[which] ^= flip;
        vm.expectRevert(_recordMismatch(record, n, i, leafHash, proof));
        tree.verify(record, KIND, n, i, leafHash, proof);
    }

    function testFuzz_another_size_kind_or_proof_length_is_refused(uint256 seed, uint64 n, uint64 i, uint64 other) public {
        n = 1 + n % 40;
        i = i % n;
        (bytes32[] memory leaves, bytes32[] memory proof, bytes32 record) = _build(seed, n, i);

        vm.expectRevert(abi.encodeWithSelector(PositionalTree.LeafOutOfRange.selector, n, n));
        tree.verify(record, KIND, n, n, leaves[i], proof);

        bytes32 kind = keccak256("rexis/leaf/update/1");
        bytes32 got = tree.record(kind, n, tree.rootOf(i, leaves[i], proof));
        vm.expectRevert(abi.encodeWithSelector(PositionalTree.RecordMismatch.selector, record, got));
        tree.verify(record, kind, n, i, leaves[i], proof);

        bytes32[] memory longer = new bytes32[](proof.length + 1);
        vm.expectRevert(abi.encodeWithSelector(PositionalTree.ProofLengthMismatch.selector, proof.length, proof.length + 1));
        tree.verify(record, KIND, n, i, leaves[i], longer);

        other = 1 + other % 40;
        if (other != n && i < other && tree.height(other) == proof.length) {
            got = tree.record(KIND, other, tree.rootOf(i, leaves[i], proof));
            vm.expectRevert(abi.encodeWithSelector(PositionalTree.RecordMismatch.selector, record, got));
            tree.verify(record, KIND, other, i, leaves[i], proof);
        }
    }

    function testFuzz_height_is_the_least_that_fits(uint64 n) public view {
        vm.assume(n > 0);
        uint256 h = tree.height(n);
        assert(uint256(1) << h >= n);
        assert(h == 0 || uint256(1) << (h - 1) < n);
    }

    function _checkTrees(string memory vectors, bool withSubs) private view returns (uint256 checked) {
        for (uint256 t = 0; vm.keyExistsJson(vectors, _at(t, "")); ++t) {
            uint64 n = uint64(vm.parseJsonUint(vectors, _at(t, ".n")));
            for (uint64 i = 0; i < n; ++i) {
                _checkLeaf(vectors, t, n, i, withSubs ? uint64(vm.parseJsonUintArray(vectors, _at(t, ".subs"))[i]) : 0);
                ++checked;
            }
        }
    }

    function _checkLeaf(string memory vectors, uint256 t, uint64 n, uint64 i, uint64 sub) private view {
        bytes32 kind = keccak256(bytes(string.concat("rexis/leaf/", vm.parseJsonString(vectors, _at(t, ".type")), "/1")));
        bytes32 leaf = vm.parseJsonBytes32Array(vectors, _at(t, ".leaves"))[i];
        bytes32 context = vm.parseJsonBytes32(vectors, _at(t, ".context"));
        bytes32 digest = vm.parseJsonBytes32Array(vectors, _at(t, ".digests"))[i];
        bytes16 salt = bytes16(vm.parseJsonBytesArray(vectors, _at(t, ".salts"))[i]);
        assert(tree.leaf(kind, context, i, sub, digest, salt) == leaf);

        bytes32[] memory proof = vm.parseJsonBytes32Array(vectors, _at(t, string.concat(".proofs[", vm.toString(i), "]")));
        assert(tree.rootOf(i, leaf, proof) == vm.parseJsonBytes32(vectors, _at(t, ".root")));
        tree.verify(vm.parseJsonBytes32(vectors, _at(t, ".record")), kind, n, i, leaf, proof);
    }

    function _build(uint256 seed, uint64 n, uint64 i)
        private
        view
        returns (bytes32[] memory leaves, bytes32[] memory proof, bytes32 record)
    {
        uint256 h = tree.height(n);
        bytes32[] memory level = new bytes32[](uint256(1) << h);
        leaves = new bytes32[](n);
        for (uint64 k = 0; k < level.length; ++k) {
            if (k < n) leaves[k] = tree.leaf(KIND, bytes32(seed), k, 0, keccak256(abi.encode(seed, k)), bytes16(0));
            level[k] = k < n ? leaves[k] : tree.empty();
        }
        proof = new bytes32[](h);
        uint256 position = i;
        for (uint256 depth = 0; depth < h; ++depth) {
            proof[depth] = level[position ^ 1];
            bytes32[] memory above = new bytes32[](level.length / 2);
            for (uint256 k = 0; k < above.length; ++k) {
                above[k] = tree.node(level[2 * k], level[2 * k + 1]);
            }
            level = above;
            position >>= 1;
        }
        record = tree.record(KIND, n, level[0]);
    }

    function _recordMismatch(bytes32 record, uint64 n, uint64 i, bytes32 leafHash, bytes32[] memory proof)
        private
        view
        returns (bytes memory)
    {
        bytes32 got = tree.record(KIND, n, tree.rootOf(i, leafHash, proof));
        assert(got != record);
        return abi.encodeWithSelector(PositionalTree.RecordMismatch.selector, record, got);
    }

    function _at(uint256 index, string memory key) private pure returns (string memory) {
        return string.concat(".trees[", vm.toString(index), "]", key);
    }
}
