// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {vm} from "./Vm.sol";

contract DatasetRegistryTest {
    DatasetRegistry private registry;
    address private constant ALICE = address(0xA11CE);
    address private constant BOB = address(0xB0B);

    function setUp() public {
        registry = new DatasetRegistry(address(0xF0), address(this));
    }

    function testFuzz_registration_is_stored_as_given(
        bytes32 root,
        bytes32 policy,
        bytes32 metadata,
        uint16 royaltyBps,
        uint96 price
    ) public {
        vm.assume(root != 0 && policy != 0 && metadata != 0);
        royaltyBps = royaltyBps % (registry.MAX_ROYALTY_BPS() + 1);
        DatasetRegistry.Registration memory given = _registration(root);
        (given.policyHash, given.metadataHash, given.royaltyBps) = (policy, metadata, royaltyBps);
        vm.warp(1_800_000_000);
        vm.prank(ALICE);
        uint256 id = registry.register(given);

        DatasetRegistry.Dataset memory dataset = registry.get(id);
        assert(id == 1 && registry.count() == 1 && registry.ownerOf(id) == ALICE);
        assert(dataset.contentRoot == root && dataset.policyHash == policy && dataset.metadataHash == metadata);
        assert(dataset.policyVersion == 1 && dataset.metadataVersion == 1 && dataset.ownerEpoch == 0);
        assert(dataset.registeredAt == 1_800_000_000 && dataset.state == DatasetRegistry.State.Active);
        assert(keccak256(bytes(registry.tokenURI(id))) == keccak256(bytes(given.uri)));
        assert(registry.datasetOf(ALICE, root) == id);
        (address receiver, uint256 amount) = registry.royaltyInfo(id, price);
        assert(receiver == (royaltyBps == 0 ? address(0) : ALICE) && amount == uint256(price) * royaltyBps / 10_000);
    }

    /// @dev Parents are accepted exactly if they ascend strictly, exist before the child, and are at most 16.
    function testFuzz_parents(uint8[] calldata raw, uint8 existing) public {
        existing = existing % 24;
        for (uint256 i = 0; i < existing; ++i) {
            registry.register(_registration(bytes32(1 + i)));
        }
        uint256 length = raw.length % 20;
        if (length > raw.length) length = raw.length;
        DatasetRegistry.Registration memory child = _registration(keccak256("child"));
        child.parents = new uint256[](length);
        bool valid = length <= 16;
        for (uint256 i = 0; i < length; ++i) {
            // Mostly ascending, so that accepted and refused lists both occur.
            child.parents[i] = raw[i] % 3 == 0 ? raw[i] % 26 : (i == 0 ? 0 : child.parents[i - 1]) + raw[i] % 3;
            if (child.parents[i] == 0 || child.parents[i] > existing) valid = false;
            if (i > 0 && child.parents[i] <= child.parents[i - 1]) valid = false;
        }
        (bool success,) = address(registry).call(abi.encodeCall(DatasetRegistry.register, (child)));
        assert(success == valid);
        if (success) {
            uint256[] memory stored = registry.parentsOf(registry.count());
            assert(keccak256(abi.encode(stored)) == keccak256(abi.encode(child.parents)));
        }
    }

    function test_each_refusal_of_parents_has_its_error() public {
        for (uint256 i = 0; i < 3; ++i) {
            registry.register(_registration(bytes32(1 + i)));
        }
        registry.setState(2, DatasetRegistry.State.Withdrawn);
        DatasetRegistry.Registration memory child = _registration(keccak256("child"));
        child.parents = new uint256[](2);

        (child.parents[0], child.parents[1]) = (3, 1);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.ParentsNotAscending.selector, 3, 1));
        registry.register(child);
        (child.parents[0], child.parents[1]) = (1, 1);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.ParentsNotAscending.selector, 1, 1));
        registry.register(child);
        (child.parents[0], child.parents[1]) = (1, 4);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.UnknownParent.selector, 4));
        registry.register(child);
        (child.parents[0], child.parents[1]) = (1, 2);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.ParentWithdrawn.selector, 2));
        registry.register(child);
        child.parents = new uint256[](17);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.TooManyParents.selector, 17, 16));
        registry.register(child);
        assert(registry.count() == 3);
    }

    function test_content_is_unique_per_registrant_and_not_globally() public {
        bytes32 root = keccak256("content");
        vm.prank(ALICE);
        registry.register(_registration(root));
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.ContentAlreadyRegistered.selector, ALICE, root, 1));
        registry.register(_registration(root));

        vm.prank(BOB);
        assert(registry.register(_registration(root)) == 2);
        // A gift does not take Alice's place, and giving away does not free it.
        vm.prank(BOB);
        registry.transferFrom(BOB, ALICE, 2);
        vm.prank(ALICE);
        registry.transferFrom(ALICE, BOB, 1);
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.ContentAlreadyRegistered.selector, ALICE, root, 1));
        registry.register(_registration(root));
        assert(registry.datasetOf(ALICE, root) == 1 && registry.datasetOf(BOB, root) == 2);
    }

    function test_withdrawn_is_terminal() public {
        vm.prank(ALICE);
        registry.register(_registration(keccak256("content")));
        vm.prank(ALICE);
        registry.setState(1, DatasetRegistry.State.Deprecated);
        vm.prank(ALICE);
        registry.setState(1, DatasetRegistry.State.Active);
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.StateUnchanged.selector, 1, DatasetRegistry.State.Active));
        registry.setState(1, DatasetRegistry.State.Active);
        vm.prank(ALICE);
        registry.setState(1, DatasetRegistry.State.Withdrawn);
        for (uint8 state = 0; state < 3; ++state) {
            vm.prank(ALICE);
            vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.DatasetWithdrawn.selector, 1));
            registry.setState(1, DatasetRegistry.State(state));
        }
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.DatasetWithdrawn.selector, 1));
        registry.setPolicy(1, keccak256("policy"), "", 1);
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.DatasetWithdrawn.selector, 1));
        registry.setMetadata(1, keccak256("metadata"), "", 1);
        (,, bool active) = registry.policyOf(1);
        assert(!active);
    }

    function testFuzz_only_the_owner_changes_a_data_set(address stranger) public {
        vm.assume(stranger != ALICE && stranger != address(0xF0));
        vm.prank(ALICE);
        registry.register(_registration(keccak256("content")));
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.NotDatasetOwner.selector, 1, stranger));
        registry.setState(1, DatasetRegistry.State.Withdrawn);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.NotDatasetOwner.selector, 1, stranger));
        registry.setPolicy(1, keccak256("policy"), "", 1);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.NotDatasetOwner.selector, 1, stranger));
        registry.setMetadata(1, keccak256("metadata"), "", 1);
    }

    function testFuzz_versions_count_changes(uint8 policies, uint8 descriptions) public {
        policies = policies % 20;
        descriptions = descriptions % 20;
        registry.register(_registration(keccak256("content")));
        for (uint256 i = 0; i < policies; ++i) {
            registry.setPolicy(1, keccak256(abi.encode("policy", i)), "https://example.org/new", uint32(1 + i));
        }
        for (uint256 i = 0; i < descriptions; ++i) {
            registry.setMetadata(1, keccak256(abi.encode("metadata", i)), "https://example.org/new", uint32(1 + i));
        }
        DatasetRegistry.Dataset memory dataset = registry.get(1);
        assert(dataset.policyVersion == 1 + uint32(policies) && dataset.metadataVersion == 1 + uint32(descriptions));
        assert(dataset.contentRoot == keccak256("content"));
    }

    /// @dev Of changes that were signed one after the other, none takes effect after a later one.
    function testFuzz_a_change_that_arrives_late_replaces_nothing(uint8 changes, uint8 late) public {
        changes = 1 + changes % 8;
        late = 1 + late % changes;
        registry.register(_registration(keccak256("content")));
        for (uint32 version = 1; version <= changes; ++version) {
            registry.setPolicy(1, keccak256(abi.encode("policy", version)), "", version);
            registry.setMetadata(1, keccak256(abi.encode("metadata", version)), "", version);
        }
        bytes memory refusal =
            abi.encodeWithSelector(DatasetRegistry.VersionMismatch.selector, 1, uint32(changes) + 1, uint32(late));
        vm.expectRevert(refusal);
        registry.setPolicy(1, keccak256("lax policy"), "", late);
        vm.expectRevert(refusal);
        registry.setMetadata(1, keccak256("old metadata"), "", late);
        (bytes32 policyHash, uint32 policyVersion,) = registry.policyOf(1);
        assert(policyHash == keccak256(abi.encode("policy", uint32(changes))) && policyVersion == changes + 1);
    }

    function testFuzz_every_transfer_starts_an_epoch(uint8 transfers) public {
        transfers = transfers % 10;
        vm.prank(ALICE);
        registry.register(_registration(keccak256("content")));
        for (uint256 i = 0; i < transfers; ++i) {
            address owner = registry.ownerOf(1);
            vm.prank(owner);
            registry.transferFrom(owner, i % 3 == 0 ? owner : (owner == ALICE ? BOB : ALICE), 1);
        }
        assert(registry.ownerEpoch(1) == transfers);
    }

    function test_bounds_and_zeros() public {
        DatasetRegistry.Registration memory given = _registration(0);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.ZeroHash.selector));
        registry.register(given);
        given = _registration(keccak256("content"));
        given.policyHash = 0;
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.ZeroHash.selector));
        registry.register(given);
        given = _registration(keccak256("content"));
        given.metadataHash = 0;
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.ZeroHash.selector));
        registry.register(given);
        given = _registration(keccak256("content"));
        given.royaltyBps = 1_001;
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.RoyaltyTooHigh.selector, 1_001, 1_000));
        registry.register(given);
        given = _registration(keccak256("content"));
        given.uri = string(new bytes(513));
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.UriTooLong.selector, 513, 512));
        registry.register(given);
        vm.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721NonexistentToken.selector, 1));
        registry.get(1);
    }

    function test_a_successor_ends_registration_once_and_for_all() public {
        registry.register(_registration(keccak256("content")));
        DatasetRegistry next = new DatasetRegistry(address(0xF0), address(this));
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, ALICE));
        registry.setSuccessor(address(next));
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.InvalidSuccessor.selector, ALICE));
        registry.setSuccessor(ALICE);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.InvalidSuccessor.selector, address(registry)));
        registry.setSuccessor(address(registry));
        registry.setSuccessor(address(next));
        address another = address(new DatasetRegistry(address(0xF0), address(this)));
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.RegistryReplaced.selector, address(next)));
        registry.setSuccessor(another);
        vm.expectRevert(abi.encodeWithSelector(DatasetRegistry.RegistryReplaced.selector, address(next)));
        registry.register(_registration(keccak256("other")));
        registry.setPolicy(1, keccak256("policy"), "", 1);
    }

    function test_interfaces() public view {
        // ERC-165, ERC-721, ERC-721 metadata, ERC-2981, ERC-4906, and the id that must never be supported.
        bytes4[6] memory ids = [bytes4(0x01ffc9a7), 0x80ac58cd, 0x5b5e139f, 0x2a55205a, 0x49064906, 0xffffffff];
        for (uint256 i = 0; i < 6; ++i) {
            assert(registry.supportsInterface(ids[i]) == (i < 5));
        }
        assert(registry.isTrustedForwarder(address(0xF0)) && !registry.isTrustedForwarder(address(this)));
    }

    function _registration(bytes32 root) private pure returns (DatasetRegistry.Registration memory) {
        return DatasetRegistry.Registration(
            root, keccak256("policy"), keccak256("metadata"), "https://example.org/d", new uint256[](0), 250
        );
    }
}
