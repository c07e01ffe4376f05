// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ModelRegistry} from "../src/ModelRegistry.sol";
import {vm} from "./Vm.sol";

contract ModelRegistryTest {
    ModelRegistry private registry;
    address private constant ALICE = address(0xA11CE);
    address private constant BOB = address(0xB0B);

    function setUp() public {
        vm.warp(1_800_000_000);
        registry = new ModelRegistry(address(0xF0));
    }

    function testFuzz_an_owner_vouches_for_his_own_record_only(address owner, address other, bytes32 model, bytes32 spec)
        public
    {
        vm.assume(owner != other && owner != address(0xF0) && model != 0 && spec != 0);
        vm.prank(owner);
        registry.authorise(model, spec, "https://example.org/model");
        ModelRegistry.Model memory made = registry.statusOf(owner, model);
        assert(made.status == ModelRegistry.Status.Authorised && made.specDigest == spec);
        assert(made.authorisedAt == 1_800_000_000 && made.revokedAt == 0 && made.reason == ModelRegistry.Reason.None);
        assert(registry.isAuthorised(owner, model) && !registry.isAuthorised(other, model));
        assert(registry.statusOf(other, model).status == ModelRegistry.Status.Absent);
    }

    function test_nobody_takes_or_blocks_the_record_of_another() public {
        bytes32 model = keccak256("model");
        _authorise(BOB, model);
        vm.prank(BOB);
        registry.revoke(model, ModelRegistry.Reason.ModelWithdrawn);
        _authorise(ALICE, model);
        assert(registry.isAuthorised(ALICE, model) && !registry.isAuthorised(BOB, model));
    }

    function testFuzz_revoked_is_terminal(uint8 first, uint8 second, bool arrived) public {
        bytes32 model = keccak256("model");
        ModelRegistry.Reason reason = ModelRegistry.Reason(1 + first % 6);
        if (arrived) _authorise(ALICE, model);
        vm.warp(1_800_000_500);
        vm.prank(ALICE);
        registry.revoke(model, reason);
        ModelRegistry.Model memory gone = registry.statusOf(ALICE, model);
        assert(gone.status == ModelRegistry.Status.Revoked && gone.reason == reason && gone.revokedAt == 1_800_000_500);
        assert(!registry.isAuthorised(ALICE, model));
        assert(gone.authorisedAt == (arrived ? 1_800_000_000 : 0));

        // An authorisation that was signed before arrives too late, and a second reason does not replace the first.
        vm.expectRevert(abi.encodeWithSelector(ModelRegistry.ModelNotNew.selector, ALICE, model, ModelRegistry.Status.Revoked));
        vm.prank(ALICE);
        registry.authorise(model, keccak256("spec"), "");
        vm.expectRevert(abi.encodeWithSelector(ModelRegistry.ModelAlreadyRevoked.selector, ALICE, model));
        vm.prank(ALICE);
        registry.revoke(model, ModelRegistry.Reason(1 + second % 6));
    }

    function test_bounds_and_zeros() public {
        bytes32 model = keccak256("model");
        vm.expectRevert(abi.encodeWithSelector(ModelRegistry.MissingModel.selector));
        registry.authorise(0, keccak256("spec"), "");
        vm.expectRevert(abi.encodeWithSelector(ModelRegistry.MissingModel.selector));
        registry.authorise(model, 0, "");
        vm.expectRevert(abi.encodeWithSelector(ModelRegistry.LocationTooLong.selector, 513, 512));
        registry.authorise(model, keccak256("spec"), string(new bytes(513)));
        vm.expectRevert(abi.encodeWithSelector(ModelRegistry.MissingModel.selector));
        registry.revoke(0, ModelRegistry.Reason.Superseded);
        vm.expectRevert(abi.encodeWithSelector(ModelRegistry.MissingReason.selector));
        registry.revoke(model, ModelRegistry.Reason.None);
        _authorise(ALICE, model);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelNotNew.selector, ALICE, model, ModelRegistry.Status.Authorised)
        );
        vm.prank(ALICE);
        registry.authorise(model, keccak256("another spec"), "");
        assert(registry.isTrustedForwarder(address(0xF0)) && !registry.isTrustedForwarder(address(this)));
    }

    function _authorise(address owner, bytes32 model) private {
        vm.prank(owner);
        registry.authorise(model, keccak256("spec"), "");
    }
}
