// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Escrow} from "../src/Escrow.sol";
import {InferenceRegistry} from "../src/InferenceRegistry.sol";
import {LocalCredit} from "../src/LocalCredit.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {PaymentTokens} from "../src/PaymentTokens.sol";
import {PositionalTree} from "../src/PositionalTree.sol";
import {vm} from "./Vm.sol";

/// @dev A model, an operator with a stake, and batches of one receipt each, whose leaf is the whole tree.
abstract contract InferenceStakeWorld {
    address internal constant OWNER = address(0xA11CE);
    address internal constant OPERATOR = address(0x0B);
    address internal constant ARBITER = address(0xAB);
    address internal constant CHALLENGER = address(0xC4);
    bytes32 internal constant MODEL = keccak256("model");
    uint96 internal constant BOND = 50 ether;
    /// @dev Of a challenger who was right: his own bond, and half of the batch's.
    uint256 internal constant REWARDED = uint256(BOND) + BOND / 2;

    ModelRegistry internal models;
    PaymentTokens internal tokens;
    LocalCredit internal credit;
    InferenceRegistry internal registry;

    function _found() internal {
        vm.warp(1_800_000_000);
        vm.chainId(31337);
        models = new ModelRegistry(address(0xF0));
        tokens = new PaymentTokens(address(this));
        credit = new LocalCredit();
        tokens.setAccepted(address(credit), true);
        registry = new InferenceRegistry(address(0xF0), models, tokens);
        vm.prank(OWNER);
        models.authorise(MODEL, keccak256("spec"), "");
    }

    function _fund(address who, uint256 amount) internal {
        credit.mint(who, amount);
        vm.prank(who);
        credit.approve(address(registry), type(uint256).max);
    }

    function _stake(address operator, uint128 amount, uint96 bond) internal {
        _fund(operator, amount);
        vm.prank(operator);
        registry.deposit(address(credit), amount, _noPermit());
        uint16 version = registry.termsCount(operator);
        vm.prank(operator);
        registry.setTerms(_terms(bond), version);
    }

    function _terms(uint96 bond) internal view returns (InferenceRegistry.Terms memory) {
        return InferenceRegistry.Terms(bond == 0 ? address(0) : address(credit), bond, bond == 0 ? address(0) : ARBITER);
    }

    function _leaf(uint64 sequence) internal pure returns (bytes32) {
        return keccak256(abi.encode("leaf", sequence));
    }

    function _commit(address operator, uint64 sequence) internal returns (bytes32) {
        bytes32 record = PositionalTree.record(keccak256("rexis/leaf/receipt/1"), 1, _leaf(sequence));
        vm.prank(operator);
        return registry.commit(OWNER, MODEL, sequence, record, 1);
    }

    function _challenge(address challenger, bytes32 batch, uint64 sequence) internal {
        vm.prank(challenger);
        registry.challenge(batch, 0, _leaf(sequence), new bytes32[](0), keccak256("wrong"), _noPermit());
    }

    function _noPermit() internal pure returns (Escrow.Permit memory permit) {}

    function _creditOf(address who) internal view returns (uint256) {
        return registry.creditOf(address(credit), who);
    }
}

