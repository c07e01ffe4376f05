// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessManager} from "../src/AccessManager.sol";
import {ComputeJobs} from "../src/ComputeJobs.sol";
import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {Escrow} from "../src/Escrow.sol";
import {LocalCredit} from "../src/LocalCredit.sol";
import {PaymentTokens} from "../src/PaymentTokens.sol";
import {vm} from "./Vm.sol";

/// @dev All that a job needs: a data set with a royalty, access to it, trust, and money. The acts of the parties go by number, so that
/// tests can try each of them in every state.
abstract contract ComputeJobsWorld {
    enum Act {
        Accept,
        Decline,
        Cancel,
        Abandon,
        Commit,
        Release,
        Dispute,
        Resolve,
        TimeOut
    }

    uint256 internal constant ACTS = 9;
    address internal constant OWNER = address(0xA11CE);
    address internal constant BUYER = address(0xB0B);
    address internal constant CONSUMER = address(0xC0);
    address internal constant PROVIDER = address(0x9D);
    address internal constant ARBITER = address(0xAB);
    address internal constant ANYBODY = address(0xE0);
    uint16 internal constant GRU = 42;
    bytes32 internal constant ALGORITHM = keccak256("image, entry point, schema of parameters");
    uint96 internal constant PRICE = 1_000_000;
    uint16 internal constant ROYALTY_BPS = 250;

    DatasetRegistry internal registry;
    AccessManager internal access;
    PaymentTokens internal tokens;
    LocalCredit internal credit;
    ComputeJobs internal jobs;

    function _found(uint16 royaltyBps) internal {
        vm.warp(1_800_000_000);
        registry = new DatasetRegistry(address(0xF0), address(this));
        access = new AccessManager(address(0xF0), registry);
        tokens = new PaymentTokens(address(this));
        credit = new LocalCredit();
        tokens.setAccepted(address(credit), true);
        jobs = new ComputeJobs(address(0xF0), access, tokens, address(this));
        vm.prank(OWNER);
        registry.register(
            DatasetRegistry.Registration(
                keccak256("content"), keccak256("policy"), keccak256("metadata"), "", new uint256[](0), royaltyBps
            )
        );
        _grant(OWNER, CONSUMER);
        _trust(OWNER, PROVIDER);
        _fund(CONSUMER);
    }

    function _grant(address owner, address consumer) internal {
        (, uint32 version,) = registry.policyOf(1);
        uint64 epoch = access.grantOf(1, consumer, GRU).grantEpoch;
        uint48 until = uint48(block.timestamp + access.MAX_TERM());
        vm.prank(owner);
        access.grant(AccessManager.Terms(1, consumer, GRU, until, version, epoch, keccak256("conditions")));
    }

    function _trust(address owner, address provider) internal {
        (, uint64 version) = jobs.algorithmTrust(1, ALGORITHM);
        vm.prank(owner);
        jobs.trustAlgorithm(1, ALGORITHM, version);
        (, version) = jobs.providerTrust(1, provider);
        vm.prank(owner);
        jobs.trustProvider(1, provider, version);
    }

    function _fund(address account) internal {
        credit.mint(account, credit.MAX_MINT());
        vm.prank(account);
        credit.approve(address(jobs), type(uint256).max);
    }

    function _sell() internal {
        vm.prank(OWNER);
        registry.transferFrom(OWNER, BUYER, 1);
    }

    function _terms(bytes32 document) internal view returns (ComputeJobs.Terms memory) {
        return ComputeJobs.Terms(
            1,
            GRU,
            PROVIDER,
            ARBITER,
            ALGORITHM,
            document,
            address(credit),
            PRICE,
            uint48(block.timestamp + 1 days),
            2 days,
            3 days
        );
    }

    function _request(ComputeJobs.Terms memory terms) internal returns (bytes32) {
        vm.prank(CONSUMER);
        return jobs.request(terms, Escrow.Permit(0, 0, 0, 0));
    }

    /// @dev A job that was brought into a state by its parties.
    function _bring(ComputeJobs.Status status, ComputeJobs.Terms memory terms) internal returns (bytes32 id) {
        if (status == ComputeJobs.Status.Absent) return jobs.jobId(CONSUMER, terms);
        id = _request(terms);
        if (status == ComputeJobs.Status.Refunded) _perform(Act.Cancel, id);
        if (status == ComputeJobs.Status.Requested || status == ComputeJobs.Status.Refunded) return id;
        _perform(Act.Accept, id);
        if (status == ComputeJobs.Status.Accepted) return id;
        _perform(Act.Commit, id);
        if (status == ComputeJobs.Status.Released) _perform(Act.Release, id);
        if (status == ComputeJobs.Status.Committed || status == ComputeJobs.Status.Released) return id;
        _perform(Act.Dispute, id);
        if (status == ComputeJobs.Status.Resolved) _perform(Act.Resolve, id);
    }

    function _perform(Act act, bytes32 id) internal {
        _perform(act, id, _party(act));
    }

    function _perform(Act act, bytes32 id, address caller) internal {
        vm.prank(caller);
        if (act == Act.Accept) jobs.accept(id);
        else if (act == Act.Decline) jobs.decline(id);
        else if (act == Act.Cancel) jobs.cancel(id);
        else if (act == Act.Abandon) jobs.abandon(id);
        else if (act == Act.Commit) jobs.commitResult(id, keccak256("result"), keccak256("logs"), keccak256("meter"));
        else if (act == Act.Release) jobs.release(id);
        else if (act == Act.Dispute) jobs.dispute(id, keccak256("reason"));
        else if (act == Act.Resolve) jobs.resolve(id, 4_000);
        else jobs.timeout(id);
    }

    function _party(Act act) internal pure returns (address) {
        if (act == Act.Accept || act == Act.Decline || act == Act.Abandon || act == Act.Commit) return PROVIDER;
        if (act == Act.Resolve) return ARBITER;
        return act == Act.TimeOut ? ANYBODY : CONSUMER;
    }

    /// @dev The only state that an act starts from; that of a timeout is any before the last ones.
    function _from(Act act) internal pure returns (ComputeJobs.Status) {
        if (act == Act.Accept || act == Act.Decline || act == Act.Cancel) return ComputeJobs.Status.Requested;
        if (act == Act.Abandon || act == Act.Commit) return ComputeJobs.Status.Accepted;
        return act == Act.Resolve ? ComputeJobs.Status.Disputed : ComputeJobs.Status.Committed;
    }

    function _to(Act act) internal pure returns (ComputeJobs.Status) {
        if (act == Act.Accept) return ComputeJobs.Status.Accepted;
        if (act == Act.Commit) return ComputeJobs.Status.Committed;
        if (act == Act.Release) return ComputeJobs.Status.Released;
        if (act == Act.Dispute) return ComputeJobs.Status.Disputed;
        return act == Act.Resolve ? ComputeJobs.Status.Resolved : ComputeJobs.Status.Refunded;
    }

    /// @dev Acts that a deadline ends; the others may come late, since time gives the same.
    function _hasTimeLimit(Act act) internal pure returns (bool) {
        return act == Act.Accept || act == Act.Commit || act == Act.Dispute || act == Act.Resolve;
    }

    function _creditOf(address account) internal view returns (uint256) {
        return jobs.creditOf(address(credit), account);
    }
}
