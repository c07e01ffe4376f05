// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {FederationRegistry} from "../src/FederationRegistry.sol";
import {Quorum} from "../src/Quorum.sol";
import {vm} from "./Vm.sol";

/// @dev Founds federations of three participants and one aggregator, and runs their rounds, for tests of what rounds lead to.
contract TrainedFederation {
    FederationRegistry public immutable REGISTRY = new FederationRegistry(address(0xF0));
    uint256 private constant KEY = 0xA66;
    uint256 private founded;

    function found() external returns (bytes32 federation) {
        FederationRegistry.Founding memory founding = FederationRegistry.Founding(
            keccak256(abi.encode("config", ++founded)), keccak256("model 0"), 3, 1, participants(), new address[](1)
        );
        founding.aggregators[0] = vm.addr(KEY);
        return REGISTRY.create(founding);
    }

    function open(bytes32 federation) public {
        FederationRegistry.Federation memory current = REGISTRY.get(federation);
        uint48 time = uint48(block.timestamp);
        vm.prank(vm.addr(KEY));
        REGISTRY.openRound(federation, current.round, current.attempt + 1, keccak256("manifest"), time + 60, time + 120);
    }

    /// @dev Everybody commits, everybody survives.
    function fix(bytes32 federation) public {
        FederationRegistry.Federation memory current = REGISTRY.get(federation);
        bytes32 ctx = REGISTRY.contextOf(federation, current.round, current.attempt, current.manifestHash);
        address[] memory roster = participants();
        for (uint256 i = 0; i < roster.length; ++i) {
            vm.prank(roster[i]);
            REGISTRY.commitUpdate(federation, ctx, keccak256("update"));
        }
        FederationRegistry.SurvivorSet memory set =
            FederationRegistry.SurvivorSet(federation, current.round, current.attempt, keccak256("masked"), roster);
        REGISTRY.fixSurvivors(set, _approved(REGISTRY.hashSurvivors(set, keccak256(abi.encode(ctx, roster)))));
    }

    function finalise(bytes32 federation) public {
        FederationRegistry.Federation memory current = REGISTRY.get(federation);
        FederationRegistry.Result memory result = FederationRegistry.Result(
            federation,
            current.round,
            current.attempt,
            current.survivorsHash,
            current.accumulator,
            current.updates,
            current.model,
            keccak256("aggregate"),
            keccak256(abi.encode(current.model)),
            0,
            0
        );
        REGISTRY.finalise(result, _approved(REGISTRY.hashResult(result)));
    }

    /// @dev Finalises this many rounds.
    function train(bytes32 federation, uint256 rounds) external {
        for (uint256 i = 0; i < rounds; ++i) {
            open(federation);
            fix(federation);
            finalise(federation);
        }
    }

    /// @dev Gives up the round that is open once its deadline has passed.
    function abandon(bytes32 federation) external {
        FederationRegistry.Federation memory current = REGISTRY.get(federation);
        vm.prank(participants()[0]);
        REGISTRY.abandon(federation, current.round, current.attempt);
    }

    function close(bytes32 federation) external {
        REGISTRY.close(federation);
    }

    function participants() public pure returns (address[] memory roster) {
        roster = new address[](3);
        for (uint256 i = 0; i < 3; ++i) {
            roster[i] = address(uint160(0x1000 + i));
        }
    }

    function _approved(bytes32 digest) private pure returns (Quorum.Approval[] memory approvals) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY, digest);
        approvals = new Quorum.Approval[](1);
        approvals[0] = Quorum.Approval(vm.addr(KEY), abi.encodePacked(r, s, v));
    }
}