contract InferenceStakeTest is InferenceStakeWorld {
    bytes32 private batch;

    function setUp() public {
        _found();
        _stake(OPERATOR, 3 * uint128(BOND), BOND);
        _fund(CHALLENGER, 10 * uint256(BOND));
        batch = _commit(OPERATOR, 1);
    }

    function test_a_bond_is_locked_with_the_batch_and_free_once_its_time_is_over() public {
        _assertStake(3 * BOND, BOND);
        assert(registry.get(batch).terms == 1 && registry.statusOf(batch) == InferenceRegistry.Status.Pending);
        uint48 until = 1_800_000_000 + registry.CHALLENGE_TIME();
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.DeadlineNotReached.selector, until, until));
        registry.finalise(batch);
        vm.warp(until + 1);
        // Final by time for whoever asks, though the bond waits to be freed.
        assert(registry.statusOf(batch) == InferenceRegistry.Status.Final);
        registry.finalise(batch);
        _assertStake(3 * BOND, 0);
        vm.expectRevert(_wrongStatus(InferenceRegistry.Status.Pending, InferenceRegistry.Status.Final));
        registry.finalise(batch);
        vm.expectRevert(_wrongStatus(InferenceRegistry.Status.Pending, InferenceRegistry.Status.Final));
        _challenge(CHALLENGER, batch, 1);
    }

    function test_what_is_locked_can_not_be_taken_out_and_the_rest_can() public {
        uint128 free = 2 * uint128(BOND);
        bytes memory tooSmall = abi.encodeWithSelector(
            InferenceRegistry.StakeTooSmall.selector, OPERATOR, address(credit), uint256(free) + 1, uint256(free)
        );
        vm.expectRevert(tooSmall);
        vm.prank(OPERATOR);
        registry.unstake(address(credit), free + 1);
        vm.prank(OPERATOR);
        registry.unstake(address(credit), free);
        _assertStake(BOND, BOND);
        assert(_creditOf(OPERATOR) == free);
        vm.expectRevert(
            abi.encodeWithSelector(InferenceRegistry.StakeTooSmall.selector, OPERATOR, address(credit), uint256(BOND), 0)
        );
        _commit(OPERATOR, 2);
        vm.prank(OPERATOR);
        registry.setTerms(_terms(0), 1);
        assert(registry.get(_commit(OPERATOR, 2)).terms == 0);
    }

    function test_silence_is_guilt_and_the_challenger_has_his_bond_and_half_of_the_other() public {
        _challenge(CHALLENGER, batch, 1);
        assert(registry.statusOf(batch) == InferenceRegistry.Status.Challenged);
        uint48 deadline = registry.challengeOf(batch, 0, CHALLENGER).deadline;
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.DeadlineNotReached.selector, deadline, deadline));
        registry.settle(batch, 0, CHALLENGER);
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.DeadlinePassed.selector, deadline, deadline + 1));
        _answer();
        registry.settle(batch, 0, CHALLENGER);
        assert(registry.statusOf(batch) == InferenceRegistry.Status.Rejected);
        assert(_outcome() == InferenceRegistry.Outcome.Upheld && _creditOf(CHALLENGER) == REWARDED);
        _assertStake(2 * BOND, 0);
        vm.expectRevert(_wrongOutcome(InferenceRegistry.Outcome.Open, InferenceRegistry.Outcome.Upheld));
        registry.settle(batch, 0, CHALLENGER);
    }

    function testFuzz_an_arbiter_judges_what_was_answered(bool upheld) public {
        _challenge(CHALLENGER, batch, 1);
        vm.expectRevert(_wrongOutcome(InferenceRegistry.Outcome.Answered, InferenceRegistry.Outcome.Open));
        _rule(ARBITER, upheld);
        _answer();
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.NotArbiterOfBatch.selector, batch, OPERATOR));
        _rule(OPERATOR, upheld);
        _rule(ARBITER, upheld);
        if (upheld) {
            assert(_creditOf(CHALLENGER) == REWARDED && _creditOf(OPERATOR) == 0);
            _assertStake(2 * BOND, 0);
        } else {
            assert(_creditOf(CHALLENGER) == 0 && _creditOf(OPERATOR) == BOND);
            _assertStake(3 * BOND, BOND);
            assert(registry.statusOf(batch) == InferenceRegistry.Status.Pending);
        }
    }

    function test_a_silent_arbiter_costs_nobody_anything() public {
        _challenge(CHALLENGER, batch, 1);
        _answer();
        vm.warp(registry.challengeOf(batch, 0, CHALLENGER).deadline + 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                InferenceRegistry.DeadlinePassed.selector, registry.challengeOf(batch, 0, CHALLENGER).deadline, block.timestamp
            )
        );
        _rule(ARBITER, true);
        vm.expectRevert(_wrongStatus(InferenceRegistry.Status.Pending, InferenceRegistry.Status.Challenged));
        registry.finalise(batch);
        registry.settle(batch, 0, CHALLENGER);
        assert(_outcome() == InferenceRegistry.Outcome.Undecided && _creditOf(CHALLENGER) == BOND);
        registry.finalise(batch);
        _assertStake(3 * BOND, 0);
    }

    function test_nobody_keeps_another_from_challenging_and_the_later_ones_are_refunded() public {
        address puppet = address(0x50C);
        _fund(puppet, BOND);
        _challenge(puppet, batch, 1);
        _challenge(CHALLENGER, batch, 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.ChallengeExists.selector, batch, 0, CHALLENGER));
        _challenge(CHALLENGER, batch, 1);
        // The operator answers his own puppet alone.
        vm.prank(OPERATOR);
        registry.answerChallenge(batch, 0, puppet, keccak256("answer"));
        vm.warp(registry.challengeOf(batch, 0, CHALLENGER).deadline + 1);
        registry.settle(batch, 0, CHALLENGER);
        registry.settle(batch, 0, puppet);
        assert(registry.challengeOf(batch, 0, puppet).outcome == InferenceRegistry.Outcome.Moot);
        assert(_creditOf(CHALLENGER) == REWARDED && _creditOf(puppet) == BOND && registry.get(batch).open == 0);
        assert(credit.balanceOf(address(registry)) == 2 * uint256(BOND) + 3 * uint256(BOND));
    }

    function test_an_operator_who_convicts_himself_under_another_name_loses_half_of_the_bond_for_good() public {
        address puppet = address(0x50C);
        _fund(puppet, BOND);
        _challenge(CHALLENGER, batch, 1);
        // He puts the arbiter's ruling off, and lets his puppet win in the meantime.
        _answer();
        _challenge(puppet, batch, 1);
        vm.warp(registry.challengeOf(batch, 0, puppet).deadline + 1);
        registry.settle(batch, 0, puppet);
        registry.settle(batch, 0, CHALLENGER);
        assert(_creditOf(puppet) == REWARDED && _creditOf(CHALLENGER) == BOND);
        _assertStake(2 * BOND, 0);
        assert(_creditOf(registry.BURNT()) == BOND / 2);
    }

    function test_a_challenge_needs_a_leaf_a_stake_and_time() public {
        bytes32 record = registry.get(batch).record;
        bytes32 got = PositionalTree.record(registry.RECEIPT_KIND(), 1, keccak256("other"));
        vm.expectRevert(abi.encodeWithSelector(PositionalTree.RecordMismatch.selector, record, got));
        vm.prank(CHALLENGER);
        registry.challenge(batch, 0, keccak256("other"), new bytes32[](0), keccak256("wrong"), _noPermit());
        vm.expectRevert(abi.encodeWithSelector(PositionalTree.LeafOutOfRange.selector, 1, 1));
        registry.challenge(batch, 1, _leaf(1), new bytes32[](0), keccak256("wrong"), _noPermit());
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.MissingReason.selector));
        registry.challenge(batch, 0, _leaf(1), new bytes32[](0), 0, _noPermit());
        vm.expectRevert(
            abi.encodeWithSelector(
                InferenceRegistry.WrongBatchStatus.selector,
                keccak256("none"),
                InferenceRegistry.Status.Pending,
                InferenceRegistry.Status.Absent
            )
        );
        _challenge(CHALLENGER, keccak256("none"), 1);

        bytes32 unstaked = _commit(address(0x0B2), 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.NothingStaked.selector, unstaked));
        _challenge(CHALLENGER, unstaked, 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                InferenceRegistry.WrongOutcome.selector,
                unstaked,
                0,
                CHALLENGER,
                InferenceRegistry.Outcome.Answered,
                InferenceRegistry.Outcome.Absent
            )
        );
        vm.prank(ARBITER);
        registry.rule(unstaked, 0, CHALLENGER, true, keccak256("reason"));

        uint48 until = 1_800_000_000 + registry.CHALLENGE_TIME();
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.DeadlinePassed.selector, until, until + 1));
        _challenge(CHALLENGER, batch, 1);
    }

    function testFuzz_later_terms_leave_earlier_batches_alone(uint96 bond) public {
        vm.prank(OPERATOR);
        registry.setTerms(_terms(bond), 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.TermsVersionMismatch.selector, 2, 1));
        vm.prank(OPERATOR);
        registry.setTerms(_terms(bond), 1);
        vm.warp(block.timestamp + registry.CHALLENGE_TIME() + 1);
        registry.finalise(batch);
        _assertStake(3 * BOND, 0);
    }

    function test_terms_are_whole_or_nothing() public {
        InferenceRegistry.Terms[4] memory wrong = [
            InferenceRegistry.Terms(address(credit), 0, address(0)),
            InferenceRegistry.Terms(address(0), 0, ARBITER),
            InferenceRegistry.Terms(address(credit), BOND, address(0)),
            InferenceRegistry.Terms(address(credit), BOND, OPERATOR)
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(InferenceRegistry.InvalidTerms.selector, wrong[i].token, wrong[i].bond, wrong[i].arbiter)
            );
            vm.prank(OPERATOR);
            registry.setTerms(wrong[i], 1);
        }
        vm.expectRevert(abi.encodeWithSelector(Escrow.TokenNotAccepted.selector, address(0xBAD)));
        vm.prank(OPERATOR);
        registry.setTerms(InferenceRegistry.Terms(address(0xBAD), BOND, ARBITER), 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.InvalidAmount.selector, 0));
        registry.deposit(address(credit), 0, _noPermit());
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.InvalidAmount.selector, 0));
        registry.unstake(address(credit), 0);
    }

    function test_only_the_operator_answers_and_nothing_goes_without_a_reason() public {
        _challenge(CHALLENGER, batch, 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.NotOperator.selector, batch, CHALLENGER));
        vm.prank(CHALLENGER);
        registry.answerChallenge(batch, 0, CHALLENGER, keccak256("answer"));
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.MissingReason.selector));
        registry.answerChallenge(batch, 0, CHALLENGER, 0);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.MissingReason.selector));
        registry.rule(batch, 0, CHALLENGER, true, 0);
    }

    function test_neither_a_revoked_model_nor_a_token_off_the_list_saves_a_batch() public {
        vm.prank(OWNER);
        models.revoke(MODEL, ModelRegistry.Reason.AuditFailed);
        tokens.setAccepted(address(credit), false);
        vm.expectRevert(abi.encodeWithSelector(Escrow.TokenNotAccepted.selector, address(credit)));
        vm.prank(OPERATOR);
        registry.deposit(address(credit), 1, _noPermit());
        _challenge(CHALLENGER, batch, 1);
        vm.warp(registry.challengeOf(batch, 0, CHALLENGER).deadline + 1);
        registry.settle(batch, 0, CHALLENGER);
        vm.prank(CHALLENGER);
        registry.withdraw(address(credit), CHALLENGER);
        assert(credit.balanceOf(CHALLENGER) == 9 * uint256(BOND) + REWARDED);
    }

    /// @dev Every last second is still in time, and the next one is not.
    function test_challenge_answer_and_ruling_are_in_time_until_the_last_second() public {
        uint256 until = uint256(registry.get(batch).committedAt) + registry.CHALLENGE_TIME();
        vm.warp(until);
        _challenge(CHALLENGER, batch, 1);
        vm.warp(registry.challengeOf(batch, 0, CHALLENGER).deadline);
        _answer();
        vm.warp(registry.challengeOf(batch, 0, CHALLENGER).deadline);
        _rule(ARBITER, false);
        assert(_outcome() == InferenceRegistry.Outcome.Dismissed);

        // The same story, a second too late each time.
        bytes32 other = this.commitAgain();
        until = block.timestamp + registry.CHALLENGE_TIME();
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.DeadlinePassed.selector, uint48(until), until + 1));
        this.challengeAgain(other);
        vm.warp(until);
        this.challengeAgain(other);
        uint48 answerUntil = registry.challengeOf(other, 0, CHALLENGER).deadline;
        vm.warp(uint256(answerUntil) + 1);
        vm.expectRevert(
            abi.encodeWithSelector(InferenceRegistry.DeadlinePassed.selector, answerUntil, uint256(answerUntil) + 1)
        );
        vm.prank(OPERATOR);
        registry.answerChallenge(other, 0, CHALLENGER, keccak256("answer"));
        vm.warp(answerUntil);
        vm.prank(OPERATOR);
        registry.answerChallenge(other, 0, CHALLENGER, keccak256("answer"));
        uint48 ruleUntil = registry.challengeOf(other, 0, CHALLENGER).deadline;
        vm.warp(uint256(ruleUntil) + 1);
        vm.expectRevert(abi.encodeWithSelector(InferenceRegistry.DeadlinePassed.selector, ruleUntil, uint256(ruleUntil) + 1));
        vm.prank(ARBITER);
        registry.rule(other, 0, CHALLENGER, true, keccak256("reason"));
        registry.settle(other, 0, CHALLENGER);
        assert(registry.challengeOf(other, 0, CHALLENGER).outcome == InferenceRegistry.Outcome.Undecided);
    }

    function commitAgain() external returns (bytes32) {
        return _commit(OPERATOR, 77);
    }

    function challengeAgain(bytes32 other) external {
        _challenge(CHALLENGER, other, 77);
    }

    function _answer() private {
        vm.prank(OPERATOR);
        registry.answerChallenge(batch, 0, CHALLENGER, keccak256("answer"));
    }

    function _rule(address who, bool upheld) private {
        vm.prank(who);
        registry.rule(batch, 0, CHALLENGER, upheld, keccak256("reason"));
    }

    function _outcome() private view returns (InferenceRegistry.Outcome) {
        return registry.challengeOf(batch, 0, CHALLENGER).outcome;
    }

    function _assertStake(uint256 total, uint256 locked) private view {
        InferenceRegistry.Stake memory stake = registry.stakeOf(OPERATOR, address(credit));
        assert(stake.total == total && stake.locked == locked);
    }

    function _wrongStatus(InferenceRegistry.Status expected, InferenceRegistry.Status got) private view returns (bytes memory) {
        return abi.encodeWithSelector(InferenceRegistry.WrongBatchStatus.selector, batch, expected, got);
    }

    function _wrongOutcome(InferenceRegistry.Outcome expected, InferenceRegistry.Outcome got)
        private
        view
        returns (bytes memory)
    {
        return abi.encodeWithSelector(InferenceRegistry.WrongOutcome.selector, batch, 0, CHALLENGER, expected, got);
    }
}
