// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Escrow} from "../src/Escrow.sol";
import {LocalCredit} from "../src/LocalCredit.sol";
import {PaymentTokens} from "../src/PaymentTokens.sol";
import {EscrowHarness} from "./EscrowHarness.sol";
import {BlockingToken, CallingToken, FalseToken, FeeToken, MintableToken, SilentToken} from "./HostileTokens.sol";
import {vm} from "./Vm.sol";

contract EscrowTest {
    uint256 private constant KEY = 0xA11CE;
    address private constant OTHER = address(0xB0B);
    bytes32 private constant PERMIT_TYPEHASH =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    PaymentTokens private tokens;
    EscrowHarness private escrow;
    LocalCredit private credit;
    address private payer;

    function setUp() public {
        vm.warp(1_800_000_000);
        tokens = new PaymentTokens(address(this));
        escrow = new EscrowHarness(tokens);
        credit = new LocalCredit();
        tokens.setAccepted(address(credit), true);
        payer = vm.addr(KEY);
    }

    function testFuzz_what_comes_in_goes_out_once(uint256 amount, address to) public {
        vm.assume(to != address(0) && to != address(escrow) && to != payer);
        amount = 1 + amount % credit.MAX_MINT();
        _approved(MintableToken(address(credit)), amount);
        vm.prank(payer);
        escrow.bring(address(credit), amount, _none());
        assert(escrow.creditOf(address(credit), payer) == amount && credit.balanceOf(address(escrow)) == amount);

        vm.expectRevert(abi.encodeWithSelector(Escrow.NothingToWithdraw.selector, address(credit), to));
        vm.prank(to);
        escrow.withdraw(address(credit), to);
        vm.prank(payer);
        escrow.withdraw(address(credit), to);
        assert(credit.balanceOf(to) == amount && credit.balanceOf(address(escrow)) == 0);
        vm.expectRevert(abi.encodeWithSelector(Escrow.NothingToWithdraw.selector, address(credit), payer));
        vm.prank(payer);
        escrow.withdraw(address(credit), to);
    }

    function test_nothing_is_paid_into_the_void_or_the_escrow_itself() public {
        escrow.credit(address(credit), payer, 1);
        address[2] memory wrong = [address(0), address(escrow)];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(Escrow.InvalidReceiver.selector, wrong[i]));
            vm.prank(payer);
            escrow.withdraw(address(credit), wrong[i]);
        }
    }

    function test_a_token_off_the_list_is_not_taken_but_still_paid_out() public {
        _approved(MintableToken(address(credit)), 100);
        vm.prank(payer);
        escrow.bring(address(credit), 60, _none());
        tokens.setAccepted(address(credit), false);
        _refused(address(credit), 40, abi.encodeWithSelector(Escrow.TokenNotAccepted.selector, address(credit)));
        vm.prank(payer);
        escrow.withdraw(address(credit), OTHER);
        assert(credit.balanceOf(OTHER) == 60);
    }

    function testFuzz_a_token_that_keeps_a_part_never_gets_in(uint96 amount) public {
        FeeToken token = new FeeToken();
        amount = (1 + amount % 1e26) * 100;
        _listed(token, amount);
        _refused(
            address(token),
            amount,
            abi.encodeWithSelector(Escrow.AmountNotReceived.selector, address(token), amount, amount - amount / 100)
        );
        assert(token.balanceOf(payer) == amount && escrow.creditOf(address(token), payer) == 0);
    }

    function test_a_token_that_says_no_by_returning_false_is_believed() public {
        FalseToken token = new FalseToken();
        _listed(token, 100);
        bytes memory refusal = abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(token));
        _refused(address(token), 100, refusal);
        // A payment that failed leaves the credit.
        escrow.credit(address(token), payer, 100);
        vm.expectRevert(refusal);
        vm.prank(payer);
        escrow.withdraw(address(token), payer);
        assert(escrow.creditOf(address(token), payer) == 100);
    }

    function test_a_token_that_returns_nothing_is_taken_and_paid_out() public {
        SilentToken token = new SilentToken();
        tokens.setAccepted(address(token), true);
        token.mint(payer, 100);
        // Its fallback swallows the permit: what counts is the allowance.
        vm.expectRevert(abi.encodeWithSignature("Panic(uint256)", 0x11));
        vm.prank(payer);
        escrow.bring(address(token), 100, Escrow.Permit(block.timestamp, 27, bytes32(uint256(1)), bytes32(uint256(1))));
        vm.prank(payer);
        token.approve(address(escrow), 100);
        vm.prank(payer);
        escrow.bring(address(token), 100, _none());
        vm.prank(payer);
        escrow.withdraw(address(token), OTHER);
        assert(token.balanceOf(OTHER) == 100 && token.balanceOf(address(escrow)) == 0);
    }

    function test_an_account_that_a_token_blocks_is_paid_elsewhere_and_stops_nobody() public {
        BlockingToken token = new BlockingToken();
        _listed(token, 100);
        vm.prank(payer);
        escrow.bring(address(token), 100, _none());
        token.setBlocked(payer, true);
        vm.expectRevert(abi.encodeWithSelector(BlockingToken.Blocked.selector, payer));
        vm.prank(payer);
        escrow.withdraw(address(token), payer);
        vm.prank(payer);
        escrow.withdraw(address(token), OTHER);
        assert(token.balanceOf(OTHER) == 100);
    }

    function test_a_token_that_comes_back_during_a_withdrawal_is_paid_once() public {
        CallingToken token = new CallingToken();
        _listed(token, 100);
        vm.prank(payer);
        escrow.bring(address(token), 100, _none());
        escrow.credit(address(token), address(token), 50);
        bytes[] memory again = new bytes[](1);
        again[0] = abi.encodeCall(Escrow.withdraw, (address(token), OTHER));
        token.plan(address(escrow), again);
        vm.expectRevert(abi.encodeWithSelector(Escrow.NothingToWithdraw.selector, address(token), address(token)));
        token.act(address(escrow), again[0]);
        assert(token.balanceOf(address(escrow)) == 100 && escrow.creditOf(address(token), address(token)) == 50);
    }

    /// @dev Two payments at once, of which one is counted for both; a payment out of which comes what was paid in.
    function test_a_token_that_comes_back_during_a_payment_is_not_counted_twice() public {
        CallingToken token = new CallingToken();
        _listed(token, 100);
        vm.prank(payer);
        escrow.bring(address(token), 100, _none());
        token.mint(address(token), 200);
        token.act(address(token), abi.encodeWithSignature("approve(address,uint256)", address(escrow), 200));

        bytes memory bring = abi.encodeCall(EscrowHarness.bring, (address(token), 100, _none()));
        bytes[] memory calls = new bytes[](1);
        calls[0] = bring;
        token.plan(address(escrow), calls);
        vm.expectRevert(abi.encodeWithSelector(Escrow.AmountNotReceived.selector, address(token), 100, 200));
        token.act(address(escrow), bring);

        calls[0] = abi.encodeCall(Escrow.withdraw, (address(token), OTHER));
        token.plan(address(escrow), calls);
        // The credit of the payment is there before its money is; it is the balance that says no.
        vm.expectRevert(abi.encodeWithSelector(Escrow.AmountNotReceived.selector, address(token), 100, 0));
        token.act(address(escrow), bring);
        assert(token.planned() == 1 && token.balanceOf(address(escrow)) == 100 && token.balanceOf(OTHER) == 0);
    }

    function testFuzz_a_permit_pays_without_an_approval(uint256 amount, bool used) public {
        amount = 1 + amount % credit.MAX_MINT();
        credit.mint(payer, amount);
        Escrow.Permit memory permit = _permit(KEY, amount, block.timestamp);
        if (used) {
            // Somebody saw it on its way and was faster.
            vm.prank(OTHER);
            credit.permit(payer, address(escrow), amount, permit.deadline, permit.v, permit.r, permit.s);
        }
        vm.prank(payer);
        escrow.bring(address(credit), amount, permit);
        assert(escrow.creditOf(address(credit), payer) == amount && credit.nonces(payer) == 1);
    }

    function test_a_permit_of_somebody_else_or_too_late_pays_nothing() public {
        credit.mint(payer, 100);
        credit.mint(OTHER, 100);
        bytes memory refusal = abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(escrow), 0, 100);
        Escrow.Permit memory permit = _permit(KEY, 100, block.timestamp);
        vm.expectRevert(refusal);
        vm.prank(OTHER);
        escrow.bring(address(credit), 100, permit);
        permit = _permit(KEY, 100, block.timestamp - 1);
        vm.expectRevert(refusal);
        vm.prank(payer);
        escrow.bring(address(credit), 100, permit);
    }

    function test_the_list_has_contracts_and_one_owner_who_hands_it_over_in_two_steps() public {
        vm.expectRevert(abi.encodeWithSelector(PaymentTokens.NotAContract.selector, OTHER));
        tokens.setAccepted(OTHER, true);
        tokens.setAccepted(OTHER, false);
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, OTHER));
        vm.prank(OTHER);
        tokens.setAccepted(address(credit), false);
        tokens.transferOwnership(OTHER);
        assert(tokens.owner() == address(this));
        vm.prank(OTHER);
        tokens.acceptOwnership();
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(this)));
        tokens.setAccepted(address(credit), false);
        assert(tokens.isAccepted(address(credit)) && !tokens.isAccepted(OTHER));
    }

    function _permit(uint256 key, uint256 amount, uint256 deadline) private view returns (Escrow.Permit memory) {
        address owner = vm.addr(key);
        bytes32 message = keccak256(abi.encode(PERMIT_TYPEHASH, owner, address(escrow), amount, credit.nonces(owner), deadline));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(key, keccak256(abi.encodePacked(hex"1901", credit.DOMAIN_SEPARATOR(), message)));
        return Escrow.Permit(deadline, v, r, s);
    }

    function _none() private pure returns (Escrow.Permit memory) {
        return Escrow.Permit(0, 0, 0, 0);
    }

    function _listed(MintableToken token, uint256 amount) private {
        tokens.setAccepted(address(token), true);
        _approved(token, amount);
    }

    function _approved(MintableToken token, uint256 amount) private {
        token.mint(payer, amount);
        vm.prank(payer);
        token.approve(address(escrow), amount);
    }

    function _refused(address token, uint256 amount, bytes memory refusal) private {
        vm.expectRevert(refusal);
        vm.prank(payer);
        escrow.bring(token, amount, _none());
    }
}
