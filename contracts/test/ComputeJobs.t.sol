// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {AccessManager} from "../src/AccessManager.sol";
import {ComputeJobs} from "../src/ComputeJobs.sol";
import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {Escrow} from "../src/Escrow.sol";
import {ComputeJobsWorld} from "./ComputeJobsWorld.sol";
import {vm} from "./Vm.sol";

contract ComputeJobsTest is ComputeJobsWorld {
    uint256 private documents;

    function setUp() public {
        _found(ROYALTY_BPS);
    }

    /// @dev The whole state machine: every act in every state, by every party.
    function test_every_act_works_in_its_state_and_for_its_party_alone() public {
        address[4] memory parties = [CONSUMER, PROVIDER, ARBITER, ANYBODY];
        uint256 done = 0;
        for (uint256 from = 0; from <= uint256(type(ComputeJobs.Status).max); ++from) {
            for (uint256 which = 0; which < ACTS - 1; ++which) {
                (ComputeJobs.Status status, Act act) = (ComputeJobs.Status(from), Act(which));
                bytes32 id = _bring(status, _next());
                for (uint256 i = 0; i < parties.length; ++i) {
                    if (status == _from(act) && parties[i] == _party(act)) continue;
                    vm.expectRevert(
                        status == _from(act)
                            ? abi.encodeWithSelector(ComputeJobs.NotTheirJob.selector, id, _party(act), parties[i])
                            : abi.encodeWithSelector(ComputeJobs.WrongJobStatus.selector, id, _from(act), status)
                    );
                    _perform(act, id, parties[i]);
                }
                assert(jobs.statusOf(id) == status);
                if (status != _from(act)) continue;
                _perform(act, id);
                assert(jobs.statusOf(id) == _to(act));
                ++done;
            }
        }
        assert(done == ACTS - 1);
    }

    function testFuzz_every_state_lasts_until_its_deadline_and_then_anybody_ends_it(
        uint8 pick,
        uint32 early,
        uint32 late,
        bool paused
    ) public {
        ComputeJobs.Status status = ComputeJobs.Status(1 + pick % 4);
        bytes32 id = _bring(status, _next());
        uint256 deadline = jobs.get(id).deadline;
        uint256 left = deadline - block.timestamp;
        uint256[4] memory lengths = [uint256(1 days), 2 days, 3 days, jobs.ARBITRATION()];
        assert(left == lengths[pick % 4]);
        if (paused) jobs.pause();

        vm.warp(deadline - early % left);
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.TooEarly.selector, id, deadline, block.timestamp));
        _perform(Act.TimeOut, id);

        vm.warp(deadline + 1 + late);
        for (uint256 which = paused ? 1 : 0; which < ACTS - 1; ++which) {
            if (_from(Act(which)) != status || !_hasTimeLimit(Act(which))) continue;
            vm.expectRevert(abi.encodeWithSelector(ComputeJobs.TooLate.selector, id, deadline, block.timestamp));
            _perform(Act(which), id);
        }
        _perform(Act.TimeOut, id);
        bool paid = status == ComputeJobs.Status.Committed;
        assert(jobs.statusOf(id) == (paid ? ComputeJobs.Status.Released : ComputeJobs.Status.Refunded));
        assert(_creditOf(CONSUMER) == (paid ? 0 : PRICE));
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.JobOver.selector, id, jobs.statusOf(id)));
        _perform(Act.TimeOut, id);
    }

    function test_what_never_was_has_no_timeout() public {
        bytes32 id = jobs.jobId(CONSUMER, _terms("document"));
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.JobOver.selector, id, ComputeJobs.Status.Absent));
        _perform(Act.TimeOut, id);
    }

    function test_in_the_last_second_every_act_still_works() public {
        for (uint256 which = 0; which < ACTS - 1; ++which) {
            bytes32 id = _bring(_from(Act(which)), _next());
            vm.warp(jobs.get(id).deadline);
            _perform(Act(which), id);
            assert(jobs.statusOf(id) == _to(Act(which)));
        }
    }

    function testFuzz_a_release_pays_royalty_and_provider_the_whole_price(uint96 price, uint16 royaltyBps, bool byTime) public {
        royaltyBps = royaltyBps % (registry.MAX_ROYALTY_BPS() + 1);
        _found(royaltyBps);
        price = uint96(1 + price % credit.balanceOf(CONSUMER));
        ComputeJobs.Terms memory terms = _next();
        terms.price = price;
        bytes32 id = _bring(ComputeJobs.Status.Committed, terms);
        if (byTime) vm.warp(jobs.get(id).deadline + 1);
        _perform(byTime ? Act.TimeOut : Act.Release, id);

        uint256 royalty = uint256(price) * royaltyBps / 10_000;
        assert(_creditOf(OWNER) == royalty && _creditOf(PROVIDER) == price - royalty && _creditOf(CONSUMER) == 0);
        assert(credit.balanceOf(address(jobs)) == price);
    }

    function testFuzz_an_arbiter_divides_the_price_and_royalty_is_due_on_what_is_paid(uint96 price, uint16 share) public {
        price = uint96(1 + price % credit.balanceOf(CONSUMER));
        ComputeJobs.Terms memory terms = _next();
        terms.price = price;
        bytes32 id = _bring(ComputeJobs.Status.Disputed, terms);
        if (share > 10_000) {
            vm.expectRevert(abi.encodeWithSelector(ComputeJobs.ShareTooHigh.selector, share, 10_000));
            vm.prank(ARBITER);
            jobs.resolve(id, share);
            share %= 10_001;
        }
        vm.prank(ARBITER);
        jobs.resolve(id, share);
        uint256 part = uint256(price) * share / 10_000;
        assert(_creditOf(OWNER) == part * ROYALTY_BPS / 10_000);
        assert(_creditOf(PROVIDER) == part - _creditOf(OWNER) && _creditOf(CONSUMER) == price - part);
    }

    function test_a_refund_is_whole_whoever_gives_it() public {
        Act[3] memory refunds = [Act.Cancel, Act.Decline, Act.Abandon];
        for (uint256 i = 0; i < refunds.length; ++i) {
            bytes32 id = _bring(_from(refunds[i]), _next());
            _perform(refunds[i], id);
            assert(_creditOf(CONSUMER) == PRICE * (i + 1) && _creditOf(PROVIDER) == 0);
        }
        uint256 had = credit.balanceOf(CONSUMER);
        vm.prank(CONSUMER);
        jobs.withdraw(address(credit), CONSUMER);
        assert(credit.balanceOf(CONSUMER) == had + 3 * PRICE && credit.balanceOf(address(jobs)) == 0);
    }

    function test_a_pause_stops_requests_and_acceptances_alone() public {
        bytes32[ACTS] memory ids;
        for (uint256 which = 0; which < ACTS - 1; ++which) {
            ids[which] = _bring(_from(Act(which)), _next());
        }
        jobs.pause();
        vm.expectRevert(abi.encodeWithSelector(Pausable.EnforcedPause.selector));
        _request(_next());
        vm.expectRevert(abi.encodeWithSelector(Pausable.EnforcedPause.selector));
        _perform(Act.Accept, ids[0]);
        for (uint256 which = 1; which < ACTS - 1; ++which) {
            _perform(Act(which), ids[which]);
            assert(jobs.statusOf(ids[which]) == _to(Act(which)));
        }
        vm.prank(CONSUMER);
        jobs.withdraw(address(credit), CONSUMER);
        vm.prank(OWNER);
        jobs.distrustAlgorithm(1, ALGORITHM);
        _trust(OWNER, PROVIDER);
        jobs.unpause();
        _perform(Act.Accept, ids[0]);
    }

    function testFuzz_only_the_owner_pauses(address stranger) public {
        vm.assume(stranger != address(this) && stranger != address(0xF0));
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, stranger));
        vm.prank(stranger);
        jobs.pause();
        jobs.pause();
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, stranger));
        vm.prank(stranger);
        jobs.unpause();
    }

    function testFuzz_times_are_bounded(uint48 acceptUntil, uint32 runSeconds, uint32 reviewSeconds) public {
        ComputeJobs.Terms memory terms = _next();
        (terms.acceptUntil, terms.runSeconds, terms.reviewSeconds) = (acceptUntil, runSeconds, reviewSeconds);
        (uint256 earliest, uint256 latest) = (block.timestamp, block.timestamp + jobs.MAX_ACCEPT());
        if (acceptUntil < earliest || acceptUntil > latest) {
            _refused(terms, abi.encodeWithSelector(ComputeJobs.AcceptUntilOutOfBounds.selector, acceptUntil, earliest, latest));
            terms.acceptUntil = uint48(earliest + acceptUntil % jobs.MAX_ACCEPT());
        }
        if (runSeconds == 0 || runSeconds > jobs.MAX_RUN()) {
            _refused(terms, abi.encodeWithSelector(ComputeJobs.RunTimeOutOfBounds.selector, runSeconds, 1, jobs.MAX_RUN()));
            terms.runSeconds = 1 + runSeconds % jobs.MAX_RUN();
        }
        (uint32 least, uint32 most) = (jobs.MIN_REVIEW(), jobs.MAX_REVIEW());
        if (reviewSeconds < least || reviewSeconds > most) {
            _refused(terms, abi.encodeWithSelector(ComputeJobs.ReviewTimeOutOfBounds.selector, reviewSeconds, least, most));
            terms.reviewSeconds = least + reviewSeconds % (most - least + 1);
        }
        _request(terms);
    }

    function test_terms_name_their_parties_their_money_and_their_document() public {
        ComputeJobs.Terms memory terms = _next();
        address[3] memory partial_ = [address(0), CONSUMER, PROVIDER];
        for (uint256 i = 0; i < partial_.length; ++i) {
            terms.arbiter = partial_[i];
            _refused(terms, abi.encodeWithSelector(ComputeJobs.InvalidArbiter.selector, partial_[i]));
        }
        terms = _next();
        terms.document = 0;
        _refused(terms, abi.encodeWithSelector(ComputeJobs.MissingDigest.selector));
        terms = _next();
        terms.price = 0;
        _refused(terms, abi.encodeWithSelector(ComputeJobs.PriceWithoutToken.selector, address(credit), 0));
        (terms.price, terms.token) = (PRICE, address(0));
        _refused(terms, abi.encodeWithSelector(ComputeJobs.PriceWithoutToken.selector, address(0), PRICE));
        terms.token = address(0xBAD);
        _refused(terms, abi.encodeWithSelector(Escrow.TokenNotAccepted.selector, address(0xBAD)));
        terms = _next();
        terms.algorithm = keccak256("another");
        _refused(terms, abi.encodeWithSelector(ComputeJobs.AlgorithmNotTrusted.selector, 1, terms.algorithm));
        terms = _next();
        terms.provider = ANYBODY;
        _refused(terms, abi.encodeWithSelector(ComputeJobs.ProviderNotTrusted.selector, 1, ANYBODY));
        terms = _next();
        terms.purpose = 6;
        _refused(terms, abi.encodeWithSelector(ComputeJobs.AccessNotGranted.selector, 1, CONSUMER, 6));
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.AccessNotGranted.selector, 1, ANYBODY, GRU));
        vm.prank(ANYBODY);
        jobs.request(_next(), Escrow.Permit(0, 0, 0, 0));
        terms = _next();
        uint256 had = credit.balanceOf(CONSUMER);
        vm.prank(CONSUMER);
        credit.transfer(OWNER, had);
        _refused(terms, abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, CONSUMER, 0, PRICE));
    }

    function test_digests_are_never_left_out() public {
        bytes32 id = _bring(ComputeJobs.Status.Accepted, _next());
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.MissingDigest.selector));
        vm.prank(PROVIDER);
        jobs.commitResult(id, 0, "logs", "meter");
        _perform(Act.Commit, id);
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.MissingDigest.selector));
        vm.prank(CONSUMER);
        jobs.dispute(id, 0);
    }

    function test_an_id_is_of_one_consumer_one_contract_one_chain_and_all_terms() public {
        ComputeJobs.Terms memory terms = _next();
        bytes32 id = jobs.jobId(CONSUMER, terms);
        assert(_request(terms) == id);
        _refused(terms, abi.encodeWithSelector(ComputeJobs.JobExists.selector, id));
        _perform(Act.Cancel, id);
        // Neither does it come back after it ended.
        _refused(terms, abi.encodeWithSelector(ComputeJobs.JobExists.selector, id));

        assert(jobs.jobId(ANYBODY, terms) != id);
        assert(new ComputeJobs(address(0xF0), access, tokens, address(this)).jobId(CONSUMER, terms) != id);
        terms.price += 1;
        assert(jobs.jobId(CONSUMER, terms) != id);
        terms.price -= 1;
        terms.reviewSeconds += 1;
        assert(jobs.jobId(CONSUMER, terms) != id);
        terms.reviewSeconds -= 1;
        vm.chainId(1);
        assert(jobs.jobId(CONSUMER, terms) != id);
    }

    function test_a_job_is_read_back_as_it_was_asked_for() public {
        ComputeJobs.Terms memory terms = _next();
        bytes32 id = _bring(ComputeJobs.Status.Committed, terms);
        ComputeJobs.Job memory job = jobs.get(id);
        assert(job.consumer == CONSUMER && job.provider == PROVIDER && job.arbiter == ARBITER);
        assert(job.token == address(credit) && job.price == PRICE && job.dataset == 1 && job.purpose == GRU);
        assert(job.algorithm == ALGORITHM && job.result == keccak256("result") && job.status == ComputeJobs.Status.Committed);
        assert(job.runSeconds == 2 days && job.reviewSeconds == 3 days && job.deadline == block.timestamp + 3 days);
    }

    /// @dev What changed between request and acceptance, in every way in which it can.
    function testFuzz_access_and_trust_are_asked_for_again_at_acceptance(uint8 pick) public {
        bytes32 id = _bring(ComputeJobs.Status.Requested, _next());
        bytes memory refusal = abi.encodeWithSelector(ComputeJobs.AccessNotGranted.selector, 1, CONSUMER, GRU);
        pick %= 7;
        if (pick == 0) {
            vm.prank(OWNER);
            access.revoke(1, CONSUMER, GRU);
        } else if (pick == 1) {
            vm.prank(OWNER);
            registry.setPolicy(1, keccak256("stricter"), "", 1);
        } else if (pick == 2) {
            vm.prank(OWNER);
            registry.setState(1, DatasetRegistry.State.Withdrawn);
        } else if (pick == 3) {
            vm.prank(OWNER);
            jobs.distrustAlgorithm(1, ALGORITHM);
            refusal = abi.encodeWithSelector(ComputeJobs.AlgorithmNotTrusted.selector, 1, ALGORITHM);
        } else if (pick == 4) {
            vm.prank(OWNER);
            jobs.distrustProvider(1, PROVIDER);
            refusal = abi.encodeWithSelector(ComputeJobs.ProviderNotTrusted.selector, 1, PROVIDER);
        } else {
            _sell();
            // The buyer grants again what he likes; the seller's trust does not come with it.
            if (pick == 6) {
                _grant(BUYER, CONSUMER);
                refusal = abi.encodeWithSelector(ComputeJobs.AlgorithmNotTrusted.selector, 1, ALGORITHM);
            }
        }
        vm.expectRevert(refusal);
        _perform(Act.Accept, id);
        _perform(Act.Cancel, id);
        assert(_creditOf(CONSUMER) == PRICE);
    }

    function test_a_job_that_was_accepted_goes_on_whatever_becomes_of_the_data_set() public {
        bytes32 id = _bring(ComputeJobs.Status.Accepted, _next());
        vm.prank(OWNER);
        access.revoke(1, CONSUMER, GRU);
        vm.prank(OWNER);
        jobs.distrustProvider(1, PROVIDER);
        _sell();
        vm.prank(BUYER);
        registry.setState(1, DatasetRegistry.State.Withdrawn);
        tokens.setAccepted(address(credit), false);
        _perform(Act.Commit, id);
        _perform(Act.Release, id);
        // ERC-2981: the royalty is the registrant's, also after a sale.
        assert(_creditOf(OWNER) == uint256(PRICE) * ROYALTY_BPS / 10_000 && _creditOf(BUYER) == 0);
        vm.prank(PROVIDER);
        jobs.withdraw(address(credit), PROVIDER);
        assert(credit.balanceOf(PROVIDER) == PRICE - _creditOf(OWNER));
    }

    function test_a_free_job_lives_like_any_other_and_leaves_no_credit() public {
        ComputeJobs.Terms memory terms = _next();
        (terms.price, terms.token) = (0, address(0));
        bytes32 id = _bring(ComputeJobs.Status.Resolved, terms);
        assert(jobs.statusOf(id) == ComputeJobs.Status.Resolved);
        assert(jobs.creditOf(address(0), PROVIDER) == 0 && jobs.creditOf(address(0), OWNER) == 0);
    }

    function test_the_owner_is_a_provider_as_long_as_he_owns() public {
        ComputeJobs.Terms memory terms = _next();
        terms.provider = OWNER;
        bytes32 id = _request(terms);
        (bool trusted, uint64 version) = jobs.providerTrust(1, OWNER);
        assert(trusted && version == 0);
        vm.prank(OWNER);
        jobs.distrustProvider(1, OWNER);
        (trusted, version) = jobs.providerTrust(1, OWNER);
        assert(trusted && version == 1);
        _sell();
        _grant(BUYER, CONSUMER);
        _trust(BUYER, PROVIDER);
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.ProviderNotTrusted.selector, 1, OWNER));
        vm.prank(OWNER);
        jobs.accept(id);
    }

    function testFuzz_only_owner_and_committee_trust(address stranger) public {
        vm.assume(stranger != OWNER && stranger != ARBITER && stranger != address(0xF0));
        address[] memory members = new address[](1);
        members[0] = ARBITER;
        vm.prank(OWNER);
        access.setCommittee(1, members, 0);
        _trust(ARBITER, ANYBODY);
        bytes memory refusal = abi.encodeWithSelector(ComputeJobs.NotInChargeOfDataset.selector, 1, stranger);
        vm.expectRevert(refusal);
        vm.prank(stranger);
        jobs.trustAlgorithm(1, "another", 0);
        vm.expectRevert(refusal);
        vm.prank(stranger);
        jobs.distrustAlgorithm(1, ALGORITHM);
        vm.expectRevert(refusal);
        vm.prank(stranger);
        jobs.trustProvider(1, stranger, 0);
        vm.expectRevert(refusal);
        vm.prank(stranger);
        jobs.distrustProvider(1, PROVIDER);
        vm.prank(OWNER);
        access.setCommittee(1, new address[](0), 1);
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.NotInChargeOfDataset.selector, 1, ARBITER));
        vm.prank(ARBITER);
        jobs.trustProvider(1, ARBITER, 0);
    }

    function test_trust_that_was_taken_back_is_not_given_again_by_a_late_call() public {
        // Nothing has arrived yet, and taking it back still counts.
        vm.prank(OWNER);
        jobs.distrustAlgorithm(1, "late");
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.TrustVersionMismatch.selector, 1, 0));
        vm.prank(OWNER);
        jobs.trustAlgorithm(1, "late", 0);
        for (uint64 version = 0; version < 4; ++version) {
            if (version == 2) {
                vm.prank(OWNER);
                jobs.distrustProvider(1, PROVIDER);
            }
            (bool trusted, uint64 present) = jobs.providerTrust(1, PROVIDER);
            assert(trusted == (present == 1) && present == (version < 2 ? 1 : 2));
            if (version == present) continue;
            vm.expectRevert(abi.encodeWithSelector(ComputeJobs.TrustVersionMismatch.selector, present, version));
            vm.prank(OWNER);
            jobs.trustProvider(1, PROVIDER, version);
        }
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.ProviderNotTrusted.selector, 1, address(0)));
        vm.prank(OWNER);
        jobs.trustProvider(1, address(0), 0);
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.MissingDigest.selector));
        vm.prank(OWNER);
        jobs.trustAlgorithm(1, 0, 0);
    }

    function test_a_sale_ends_all_trust_also_when_the_data_set_comes_back() public {
        _sell();
        vm.prank(BUYER);
        registry.transferFrom(BUYER, OWNER, 1);
        (bool algorithm, uint64 version) = jobs.algorithmTrust(1, ALGORITHM);
        (bool provider,) = jobs.providerTrust(1, PROVIDER);
        assert(!algorithm && !provider && version == 1);
        // What the owner signed in his first time does not count in his second.
        vm.expectRevert(abi.encodeWithSelector(ComputeJobs.TrustVersionMismatch.selector, 1, 0));
        vm.prank(OWNER);
        jobs.trustAlgorithm(1, ALGORITHM, 0);
    }

    function _next() private returns (ComputeJobs.Terms memory) {
        return _terms(keccak256(abi.encode("document", ++documents)));
    }

    function _refused(ComputeJobs.Terms memory terms, bytes memory refusal) private {
        vm.expectRevert(refusal);
        _request(terms);
    }
}
