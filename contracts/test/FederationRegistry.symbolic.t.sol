// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {FederationRegistry} from "../src/FederationRegistry.sol";
import {Quorum} from "../src/Quorum.sol";
import {vm} from "./Vm.sol";

/// @dev A wallet that signs everything (ERC-1271): whoever signs, what does not match the chain must be refused.
contract WillingWallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return 0x1626ba7e;
    }
}

/// @dev Read by halmos for every value of the arguments (`make audit`); to forge these are no tests. Whether some bytes are somebody's
/// signature of a digest is an uninterpreted function to the solver. So what is proven is that nothing is accepted without enough
/// distinct aggregators, each of whom that function answers for; that only the owner of a key can make it so is ECDSA's to keep.
/// Cases are told apart by comparing with constants, since lengths of arrays have to be known.
/// @custom:halmos --loop 256
contract FederationRegistrySymbolicTest {
    FederationRegistry private registry;
    address private willing;
    bytes32 private federation;
    bytes32 private fixedFederation;
    bytes32 private survivorsHash;

    /// @dev Two rounds with three participants, who all committed. Of the first, two of three aggregators must sign; the survivors of
    /// the second are fixed.
    function setUp() public {
        vm.warp(1_800_000_000);
        registry = new FederationRegistry(address(0xF0));
        willing = address(new WillingWallet());
        federation = _run(_founding("open", 3, 3, 2, 2));
        survivorsHash = keccak256(abi.encode(_ctx(federation), registry.participantsOf(federation)));

        FederationRegistry.Founding memory founding = _founding("fixed", 3, 1, 2, 1);
        founding.aggregators[0] = willing;
        fixedFederation = _run(founding);
        registry.fixSurvivors(
            FederationRegistry.SurvivorSet(
                fixedFederation, 1, 1, keccak256("masked"), registry.participantsOf(fixedFederation)
            ),
            _willingly()
        );
    }

    /// @dev Of every number of aggregators that is accepted, and one more and one less.
    function check_a_quorum_is_above_half_of_the_aggregators(uint8 m, uint16 quorum) public {
        for (uint256 i = 0; i <= 17; ++i) {
            if (m != i) continue;
            bool founded = _founded(_founding("other", 3, i, 2, quorum));
            assert(founded == (i >= 1 && i <= 16 && 2 * uint256(quorum) > i && quorum <= i));
            return;
        }
    }

    /// @dev At the bounds and between.
    function check_survivors_are_above_half_of_the_participants(uint8 n, uint16 minSurvivors) public {
        uint8[9] memory sizes = [0, 2, 3, 4, 5, 16, 17, 128, 129];
        for (uint256 i = 0; i < 9; ++i) {
            uint256 size = sizes[i];
            if (n != size) continue;
            bool founded = _founded(_founding("other", size, 1, minSurvivors, 1));
            assert(founded == (size >= 3 && size <= 128 && 2 * uint256(minSurvivors) > size && minSurvivors <= size));
            return;
        }
    }

    /// @dev Any two sets of signers that reach a quorum which is accepted (above): somebody is in both, so two results of one round need a
    /// liar. The same holds for two sets of survivors, as `minSurvivors` is bounded alike.
    function check_two_quorums_share_an_aggregator(uint8 m, uint16 quorum, uint16 one, uint16 other) public pure {
        for (uint256 i = 1; i <= 16; ++i) {
            if (m != i) continue;
            if (2 * uint256(quorum) <= i || one >> i != 0 || other >> i != 0) return;
            if (_ones(one) >= quorum && _ones(other) >= quorum) assert(one & other != 0);
            return;
        }
    }

    /// @dev Whoever signs: what is accepted follows from the model before it, over the survivors that were fixed and no others.
    function check_a_result_is_that_of_the_survivors_that_were_fixed(FederationRegistry.Result memory result) public {
        FederationRegistry.Federation memory before = registry.get(fixedFederation);
        result.federation = fixedFederation;
        (bool success,) = address(registry).call(abi.encodeCall(FederationRegistry.finalise, (result, _willingly())));
        FederationRegistry.Federation memory current = registry.get(fixedFederation);
        if (!success) {
            assert(current.model == before.model && current.round == before.round && current.status == before.status);
            return;
        }
        assert(result.round == before.round && result.attempt == before.attempt);
        assert(result.survivorsHash == before.survivorsHash && result.accumulator == before.accumulator);
        assert(result.updates == before.updates && result.baseModel == before.model);
        assert(result.model != 0 && current.model == result.model && current.round == before.round + 1);
    }

    /// @dev Up to four entries of anybody, with signatures of any bytes.
    function check_survivors_are_fixed_by_a_quorum_of_distinct_aggregators(
        address[4] memory signers,
        bytes32[4] memory r,
        bytes32[4] memory s,
        uint8[4] memory v,
        bytes32 maskedRecord
    ) public {
        FederationRegistry.SurvivorSet memory set = FederationRegistry.SurvivorSet(
            federation, 1, 1, maskedRecord, registry.participantsOf(federation)
        );
        bytes32 digest = registry.hashSurvivors(set, survivorsHash);
        for (uint256 n = 0; n <= 4; ++n) {
            Quorum.Approval[] memory approvals = _approvals(n, signers, r, s, v);
            (bool success,) = address(registry).call(abi.encodeCall(FederationRegistry.fixSurvivors, (set, approvals)));
            if (!success) continue;
            _assertQuorum(n, signers, r, s, v, digest);
            assert(registry.get(federation).status == FederationRegistry.Status.Fixed);
            return;
        }
    }

    function _assertQuorum(
        uint256 n,
        address[4] memory signers,
        bytes32[4] memory r,
        bytes32[4] memory s,
        uint8[4] memory v,
        bytes32 digest
    ) private view {
        assert(n >= 2 && n <= 3);
        for (uint256 i = 0; i < n; ++i) {
            assert(registry.isAggregator(federation, signers[i]));
            assert(i == 0 || signers[i - 1] < signers[i]);
            assert(ecrecover(digest, v[i], r[i], s[i]) == signers[i]);
        }
    }

    function _approvals(uint256 n, address[4] memory signers, bytes32[4] memory r, bytes32[4] memory s, uint8[4] memory v)
        private
        pure
        returns (Quorum.Approval[] memory approvals)
    {
        approvals = new Quorum.Approval[](n);
        for (uint256 i = 0; i < n; ++i) {
            approvals[i] = Quorum.Approval(signers[i], abi.encodePacked(r[i], s[i], v[i]));
        }
    }

    function _willingly() private view returns (Quorum.Approval[] memory approvals) {
        approvals = new Quorum.Approval[](1);
        approvals[0] = Quorum.Approval(willing, "");
    }

    /// @dev Up to the point where everybody has committed.
    function _run(FederationRegistry.Founding memory founding) private returns (bytes32 made) {
        made = registry.create(founding);
        vm.prank(founding.aggregators[0]);
        registry.openRound(made, 1, 1, keccak256("manifest"), 1_800_000_060, 1_800_000_120);
        bytes32 ctx = _ctx(made);
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(_participant(i));
            registry.commitUpdate(made, ctx, keccak256(abi.encode("update", i)));
        }
    }

    function _ctx(bytes32 which) private view returns (bytes32) {
        return registry.contextOf(which, 1, 1, keccak256("manifest"));
    }

    function _founded(FederationRegistry.Founding memory founding) private returns (bool success) {
        (success,) = address(registry).call(abi.encodeCall(FederationRegistry.create, (founding)));
    }

    function _founding(string memory config, uint256 n, uint256 m, uint16 minSurvivors, uint16 quorum)
        private
        pure
        returns (FederationRegistry.Founding memory founding)
    {
        founding = FederationRegistry.Founding(
            keccak256(bytes(config)), keccak256("model"), minSurvivors, quorum, new address[](n), new address[](m)
        );
        for (uint256 i = 0; i < n; ++i) {
            founding.participants[i] = _participant(i);
        }
        for (uint256 i = 0; i < m; ++i) {
            founding.aggregators[i] = _aggregator(i);
        }
    }

    function _participant(uint256 i) private pure returns (address) {
        return address(uint160(0x10000 + i));
    }

    function _aggregator(uint256 i) private pure returns (address) {
        return address(uint160(0x20000 + i));
    }

    function _ones(uint256 bits) private pure returns (uint256 n) {
        for (uint256 i = 0; i < 16; ++i) {
            n += bits >> i & 1;
        }
    }
}
