// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Errors} from "@openzeppelin/contracts/utils/Errors.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Forwarder, Request} from "../src/Forwarder.sol";
import {KeyDelegation} from "../src/KeyDelegation.sol";
import {ForwardedTarget} from "./ForwardedTarget.sol";
import {SignatureWallet} from "./SignatureWallet.sol";
import {vm} from "./Vm.sol";

contract ForwarderTest {
    uint256 private constant KEY = 0xA11CE;
    uint256 private constant AGENT_KEY = 0xB0B;
    uint256 private constant CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    Forwarder private forwarder;
    ForwardedTarget private target;
    address private signer;

    function setUp() public {
        vm.warp(1_000_000);
        forwarder = new Forwarder(address(this));
        target = new ForwardedTarget(address(forwarder));
        forwarder.setTarget(address(target), true);
        signer = vm.addr(KEY);
    }

    /// @dev The vectors fix chain and address of a forwarder; its code is put there, and its domain follows.
    function test_digests_and_signatures_equal_the_vectors() public {
        string memory json = vm.readFile("../tests/vectors/relayed_call.json");
        assert(vm.parseJsonUint(json, ".chainId") == block.chainid);
        address place = vm.parseJsonAddress(json, ".forwarder");
        vm.etch(place, address(forwarder).code);
        uint256 checked = 0;
        for (; vm.keyExistsJson(json, _call(checked, "")); ++checked) {
            Request memory request = Request(
                vm.parseJsonAddress(json, _call(checked, ".request.from")),
                vm.parseJsonAddress(json, _call(checked, ".request.to")),
                vm.parseJsonUint(json, _call(checked, ".request.gas")),
                vm.parseJsonUint(json, _call(checked, ".request.nonce")),
                uint48(vm.parseJsonUint(json, _call(checked, ".request.deadline"))),
                vm.parseJsonBytes(json, _call(checked, ".request.data"))
            );
            bytes32 digest = Forwarder(place).hashRequest(request);
            assert(digest == vm.parseJsonBytes32(json, _call(checked, ".eip712.digest")));
            bytes memory signature = vm.parseJsonBytes(json, _call(checked, ".signature"));
            assert(ECDSA.recover(digest, signature) == request.from);
        }
        assert(checked > 0);
    }

    function testFuzz_the_target_sees_the_signer_whoever_sends(uint248 key, address sender, uint256 nonce) public {
        uint256 secret = 1 + uint256(key);
        Request memory request = _request(vm.addr(secret), nonce, abi.encodeCall(ForwardedTarget.note, ()));
        bytes memory signature = _sign(secret, request);
        vm.prank(sender);
        bytes memory result = forwarder.execute(request, signature);
        assert(abi.decode(result, (address)) == request.from);
        assert(target.lastSender() == request.from);
        assert(forwarder.nonceUsed(request.from, nonce));
    }

    function testFuzz_nonces_work_in_any_order_and_once(uint256[8] calldata nonces) public {
        for (uint256 i = 0; i < nonces.length; ++i) {
            bool used = false;
            for (uint256 j = 0; j < i; ++j) {
                used = used || nonces[j] == nonces[i];
            }
            assert(forwarder.nonceUsed(signer, nonces[i]) == used);
            Request memory request = _request(signer, nonces[i], abi.encodeCall(ForwardedTarget.note, ()));
            bytes memory signature = _sign(KEY, request);
            if (used) vm.expectRevert(abi.encodeWithSelector(Forwarder.NonceAlreadyUsed.selector, signer, nonces[i]));
            forwarder.execute(request, signature);
        }
    }

    function testFuzz_any_tampered_field_is_refused(uint8 field, uint256 change) public {
        Request memory request = _request(signer, 7, abi.encodeCall(ForwardedTarget.refuse, (1)));
        bytes memory signature = _sign(KEY, request);
        ForwardedTarget other = new ForwardedTarget(address(forwarder));
        forwarder.setTarget(address(other), true);
        change = 1 + change % 1_000_000;
        field = field % 6;
        if (field == 0) request.from = address(uint160(change));
        if (field == 1) request.to = address(other);
        if (field == 2) request.gas += change;
        if (field == 3) request.nonce += change;
        if (field == 4) request.deadline += uint48(change);
        if (field == 5) request.data = abi.encodeCall(ForwardedTarget.refuse, (1 + change));
        vm.assume(request.from.code.length == 0);
        address recovered =
            ecrecover(forwarder.hashRequest(request), uint8(signature[64]), _word(signature, 0), _word(signature, 1));
        assert(recovered != request.from);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.SignerMismatch.selector, request.from, recovered));
        forwarder.execute(request, signature);
    }

    function testFuzz_a_changed_signature_is_refused(uint256 bit) public {
        Request memory request = _request(signer, 7, abi.encodeCall(ForwardedTarget.note, ()));
        bytes memory signature = _sign(KEY, request);
        bit = bit % (65 * 8);
        signature[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        (bool success,) = address(forwarder).call(abi.encodeCall(Forwarder.execute, (request, signature)));
        assert(!success && target.calls() == 0 && !forwarder.nonceUsed(signer, 7));
    }

    function testFuzz_deadline(uint48 deadline, uint48 time) public {
        vm.warp(time);
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        request.deadline = deadline;
        bytes memory signature = _sign(KEY, request);
        if (time > deadline) vm.expectRevert(abi.encodeWithSelector(Forwarder.RequestExpired.selector, deadline, time));
        forwarder.execute(request, signature);
    }

    function test_another_chain_is_refused() public {
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        bytes memory signature = _sign(KEY, request);
        vm.chainId(block.chainid + 1);
        address recovered =
            ecrecover(forwarder.hashRequest(request), uint8(signature[64]), _word(signature, 0), _word(signature, 1));
        assert(recovered != signer);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.SignerMismatch.selector, signer, recovered));
        forwarder.execute(request, signature);
    }

    function test_another_forwarder_is_refused() public {
        Forwarder other = new Forwarder(address(this));
        ForwardedTarget otherTarget = new ForwardedTarget(address(other));
        other.setTarget(address(otherTarget), true);
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        request.to = address(otherTarget);
        bytes memory signature = _sign(KEY, request);
        assert(other.hashRequest(request) != forwarder.hashRequest(request));
        (bool success,) = address(other).call(abi.encodeCall(Forwarder.execute, (request, signature)));
        assert(!success && otherTarget.calls() == 0);
    }

    function test_a_high_s_signature_is_refused() public {
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY, forwarder.hashRequest(request));
        bytes32 high = bytes32(CURVE_ORDER - uint256(s));
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, high));
        forwarder.execute(request, abi.encodePacked(r, high, v == 27 ? uint8(28) : uint8(27)));
    }

    function testFuzz_a_signature_of_another_length_is_refused(bytes calldata signature) public {
        vm.assume(signature.length != 65);
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, signature.length));
        forwarder.execute(request, signature);
    }

    function test_the_zero_address_signs_nothing() public {
        Request memory request = _request(address(0), 1, abi.encodeCall(ForwardedTarget.note, ()));
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignature.selector));
        forwarder.execute(request, new bytes(65));
    }

    function test_a_refused_call_passes_its_error_on_and_keeps_the_nonce() public {
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.refuse, (42)));
        bytes memory signature = _sign(KEY, request);
        vm.expectRevert(abi.encodeWithSelector(ForwardedTarget.Refused.selector, 42));
        forwarder.execute(request, signature);
        assert(!forwarder.nonceUsed(signer, 1));
        forwarder.verify(request, signature);

        request = _request(signer, 2, abi.encodeCall(ForwardedTarget.refuseSilently, ()));
        signature = _sign(KEY, request);
        vm.expectRevert(abi.encodeWithSelector(Errors.FailedCall.selector));
        forwarder.execute(request, signature);
        assert(!forwarder.nonceUsed(signer, 2));
    }

    function test_a_target_that_comes_back_can_not_replay() public {
        Request memory inner = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        bytes memory call = abi.encodeCall(Forwarder.execute, (inner, _sign(KEY, inner)));
        Request memory outer = _request(signer, 2, abi.encodeCall(ForwardedTarget.reenter, (call)));
        bytes memory signature = _sign(KEY, outer);
        forwarder.execute(inner, _sign(KEY, inner));
        vm.expectRevert(abi.encodeWithSelector(Forwarder.NonceAlreadyUsed.selector, signer, 1));
        forwarder.execute(outer, signature);
        assert(target.calls() == 1);
    }

    function testFuzz_a_call_gets_the_gas_it_was_signed_for_or_none(uint32 sent) public {
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        bytes memory signature = _sign(KEY, request);
        (bool success,) =
            address(forwarder).call{gas: uint256(sent) % 500_000}(abi.encodeCall(Forwarder.execute, (request, signature)));
        assert(target.calls() == (success ? 1 : 0));
        assert(forwarder.nonceUsed(signer, 1) == success);
    }

    /// @dev Whatever a sender gives along: a target that is not warm yet costs the forwarder, never the call.
    function test_a_call_to_a_cold_target_starts_with_the_gas_it_was_signed_for() public {
        Request memory request = _request(signer, 0, abi.encodeCall(ForwardedTarget.gasGiven, ()));
        uint256 ran = 0;
        uint256 refused = 0;
        for (uint256 sent = 230_000; sent < 270_000; sent += 101) {
            request.nonce = sent;
            bytes memory signature = _sign(KEY, request);
            vm.cool(address(target));
            try forwarder.execute{gas: sent}(request, signature) returns (bytes memory result) {
                // The dispatch of the function costs a little.
                assert(abi.decode(result, (uint256)) + 500 > request.gas);
                ++ran;
            } catch {
                ++refused;
            }
        }
        assert(ran > 0 && refused > 0);
    }

    function test_too_little_gas_is_named() public {
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        request.gas = type(uint256).max;
        (bool success, bytes memory returned) =
            address(forwarder).call(abi.encodeCall(Forwarder.execute, (request, _sign(KEY, request))));
        assert(!success && bytes4(returned) == Forwarder.InsufficientGas.selector);
    }

    function test_a_contract_wallet_signs_until_its_key_is_replaced() public {
        SignatureWallet wallet = new SignatureWallet(signer);
        Request memory request = _request(address(wallet), 1, abi.encodeCall(ForwardedTarget.note, ()));
        forwarder.execute(request, _sign(KEY, request));
        assert(target.lastSender() == address(wallet));

        vm.prank(signer);
        wallet.replaceKey(address(1));
        request.nonce = 2;
        bytes memory signature = _sign(KEY, request);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.WalletRefusedSignature.selector, address(wallet)));
        forwarder.execute(request, signature);
    }

    function test_a_contract_that_is_no_wallet_signs_nothing() public {
        Request memory request = _request(address(target), 1, abi.encodeCall(ForwardedTarget.note, ()));
        bytes memory signature = _sign(KEY, request);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.WalletRefusedSignature.selector, address(target)));
        forwarder.execute(request, signature);
    }

    function test_a_key_whose_account_has_code_still_signs() public {
        vm.etch(signer, hex"ef01000000000000000000000000000000000000000001");
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        forwarder.execute(request, _sign(KEY, request));
        assert(target.lastSender() == signer);
    }

    function test_only_listed_targets_are_called() public {
        ForwardedTarget unlisted = new ForwardedTarget(address(forwarder));
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        request.to = address(unlisted);
        bytes memory signature = _sign(KEY, request);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.TargetNotAllowed.selector, address(unlisted)));
        forwarder.execute(request, signature);

        forwarder.setTarget(address(unlisted), true);
        forwarder.execute(request, signature);
        forwarder.setTarget(address(unlisted), false);
        request.nonce = 2;
        signature = _sign(KEY, request);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.TargetNotAllowed.selector, address(unlisted)));
        forwarder.execute(request, signature);
    }

    function test_only_trusting_contracts_become_targets_and_only_by_the_owner() public {
        vm.expectRevert(abi.encodeWithSelector(Forwarder.TargetDistrustsForwarder.selector, signer));
        forwarder.setTarget(signer, true);
        ForwardedTarget stranger = new ForwardedTarget(address(1));
        vm.expectRevert(abi.encodeWithSelector(Forwarder.TargetDistrustsForwarder.selector, address(stranger)));
        forwarder.setTarget(address(stranger), true);
        vm.prank(signer);
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, signer));
        forwarder.setTarget(address(target), false);
    }

    event RequestExecuted(address indexed from, address indexed to, address indexed signer, uint256 nonce, bytes4 selector);

    /// @dev What an agent signs and what its institution signs is the same request, told apart by the event.
    function testFuzz_a_delegated_key_signs_what_it_may(uint256 nonce, bool byAgent) public {
        _delegate(signer, address(target), ForwardedTarget.note.selector);
        Request memory request = _request(signer, nonce, abi.encodeCall(ForwardedTarget.note, ()));
        bytes memory signature = _sign(byAgent ? AGENT_KEY : KEY, request);
        address by = byAgent ? vm.addr(AGENT_KEY) : signer;
        vm.expectEmit(address(forwarder));
        emit RequestExecuted(signer, address(target), by, nonce, ForwardedTarget.note.selector);
        forwarder.execute(request, signature);
        assert(target.lastSender() == signer);

        // One nonce, whoever of the two signs.
        bytes memory again = _sign(byAgent ? KEY : AGENT_KEY, request);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.NonceAlreadyUsed.selector, signer, nonce));
        forwarder.execute(request, again);
        assert(!forwarder.nonceUsed(by == signer ? vm.addr(AGENT_KEY) : by, nonce));
    }

    /// @dev A leaked key sees the revocation on its way, and spends its nonce on a call that it may make. Nonces of calls about keys
    /// are therefore numbers of their own: no agent makes such a call.
    function testFuzz_an_agent_can_not_spend_the_nonce_of_its_revocation(uint256 nonce) public {
        _delegate(signer, address(target), ForwardedTarget.note.selector);
        KeyDelegation delegations = forwarder.DELEGATIONS();
        address agent = vm.addr(AGENT_KEY);
        Request memory revocation = _request(signer, nonce, abi.encodeCall(KeyDelegation.revoke, (agent)));
        revocation.to = address(delegations);
        bytes memory signature = _sign(KEY, revocation);
        Request memory first = _request(signer, nonce, abi.encodeCall(ForwardedTarget.note, ()));
        forwarder.execute(first, _sign(AGENT_KEY, first));
        assert(forwarder.nonceUsed(signer, nonce) && !forwarder.keyNonceUsed(signer, nonce));

        forwarder.execute(revocation, signature);
        assert(forwarder.keyNonceUsed(signer, nonce));
        assert(!delegations.covers(signer, agent, address(target), ForwardedTarget.note.selector));
        assert(delegations.delegationOf(signer, agent).version == 2);

        // Once, like every call.
        vm.expectRevert(abi.encodeWithSelector(Forwarder.NonceAlreadyUsed.selector, signer, nonce));
        forwarder.execute(revocation, signature);
    }

    function testFuzz_an_agent_signs_nothing_else(address to, bytes4 selector, bytes calldata rest) public {
        vm.assume(to != address(target) || selector != ForwardedTarget.refuse.selector);
        _delegate(signer, to, selector);
        Request memory request = _request(signer, 1, abi.encodePacked(ForwardedTarget.refuse.selector, rest));
        bytes memory signature = _sign(AGENT_KEY, request);
        vm.expectRevert(
            abi.encodeWithSelector(
                Forwarder.OutsideDelegation.selector,
                signer,
                vm.addr(AGENT_KEY),
                address(target),
                ForwardedTarget.refuse.selector
            )
        );
        forwarder.execute(request, signature);
    }

    /// @dev The target reads 4 bytes of what it is called with: data, then the sender. Where an institution's address begins like the
    /// rest of a selector, shorter data would call a function that no scope names.
    function testFuzz_an_agent_can_not_borrow_a_selector_from_the_address(uint8 length, uint128 tail) public {
        bytes4 selector = ForwardedTarget.note.selector;
        bytes memory data = new bytes(length % 4);
        for (uint256 i = 0; i < data.length; ++i) {
            data[i] = selector[i];
        }
        address institution = address(uint160(uint32(selector << (8 * data.length))) << 128 | tail);
        _delegate(institution, address(target), bytes4(data));
        Request memory request = _request(institution, 1, data);
        bytes memory signature = _sign(AGENT_KEY, request);
        vm.expectRevert(
            abi.encodeWithSelector(Forwarder.FunctionMissing.selector, institution, vm.addr(AGENT_KEY), data.length)
        );
        forwarder.execute(request, signature);
    }

    function testFuzz_a_delegation_ends(uint48 time) public {
        KeyDelegation delegations = forwarder.DELEGATIONS();
        uint48 until = uint48(block.timestamp + 100 days);
        _delegate(signer, address(target), ForwardedTarget.note.selector);
        vm.warp(uint256(time) % 200 days + 1_000_000);
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        request.deadline = type(uint48).max;
        bytes memory signature = _sign(AGENT_KEY, request);
        address agent = vm.addr(AGENT_KEY);
        if (block.timestamp > until) {
            vm.expectRevert(abi.encodeWithSelector(Forwarder.DelegationExpired.selector, signer, agent, until, block.timestamp));
        }
        forwarder.execute(request, signature);

        vm.prank(signer);
        delegations.revoke(agent);
        request.nonce = 2;
        signature = _sign(AGENT_KEY, request);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.DelegationRevoked.selector, signer, agent));
        forwarder.execute(request, signature);
    }

    function test_a_delegation_leads_one_step_and_one_way() public {
        uint256 third = 0xC0C;
        address agent = vm.addr(AGENT_KEY);
        _delegate(signer, address(target), ForwardedTarget.note.selector);
        KeyDelegation delegations = forwarder.DELEGATIONS();
        KeyDelegation.Scope[] memory scopes = new KeyDelegation.Scope[](1);
        scopes[0] = KeyDelegation.Scope(address(target), ForwardedTarget.note.selector);
        vm.prank(agent);
        delegations.delegate(vm.addr(third), scopes, uint48(block.timestamp + 1), 0);

        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        bytes memory signature = _sign(third, request);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.SignerMismatch.selector, signer, vm.addr(third)));
        forwarder.execute(request, signature);
        request = _request(agent, 1, abi.encodeCall(ForwardedTarget.note, ()));
        signature = _sign(KEY, request);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.SignerMismatch.selector, agent, signer));
        forwarder.execute(request, signature);
        // The agent is an institution too, for what is its own.
        forwarder.execute(request, _sign(third, request));
        assert(target.lastSender() == agent);
    }

    function test_an_agent_of_a_contract_wallet_signs_and_its_owner_goes_on() public {
        SignatureWallet wallet = new SignatureWallet(signer);
        _delegate(address(wallet), address(target), ForwardedTarget.note.selector);
        Request memory request = _request(address(wallet), 1, abi.encodeCall(ForwardedTarget.note, ()));
        forwarder.execute(request, _sign(AGENT_KEY, request));
        request.nonce = 2;
        forwarder.execute(request, _sign(KEY, request));
        assert(target.calls() == 2 && target.lastSender() == address(wallet));

        request = _request(address(wallet), 3, abi.encodeCall(ForwardedTarget.reenter, ("")));
        bytes memory signature = _sign(AGENT_KEY, request);
        address agent = vm.addr(AGENT_KEY);
        vm.expectRevert(
            abi.encodeWithSelector(
                Forwarder.OutsideDelegation.selector, wallet, agent, address(target), ForwardedTarget.reenter.selector
            )
        );
        forwarder.execute(request, signature);
        // An owner of the wallet that is its agent besides is no less an owner.
        vm.prank(signer);
        wallet.replaceKey(agent);
        request = _request(address(wallet), 4, abi.encodeCall(ForwardedTarget.refuse, (1)));
        signature = _sign(AGENT_KEY, request);
        vm.expectRevert(abi.encodeWithSelector(ForwardedTarget.Refused.selector, 1));
        forwarder.execute(request, signature);
    }

    function test_an_agent_of_an_account_with_code_and_key_signs() public {
        _delegate(signer, address(target), ForwardedTarget.note.selector);
        vm.etch(signer, hex"ef01000000000000000000000000000000000000000001");
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        forwarder.execute(request, _sign(AGENT_KEY, request));
        assert(target.lastSender() == signer);
    }

    function test_the_delegations_of_another_forwarder_count_for_nothing() public {
        Forwarder other = new Forwarder(address(this));
        KeyDelegation elsewhere = other.DELEGATIONS();
        KeyDelegation.Scope[] memory scopes = new KeyDelegation.Scope[](1);
        scopes[0] = KeyDelegation.Scope(address(target), ForwardedTarget.note.selector);
        vm.prank(signer);
        elsewhere.delegate(vm.addr(AGENT_KEY), scopes, uint48(block.timestamp + 1), 0);
        Request memory request = _request(signer, 1, abi.encodeCall(ForwardedTarget.note, ()));
        bytes memory signature = _sign(AGENT_KEY, request);
        vm.expectRevert(abi.encodeWithSelector(Forwarder.SignerMismatch.selector, signer, vm.addr(AGENT_KEY)));
        forwarder.execute(request, signature);
    }

    function test_the_delegations_stay_a_target() public {
        address delegations = address(forwarder.DELEGATIONS());
        assert(forwarder.isTarget(delegations) && KeyDelegation(delegations).isTrustedForwarder(address(forwarder)));
        vm.expectRevert(abi.encodeWithSelector(Forwarder.TargetNotRemovable.selector, delegations));
        forwarder.setTarget(delegations, false);
        forwarder.setTarget(delegations, true);
    }

    function _delegate(address institution, address to, bytes4 selector) private {
        KeyDelegation.Scope[] memory scopes = new KeyDelegation.Scope[](1);
        scopes[0] = KeyDelegation.Scope(to, selector);
        KeyDelegation delegations = forwarder.DELEGATIONS();
        vm.prank(institution);
        delegations.delegate(vm.addr(AGENT_KEY), scopes, uint48(block.timestamp + 100 days), 0);
    }

    function _call(uint256 index, string memory key) private pure returns (string memory) {
        return string.concat(".calls[", vm.toString(index), "]", key);
    }

    function _request(address from, uint256 nonce, bytes memory data) private view returns (Request memory) {
        return Request(from, address(target), 200_000, nonce, uint48(block.timestamp + 1 hours), data);
    }

    function _sign(uint256 key, Request memory request) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, forwarder.hashRequest(request));
        return abi.encodePacked(r, s, v);
    }

    function _word(bytes memory data, uint256 index) private pure returns (bytes32 word) {
        assembly {
            word := mload(add(data, add(32, mul(32, index))))
        }
    }
}
