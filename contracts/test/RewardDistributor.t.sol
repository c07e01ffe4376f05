// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Escrow} from "../src/Escrow.sol";
import {FederationRegistry} from "../src/FederationRegistry.sol";
import {LocalCredit} from "../src/LocalCredit.sol";
import {PaymentTokens} from "../src/PaymentTokens.sol";
import {PositionalTree} from "../src/PositionalTree.sol";
import {RewardDistributor} from "../src/RewardDistributor.sol";
import {RewardTree} from "./RewardTree.sol";
import {TrainedFederation} from "./TrainedFederation.sol";
import {vm} from "./Vm.sol";

contract RewardDistributorTest {
    address private constant FUNDER = address(0xF00D);
    address private constant PUBLISHER = address(0x9B);
    address private constant ARBITER = address(0xA4B);
    bytes32 private constant REASON = keccak256("reason");

    TrainedFederation private training;
    RewardDistributor private distributor;
    PaymentTokens private tokens;
    LocalCredit private token;
    bytes32 private federation;
    address[] private accounts;
    uint256[] private amounts;

    /// @dev Three participants get 500, 300 and 100 of 1000.
    function setUp() public {
        vm.warp(1_800_000_000);
        training = new TrainedFederation();
        tokens = new PaymentTokens(address(this));
        distributor = new RewardDistributor(address(0xF0), training.REGISTRY(), tokens);
        token = new LocalCredit();
        tokens.setAccepted(address(token), true);
        federation = training.found();
        accounts = training.participants();
        amounts.push(500);
        amounts.push(300);
        amounts.push(100);
        token.mint(FUNDER, 1_000_000);
        vm.prank(FUNDER);
        token.approve(address(distributor), type(uint256).max);
    }

    function test_a_reward_is_paid_in_before_training_and_fetched_after_it() public {
        bytes32 epoch = _fund(_terms());
        assert(epoch == distributor.epochId(FUNDER, federation, 1, 1, keccak256("label")));
        assert(token.balanceOf(address(distributor)) == 1000 && token.balanceOf(FUNDER) == 999_000);
        training.train(federation, 1);
        _publish(epoch, 1, 900);
        RewardDistributor.Epoch memory published = distributor.get(epoch);
        assert(published.challengeUntil == block.timestamp + 1 days && published.claimFrom == published.challengeUntil + 1);
        assert(published.claimUntil == published.claimFrom + 30 days);

        vm.warp(published.claimFrom);
        for (uint32 i = 0; i < 3; ++i) {
            _claim(epoch, i);
            assert(distributor.isClaimed(epoch, i) && distributor.creditOf(address(token), accounts[i]) == amounts[i]);
        }
        assert(distributor.get(epoch).claimed == 900);
        vm.prank(accounts[1]);
        distributor.withdraw(address(token), address(0xCAFE));
        assert(token.balanceOf(address(0xCAFE)) == 300);

        vm.warp(published.claimUntil + 1);
        distributor.close(epoch);
        assert(distributor.creditOf(address(token), FUNDER) == 100);
        assert(token.balanceOf(address(distributor)) == 700);
    }

    function test_funding_comes_before_training() public {
        RewardDistributor.Terms memory terms = _terms();
        training.open(federation);
        _refusedToFund(terms, _opened(1, 1, FederationRegistry.Status.Open));
        // The next round has not opened, whatever this one does.
        terms.firstRound = terms.lastRound = 2;
        _fund(terms);
        // Between two attempts nothing is under way that could come to count.
        vm.warp(block.timestamp + 121);
        training.abandon(federation);
        terms = _terms();
        _fund(terms);
        training.open(federation);
        training.fix(federation);
        terms.label = keccak256("another");
        _refusedToFund(terms, _opened(1, 1, FederationRegistry.Status.Fixed));
        training.finalise(federation);
        _refusedToFund(terms, _opened(1, 2, FederationRegistry.Status.Idle));
        terms.firstRound = terms.lastRound = 2;
        _fund(terms);
        training.close(federation);
        terms.firstRound = terms.lastRound = 3;
        _refusedToFund(
            terms,
            abi.encodeWithSelector(
                RewardDistributor.FederationNotRunning.selector, federation, FederationRegistry.Status.Closed
            )
        );
        terms.federation = keccak256("nothing");
        _refusedToFund(
            terms,
            abi.encodeWithSelector(
                RewardDistributor.FederationNotRunning.selector, terms.federation, FederationRegistry.Status.Absent
            )
        );
    }

    /// @dev Accepted exactly within the bounds that the contract names.
    function testFuzz_terms_have_bounds(uint48 publishIn, uint32 answer, uint32 claimTerm, uint8 first, uint8 last, uint8 wrong)
        public
    {
        RewardDistributor.Terms memory terms = _terms();
        terms.publishBy = uint48(block.timestamp) + publishIn % 800 days;
        (terms.challengeSeconds, terms.answerSeconds) = (answer / 2 % 31 days, answer % 31 days);
        terms.claimSeconds = claimTerm % 800 days;
        (terms.firstRound, terms.lastRound) = (first % 8, last % 8);
        bool valid = terms.publishBy > block.timestamp && terms.publishBy <= block.timestamp + 730 days;
        valid = valid && terms.challengeSeconds >= 1 hours && terms.challengeSeconds <= 30 days;
        valid = valid && terms.answerSeconds >= 1 hours && terms.answerSeconds <= 30 days;
        valid = valid && terms.claimSeconds >= 7 days && terms.claimSeconds <= 730 days;
        valid = valid && terms.firstRound >= 1 && terms.lastRound >= terms.firstRound;
        wrong = wrong % 16;
        if (wrong == 1) terms.amount = 0;
        if (wrong == 2) terms.publisher = address(0);
        if (wrong == 3) terms.arbiter = address(0);
        if (wrong == 4) terms.arbiter = FUNDER;
        if (wrong == 5) terms.arbiter = PUBLISHER;
        if (wrong == 6) terms.arbiter = accounts[2];
        if (wrong == 7) terms.token = address(this);
        if (wrong > 0 && wrong < 8) valid = false;
        RewardDistributor.Permit memory permit;
        vm.prank(FUNDER);
        (bool success,) = address(distributor).call(abi.encodeCall(RewardDistributor.fund, (terms, permit)));
        assert(success == valid);
        assert(token.balanceOf(address(distributor)) == (valid ? 1000 : 0));
    }

    function test_an_epoch_is_funded_once_and_nobody_takes_its_place() public {
        bytes32 epoch = _fund(_terms());
        _refusedToFund(_terms(), abi.encodeWithSelector(RewardDistributor.EpochExists.selector, epoch));
        token.mint(address(this), 1000);
        token.approve(address(distributor), 1000);
        RewardDistributor.Permit memory permit;
        assert(distributor.fund(_terms(), permit) != epoch);
    }

    function test_only_the_publisher_publishes_what_was_finalised_within_the_amount() public {
        bytes32 epoch = _fund(_terms());
        bytes32 record = _record(epoch);
        vm.prank(PUBLISHER);
        vm.expectRevert(
            abi.encodeWithSelector(
                RewardDistributor.RoundsNotFinalised.selector, federation, 1, 1, FederationRegistry.Status.Idle
            )
        );
        distributor.publish(epoch, 1, record, 3, 900, "");
        training.train(federation, 1);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.NotPublisher.selector, epoch, address(this)));
        distributor.publish(epoch, 1, record, 3, 900, "");
        bytes[5] memory refusals = [
            abi.encodeWithSelector(RewardDistributor.PublicationMismatch.selector, epoch, 1, 2),
            abi.encodeWithSelector(RewardDistributor.TotalOutOfBounds.selector, 1001, 1, 1000),
            abi.encodeWithSelector(RewardDistributor.TotalOutOfBounds.selector, 0, 1, 1000),
            abi.encodeWithSelector(RewardDistributor.EmptyPublication.selector),
            abi.encodeWithSelector(RewardDistributor.EmptyPublication.selector)
        ];
        for (uint256 i = 0; i < 5; ++i) {
            vm.expectRevert(refusals[i]);
            vm.prank(PUBLISHER);
            distributor.publish(
                epoch, i == 0 ? 2 : 1, i == 3 ? bytes32(0) : record, i == 4 ? 0 : 3, i == 1 ? 1001 : i == 2 ? 0 : 900, ""
            );
        }
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.UriTooLong.selector, 513, 512));
        vm.prank(PUBLISHER);
        distributor.publish(epoch, 1, record, 3, 900, string(new bytes(513)));
        uint48 publishBy = _terms().publishBy;
        vm.warp(publishBy + 1);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.PublicationTooLate.selector, publishBy, publishBy + 1));
        vm.prank(PUBLISHER);
        distributor.publish(epoch, 1, record, 3, 900, "");
    }

    function test_a_federation_that_closes_early_is_rewarded_for_what_it_finished() public {
        RewardDistributor.Terms memory terms = _terms();
        terms.lastRound = 3;
        bytes32 epoch = _fund(terms);
        terms.firstRound = 2;
        bytes32 hopeless = _fund(terms);
        training.train(federation, 1);
        bytes32 record = _record(epoch);
        vm.expectRevert(
            abi.encodeWithSelector(
                RewardDistributor.RoundsNotFinalised.selector, federation, 3, 2, FederationRegistry.Status.Idle
            )
        );
        vm.prank(PUBLISHER);
        distributor.publish(epoch, 1, record, 3, 900, "");
        training.close(federation);
        // The first of its rounds was finished, so its reward is not the funder's to take back before it is published.
        uint48 publishBy = _terms().publishBy;
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.NotOver.selector, epoch, publishBy, block.timestamp));
        distributor.close(epoch);
        _publish(epoch, 1, 900);

        // Nothing of the other epoch's rounds was finished, and nothing will be: back at once.
        vm.expectRevert(
            abi.encodeWithSelector(
                RewardDistributor.RoundsNotFinalised.selector, federation, 3, 2, FederationRegistry.Status.Closed
            )
        );
        vm.prank(PUBLISHER);
        distributor.publish(hopeless, 1, record, 3, 900, "");
        distributor.close(hopeless);
        assert(distributor.creditOf(address(token), FUNDER) == 1000);
    }

    function test_an_objection_waits_for_the_arbiter_who_confirms() public {
        bytes32 epoch = _published();
        uint48 until = distributor.get(epoch).challengeUntil;
        _challenge(epoch, accounts[0], 1);
        _challenge(epoch, FUNDER, 1);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.AlreadyChallenged.selector, epoch, 1, FUNDER));
        vm.prank(FUNDER);
        distributor.challenge(epoch, 1, REASON);
        // An answer to the first objection can not cut off the others.
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.StillOpenToChallenges.selector, until, block.timestamp));
        vm.prank(ARBITER);
        distributor.confirm(epoch, 1, REASON);
        vm.warp(until + 1);
        uint48 answerUntil = until + 2 days;
        vm.expectRevert(
            abi.encodeWithSelector(
                RewardDistributor.NotClaimable.selector, epoch, answerUntil + 1, answerUntil + 1 + 30 days, block.timestamp
            )
        );
        _claim(epoch, 0);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.NotArbiter.selector, epoch, FUNDER));
        vm.prank(FUNDER);
        distributor.reject(epoch, 1, REASON);
        vm.prank(ARBITER);
        distributor.confirm(epoch, 1, REASON);
        _claim(epoch, 0);
        vm.expectRevert(
            abi.encodeWithSelector(RewardDistributor.WrongStatus.selector, epoch, RewardDistributor.Status.Confirmed)
        );
        vm.prank(accounts[1]);
        distributor.challenge(epoch, 1, REASON);
        assert(distributor.get(epoch).claimUntil == block.timestamp + 30 days);
    }

    function test_a_rejected_publication_is_replaced_and_nothing_that_is_late_hits_the_other() public {
        bytes32 epoch = _published();
        _challenge(epoch, accounts[0], 1);
        vm.prank(ARBITER);
        distributor.reject(epoch, 1, REASON);
        RewardDistributor.Epoch memory current = distributor.get(epoch);
        assert(current.status == RewardDistributor.Status.Funded && current.record == 0 && current.claimFrom == 0);
        // The same publication, signed before and relayed again.
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.PublicationMismatch.selector, epoch, 2, 1));
        vm.prank(PUBLISHER);
        distributor.publish(epoch, 1, keccak256("rejected"), 3, 900, "");
        _publish(epoch, 2, 900);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.PublicationMismatch.selector, epoch, 2, 1));
        vm.prank(accounts[1]);
        distributor.challenge(epoch, 1, REASON);
        // Who objected to the first may object to the second.
        _challenge(epoch, accounts[0], 2);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.PublicationMismatch.selector, epoch, 2, 1));
        vm.prank(ARBITER);
        distributor.reject(epoch, 1, REASON);
    }

    function test_without_an_answer_a_publication_stands() public {
        bytes32 epoch = _published();
        _challenge(epoch, accounts[0], 1);
        uint48 answerUntil = distributor.get(epoch).challengeUntil + 2 days;
        vm.warp(answerUntil + 1);
        bytes memory late = abi.encodeWithSelector(RewardDistributor.DecisionTooLate.selector, answerUntil, block.timestamp);
        vm.expectRevert(late);
        vm.prank(ARBITER);
        distributor.reject(epoch, 1, REASON);
        vm.expectRevert(late);
        vm.prank(ARBITER);
        distributor.confirm(epoch, 1, REASON);
        _claim(epoch, 2);
        assert(distributor.creditOf(address(token), accounts[2]) == 100);
    }

    function test_who_has_a_stake_objects_with_a_reason_and_in_time() public {
        bytes32 epoch = _published();
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.NoStanding.selector, epoch, address(this)));
        distributor.challenge(epoch, 1, REASON);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.MissingReason.selector));
        vm.prank(accounts[0]);
        distributor.challenge(epoch, 1, 0);
        uint48 until = distributor.get(epoch).challengeUntil;
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.ChallengeTooLate.selector, until, until + 1));
        vm.prank(accounts[0]);
        distributor.challenge(epoch, 1, REASON);
    }

    /// @dev Every last second is still in time; that the next one is not, the other tests say.
    function test_publication_objection_decision_and_claim_are_in_time_until_the_last_second() public {
        bytes32 epoch = _fund(_terms());
        training.train(federation, 1);
        vm.warp(_terms().publishBy);
        _publish(epoch, 1, 900);
        vm.warp(distributor.get(epoch).challengeUntil);
        _challenge(epoch, accounts[0], 1);
        // Somebody else may still object within this second.
        vm.expectRevert(
            abi.encodeWithSelector(RewardDistributor.StillOpenToChallenges.selector, block.timestamp, block.timestamp)
        );
        vm.prank(ARBITER);
        distributor.confirm(epoch, 1, REASON);
        vm.warp(distributor.get(epoch).claimFrom - 1);
        vm.prank(ARBITER);
        distributor.confirm(epoch, 1, REASON);
        RewardDistributor.Epoch memory current = distributor.get(epoch);
        assert(current.claimFrom == block.timestamp && current.claimUntil == block.timestamp + 30 days);
        vm.warp(current.claimUntil);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.NotOver.selector, epoch, current.claimUntil, block.timestamp));
        distributor.close(epoch);
        _claim(epoch, 0);
        assert(distributor.creditOf(address(token), accounts[0]) == 500);
    }

    function test_a_share_is_claimed_once_by_its_own_proof_and_in_time() public {
        bytes32 epoch = _published();
        RewardDistributor.Epoch memory current = distributor.get(epoch);
        bytes memory notNow = abi.encodeWithSelector(
            RewardDistributor.NotClaimable.selector, epoch, current.claimFrom, current.claimUntil, block.timestamp
        );
        vm.expectRevert(notNow);
        _claim(epoch, 0);
        vm.warp(current.claimFrom);
        _claim(epoch, 0);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.AlreadyClaimed.selector, epoch, 0));
        _claim(epoch, 0);

        bytes32[] memory proof = RewardTree.proofOf(distributor.contextOf(epoch), accounts, amounts, 1);
        bytes16 salt = RewardTree.saltOf(1);
        // Another account, amount, index or salt, and more than the leaves.
        _refusedToClaim(epoch, 1, accounts[2], 300, salt, proof, PositionalTree.RecordMismatch.selector);
        _refusedToClaim(epoch, 1, accounts[1], 301, salt, proof, PositionalTree.RecordMismatch.selector);
        _refusedToClaim(epoch, 2, accounts[1], 300, salt, proof, PositionalTree.RecordMismatch.selector);
        _refusedToClaim(epoch, 1, accounts[1], 300, RewardTree.saltOf(2), proof, PositionalTree.RecordMismatch.selector);
        _refusedToClaim(epoch, 3, accounts[1], 300, salt, proof, PositionalTree.LeafOutOfRange.selector);
        _refusedToClaim(epoch, 1, accounts[1], 300, salt, new bytes32[](0), PositionalTree.ProofLengthMismatch.selector);
        vm.warp(current.claimUntil + 1);
        _refusedToClaim(epoch, 1, accounts[1], 300, salt, proof, RewardDistributor.NotClaimable.selector);
    }

    function test_shares_above_the_total_and_lost_accounts_are_not_paid() public {
        amounts[2] = 200;
        accounts[1] = address(distributor);
        bytes32 epoch = _fund(_terms());
        training.train(federation, 1);
        _publish(epoch, 1, 600);
        vm.warp(distributor.get(epoch).claimFrom);
        _claim(epoch, 0);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.TotalExceeded.selector, 600, 500, 200));
        _claim(epoch, 2);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.InvalidAccount.selector, address(distributor)));
        _claim(epoch, 1);
        vm.warp(distributor.get(epoch).claimUntil + 1);
        distributor.close(epoch);
        assert(distributor.creditOf(address(token), FUNDER) == 500);
    }

    /// @dev Nothing but time, and not the list of tokens either, keeps anybody from the exit of a state.
    function testFuzz_every_state_has_an_exit(uint8 way) public {
        bytes32 epoch = _fund(_terms());
        way = way % 5;
        if (way > 0) {
            training.train(federation, 1);
            _publish(epoch, 1, 900);
        }
        if (way > 1) _challenge(epoch, accounts[0], 1);
        if (way == 2) {
            vm.prank(ARBITER);
            distributor.reject(epoch, 1, REASON);
        }
        if (way == 3) {
            vm.warp(distributor.get(epoch).challengeUntil + 1);
            vm.prank(ARBITER);
            distributor.confirm(epoch, 1, REASON);
        }
        RewardDistributor.Epoch memory current = distributor.get(epoch);
        uint48 until = current.status == RewardDistributor.Status.Funded ? _terms().publishBy : current.claimUntil;
        tokens.setAccepted(address(token), false);
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.NotOver.selector, epoch, until, until));
        distributor.close(epoch);
        vm.warp(until + 1);
        distributor.close(epoch);
        assert(distributor.creditOf(address(token), FUNDER) == 1000);
        vm.prank(FUNDER);
        distributor.withdraw(address(token), FUNDER);
        assert(token.balanceOf(FUNDER) == 1_000_000 && token.balanceOf(address(distributor)) == 0);
        vm.expectRevert(abi.encodeWithSelector(RewardDistributor.WrongStatus.selector, epoch, RewardDistributor.Status.Closed));
        distributor.close(epoch);
    }

    /// @dev Whatever the shares are, claims sum to at most the total, and with the rest to the amount.
    function testFuzz_claims_and_the_rest_are_the_amount(uint256 seed, uint8 n, uint16 total) public {
        n = 1 + n % 9;
        total = 1 + total % 1000;
        (accounts, amounts) = (new address[](n), new uint256[](n));
        for (uint256 i = 0; i < n; ++i) {
            accounts[i] = address(uint160(0x7000 + i % 5));
            amounts[i] = uint256(keccak256(abi.encode(seed, i))) % 400;
        }
        bytes32 epoch = _fund(_terms());
        training.train(federation, 1);
        _publish(epoch, 1, total);
        vm.warp(distributor.get(epoch).claimFrom);
        uint256 sum = 0;
        for (uint256 k = 0; k < n; ++k) {
            uint256 i = (k + seed % n) % n;
            (bool success,) = address(distributor).call(_claimCall(epoch, uint32(i)));
            assert(success == (sum + amounts[i] <= total));
            if (success) sum += amounts[i];
        }
        assert(distributor.get(epoch).claimed == sum && sum <= total);
        vm.warp(distributor.get(epoch).claimUntil + 1);
        distributor.close(epoch);
        assert(distributor.creditOf(address(token), FUNDER) == 1000 - sum);
    }

    /// @dev The vectors fix a contract's address: its code is put there.
    function test_ids_and_leaves_equal_the_vectors() public {
        string memory json = vm.readFile("../tests/vectors/rewards.json");
        assert(vm.parseJsonUint(json, ".chainId") == block.chainid);
        address place = vm.parseJsonAddress(json, ".distributor");
        vm.etch(place, address(distributor).code);
        RewardDistributor there = RewardDistributor(place);
        bytes32 epoch = there.epochId(
            vm.parseJsonAddress(json, ".funder"),
            vm.parseJsonBytes32(json, ".federation"),
            uint64(vm.parseJsonUint(json, ".firstRound")),
            uint64(vm.parseJsonUint(json, ".lastRound")),
            vm.parseJsonBytes32(json, ".label")
        );
        assert(epoch == vm.parseJsonBytes32(json, ".epoch"));
        assert(there.contextOf(epoch) == vm.parseJsonBytes32(json, ".tree.context"));
        (accounts, amounts) = (new address[](3), new uint256[](3));
        bytes32[] memory digests = vm.parseJsonBytes32Array(json, ".tree.digests");
        for (uint256 i = 0; i < 3; ++i) {
            string memory share = string.concat(".shares[", vm.toString(i), "]");
            address account = vm.parseJsonAddress(json, string.concat(share, ".account"));
            assert(there.digestOf(account, vm.parseJsonUint(json, string.concat(share, ".amount"))) == digests[i]);
            bytes16 salt = bytes16(vm.parseJsonBytesArray(json, ".tree.salts")[i]);
            bytes32 leaf = PositionalTree.leaf(there.REWARD_KIND(), there.contextOf(epoch), uint64(i), 0, digests[i], salt);
            assert(leaf == vm.parseJsonBytes32Array(json, ".tree.leaves")[i]);
        }
    }

    function test_a_permit_equals_the_vectors() public {
        string memory json = vm.readFile("../tests/vectors/rewards.json");
        LocalCredit signed = LocalCredit(vm.parseJsonAddress(json, ".permit.token"));
        vm.etch(address(signed), address(token).code);
        assert(signed.DOMAIN_SEPARATOR() == vm.parseJsonBytes32(json, ".permit.eip712.domainSeparator"));
        address owner = vm.parseJsonAddress(json, ".permit.message.owner");
        address spender = vm.parseJsonAddress(json, ".permit.message.spender");
        signed.permit(
            owner,
            spender,
            vm.parseJsonUint(json, ".permit.message.value"),
            vm.parseJsonUint(json, ".permit.message.deadline"),
            uint8(vm.parseJsonUint(json, ".permit.v")),
            vm.parseJsonBytes32(json, ".permit.r"),
            vm.parseJsonBytes32(json, ".permit.s")
        );
        assert(signed.allowance(owner, spender) == vm.parseJsonUint(json, ".permit.message.value"));
    }

    function _terms() private view returns (RewardDistributor.Terms memory) {
        return RewardDistributor.Terms({
            federation: federation,
            firstRound: 1,
            lastRound: 1,
            label: keccak256("label"),
            token: address(token),
            amount: 1000,
            publisher: PUBLISHER,
            arbiter: ARBITER,
            publishBy: 1_800_000_000 + 90 days,
            challengeSeconds: 1 days,
            answerSeconds: 2 days,
            claimSeconds: 30 days
        });
    }

    function _fund(RewardDistributor.Terms memory terms) private returns (bytes32) {
        RewardDistributor.Permit memory permit;
        vm.prank(FUNDER);
        return distributor.fund(terms, permit);
    }

    function _refusedToFund(RewardDistributor.Terms memory terms, bytes memory refusal) private {
        RewardDistributor.Permit memory permit;
        vm.expectRevert(refusal);
        vm.prank(FUNDER);
        distributor.fund(terms, permit);
    }

    function _opened(uint64 first, uint64 current, FederationRegistry.Status status) private view returns (bytes memory) {
        return abi.encodeWithSelector(RewardDistributor.RoundHasOpened.selector, federation, first, current, status);
    }

    function _record(bytes32 epoch) private view returns (bytes32) {
        return RewardTree.recordOf(distributor.contextOf(epoch), accounts, amounts);
    }

    function _publish(bytes32 epoch, uint32 number, uint256 total) private {
        bytes32 record = _record(epoch);
        vm.prank(PUBLISHER);
        distributor.publish(epoch, number, record, uint32(accounts.length), total, "https://example.org/rewards");
    }

    function _published() private returns (bytes32 epoch) {
        epoch = _fund(_terms());
        training.train(federation, 1);
        _publish(epoch, 1, 900);
    }

    function _challenge(bytes32 epoch, address who, uint32 number) private {
        vm.prank(who);
        distributor.challenge(epoch, number, REASON);
    }

    /// @dev By nobody in particular, and without a call in between that a cheat code could take for this one.
    function _claim(bytes32 epoch, uint32 index) private {
        (bool success, bytes memory returned) = address(distributor).call(_claimCall(epoch, index));
        if (!success) {
            assembly {
                revert(add(returned, 32), mload(returned))
            }
        }
    }

    function _claimCall(bytes32 epoch, uint32 index) private view returns (bytes memory) {
        bytes32 context = PositionalTree.contextOf(block.chainid, address(distributor), epoch);
        bytes32[] memory proof = RewardTree.proofOf(context, accounts, amounts, index);
        return abi.encodeCall(
            RewardDistributor.claim, (epoch, index, accounts[index], amounts[index], RewardTree.saltOf(index), proof)
        );
    }

    function _refusedToClaim(
        bytes32 epoch,
        uint32 index,
        address account,
        uint256 amount,
        bytes16 salt,
        bytes32[] memory proof,
        bytes4 refusal
    ) private {
        try distributor.claim(epoch, index, account, amount, salt, proof) {
            assert(false);
        } catch (bytes memory returned) {
            assert(bytes4(returned) == refusal);
        }
    }
}
