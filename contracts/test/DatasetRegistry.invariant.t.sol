// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {vm} from "./Vm.sol";

/// @dev Three institutions act at random; the handler keeps what must never be undone.
contract InstitutionHandler {
    DatasetRegistry public immutable REGISTRY;
    mapping(uint256 id => bytes32) public contentRoot;
    mapping(uint256 id => uint32) public policyVersion;
    mapping(uint256 id => uint64) public ownerEpoch;
    mapping(uint256 id => bool) public withdrawn;
    uint256 public attempts;
    uint256 public accepted;

    modifier counted() {
        ++attempts;
        _;
    }

    constructor(DatasetRegistry registry) {
        REGISTRY = registry;
    }

    function register(uint8 who, uint8 root, uint8 parentSeed, uint8 parentCount) external counted {
        uint256 count = REGISTRY.count();
        parentCount = uint8(parentCount % (count < 4 ? count + 1 : 5));
        uint256[] memory parents = new uint256[](parentCount);
        for (uint256 i = 0; i < parentCount; ++i) {
            parents[i] = 1 + i + (parentSeed % (count - parentCount + 1));
        }
        DatasetRegistry.Registration memory registration = DatasetRegistry.Registration(
            keccak256(abi.encode(root)), keccak256("policy"), keccak256("metadata"), "", parents, 0
        );
        vm.prank(_institution(who));
        try REGISTRY.register(registration) returns (uint256 id) {
            contentRoot[id] = registration.contentRoot;
            policyVersion[id] = 1;
            ++accepted;
        } catch {
            assert(REGISTRY.count() == count);
        }
    }

    function setPolicy(uint8 which, bytes32 policy, uint8 stale) external counted {
        uint256 id = _id(which);
        if (id == 0) return;
        address owner = REGISTRY.ownerOf(id);
        uint32 named = stale % 8 == 1 ? policyVersion[id] - 1 : policyVersion[id];
        vm.prank(owner);
        try REGISTRY.setPolicy(id, policy, "", named) {
            assert(!withdrawn[id] && named == policyVersion[id]);
            (, uint32 version,) = REGISTRY.policyOf(id);
            assert(version == policyVersion[id] + 1);
            policyVersion[id] = version;
            ++accepted;
        } catch {
            assert(withdrawn[id] || policy == 0 || named != policyVersion[id]);
        }
    }

    function setState(uint8 which, uint8 state) external counted {
        uint256 id = _id(which);
        if (id == 0) return;
        address owner = REGISTRY.ownerOf(id);
        vm.prank(owner);
        // Withdraw rarely, or everything is frozen after a few calls.
        DatasetRegistry.State next = DatasetRegistry.State(state % 16 == 0 ? 2 : state % 2);
        try REGISTRY.setState(id, next) {
            assert(!withdrawn[id]);
            withdrawn[id] = next == DatasetRegistry.State.Withdrawn;
            ++accepted;
        } catch {}
    }

    function transfer(uint8 which, uint8 to) external counted {
        uint256 id = _id(which);
        if (id == 0) return;
        address owner = REGISTRY.ownerOf(id);
        vm.prank(owner);
        REGISTRY.transferFrom(owner, _institution(to), id);
        ++ownerEpoch[id];
        ++accepted;
    }

    function _institution(uint8 who) private pure returns (address) {
        return address(uint160(0x1000 + who % 3));
    }

    function _id(uint8 which) private view returns (uint256) {
        uint256 count = REGISTRY.count();
        return count == 0 ? 0 : 1 + which % count;
    }
}

/// forge-config: default.invariant.fail-on-revert = true
contract DatasetRegistryInvariantTest {
    DatasetRegistry private registry;
    InstitutionHandler private handler;

    function setUp() public {
        registry = new DatasetRegistry(address(0xF0), address(this));
        handler = new InstitutionHandler(registry);
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_provenance_is_acyclic_and_nothing_is_undone() public view {
        uint256 count = registry.count();
        for (uint256 id = 1; id <= count; ++id) {
            DatasetRegistry.Dataset memory dataset = registry.get(id);
            assert(dataset.contentRoot == handler.contentRoot(id));
            assert(dataset.policyVersion == handler.policyVersion(id));
            assert(dataset.ownerEpoch == handler.ownerEpoch(id));
            assert((dataset.state == DatasetRegistry.State.Withdrawn) == handler.withdrawn(id));
            uint256[] memory parents = registry.parentsOf(id);
            assert(parents.length <= 16);
            for (uint256 i = 0; i < parents.length; ++i) {
                assert(parents[i] > 0 && parents[i] < id && (i == 0 || parents[i - 1] < parents[i]));
            }
        }
    }

    /// @dev A handler whose calls were mostly refused would prove little. (Replays of an old failure are short.)
    function afterInvariant() public view {
        assert(handler.attempts() < 32 || handler.accepted() * 4 >= handler.attempts());
    }
}
