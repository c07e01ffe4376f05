// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Forwarder, Request} from "../src/Forwarder.sol";
import {KeyDelegation} from "../src/KeyDelegation.sol";
import {ForwardedTarget} from "./ForwardedTarget.sol";
import {SignatureWallet} from "./SignatureWallet.sol";
import {vm} from "./Vm.sol";

/// @dev Institutions delegate and revoke; everybody signs for everybody. Beside it the handler keeps the plain story:
/// what each institution left standing for each key. The last institution is a contract wallet. Every relayed call is by some key for
/// some institution, and must go through if and only if the story says so.
contract DelegationHandler {
    uint256 public constant INSTITUTIONS = 2;
    uint256 public constant KEYS = 4;

    struct Story {
        uint256 bits;
        uint48 until;
        uint64 version;
    }

    Forwarder public immutable FORWARDER;
    KeyDelegation public immutable DELEGATIONS;
    ForwardedTarget public immutable TARGET;
    address private immutable _WALLET;

    mapping(uint256 institution => mapping(uint256 key => Story)) public story;
    mapping(uint256 institution => Request) private _late;
    mapping(uint256 institution => bytes) private _lateSignature;
    uint256 private _nonce;
    uint256 public calls;
    uint256 public attempts;
    uint256 public delegated;
    uint256 public changes;
    /// @dev Which key got a delegation last, and whose.
    uint256 private _from;
    uint256 private _to;
    address[KEYS] private _addresses;

    constructor() {
        for (uint256 key = 0; key < KEYS; ++key) {
            _addresses[key] = vm.addr(_key(key));
        }
        FORWARDER = new Forwarder(address(this));
        DELEGATIONS = FORWARDER.DELEGATIONS();
        TARGET = new ForwardedTarget(address(FORWARDER));
        FORWARDER.setTarget(address(TARGET), true);
        _WALLET = address(new SignatureWallet(_addresses[INSTITUTIONS - 1]));
    }

    /// @dev Which of the powers (note, refuse of TARGET; sign-in) is a bit each; the delegation is relayed, with the institution's key.
    function delegate(uint8 institution, uint8 agent, uint8 bits, uint32 term, uint8 stale) external {
        (uint256 from, uint256 to) = (institution % INSTITUTIONS, agent % KEYS);
        Story storage told = story[from][to];
        uint64 version = stale % 4 == 1 && told.version > 0 ? told.version - 1 : told.version;
        uint48 until = uint48(block.timestamp + 1 + term % 300 days);
        uint256 chosen = 1 + bits % 7 | (bits >> 7);
        bytes memory data = abi.encodeCall(KeyDelegation.delegate, (keyAddress(to), scopes(chosen), until, version));
        Request memory request = _request(from, address(DELEGATIONS), data);
        // Every other one arrives later, if at all.
        if (stale % 2 == 0 && stale % 3 == 0) {
            (_late[from], _lateSignature[from]) = (request, _sign(from, request));
            return;
        }
        try FORWARDER.execute(request, _sign(from, request)) {
            assert(version == told.version && keyAddress(to) != institutionAddress(from));
            story[from][to] = Story(chosen, until, version + 1);
            (_from, _to) = (from, to);
            ++changes;
        } catch {
            assert(version != told.version || keyAddress(to) == institutionAddress(from));
        }
    }

    /// @dev A delegation that was signed earlier arrives: it counts if nothing happened to that key since, and it is still to come.
    function arriveLate(uint8 institution) external {
        uint256 from = institution % INSTITUTIONS;
        Request memory request = _late[from];
        if (request.from == address(0)) return;
        (address agent, KeyDelegation.Scope[] memory listed, uint48 until, uint64 version) =
            abi.decode(_arguments(request.data), (address, KeyDelegation.Scope[], uint48, uint64));
        uint256 to = _keyOf(agent);
        bool fresh = version == story[from][to].version && until > block.timestamp && agent != institutionAddress(from)
            && !FORWARDER.nonceUsed(request.from, request.nonce);
        try FORWARDER.execute(request, _lateSignature[from]) {
            assert(fresh);
            story[from][to] = Story(_bits(listed), until, version + 1);
            ++changes;
        } catch {
            assert(!fresh);
        }
    }

    function revoke(uint8 institution, uint8 agent) external {
        (uint256 from, uint256 to) = (institution % INSTITUTIONS, agent % KEYS);
        Request memory request = _request(from, address(DELEGATIONS), abi.encodeCall(KeyDelegation.revoke, (keyAddress(to))));
        FORWARDER.execute(request, _sign(from, request));
        story[from][to] = Story(0, 0, story[from][to].version + 1);
    }

    /// @dev Any key signs a call for any institution; then the one that got a delegation last.
    function act(uint8 institution, uint8 signer, bool empty) external {
        _act(institution % INSTITUTIONS, signer % KEYS, empty);
        _act(_from, _to, false);
    }

    function _act(uint256 from, uint256 key, bool empty) private {
        // The institution's own key is one of them, and may do anything.
        bytes memory data = empty ? bytes("") : abi.encodeCall(ForwardedTarget.note, ());
        bool right = key == from || (!empty && _may(from, key, 0));
        Request memory request = _request(from, address(TARGET), data);
        ++attempts;
        try FORWARDER.execute(request, _sign(key, request)) {
            assert(right && TARGET.lastSender() == institutionAddress(from));
            ++calls;
            if (key != from) ++delegated;
        } catch (bytes memory why) {
            // The target has no function without a name: then its refusal comes through, not one about the signature.
            assert(!right || empty);
            if (!right) _assertReason(from, key, bytes4(why));
        }
    }

    /// @dev An agent tries to widen, prolong or pass on what it has, or to take it from another.
    function overreach(uint8 institution, uint8 signer, uint8 to, bool revoking) external {
        (uint256 from, uint256 key) = (institution % INSTITUTIONS, signer % KEYS);
        if (key == from) return;
        uint64 version = story[from][to % KEYS].version;
        bytes memory data = revoking
            ? abi.encodeCall(KeyDelegation.revoke, (keyAddress(to % KEYS)))
            : abi.encodeCall(
                KeyDelegation.delegate, (keyAddress(to % KEYS), scopes(7), uint48(block.timestamp + 700 days), version)
            );
        Request memory request = _request(from, address(DELEGATIONS), data);
        (bool success, bytes memory why) =
            address(FORWARDER).call(abi.encodeCall(Forwarder.execute, (request, _sign(key, request))));
        assert(!success);
        _assertReason(from, key, bytes4(why));
    }

    function wait_(uint32 time) external {
        vm.warp(block.timestamp + time % 10 days);
    }

    function institutionAddress(uint256 which) public view returns (address) {
        return which == INSTITUTIONS - 1 ? _WALLET : keyAddress(which);
    }

    function keyAddress(uint256 which) public view returns (address) {
        return _addresses[which];
    }

    /// @dev In the contract's order: the power off chain, then the target's functions by selector.
    function scopes(uint256 bits) public view returns (KeyDelegation.Scope[] memory listed) {
        uint256 count = (bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1);
        listed = new KeyDelegation.Scope[](count);
        uint256 next = 0;
        if (bits & 4 != 0) listed[next++] = scopeOf(2);
        uint256 smaller = ForwardedTarget.note.selector < ForwardedTarget.refuse.selector ? 0 : 1;
        if (bits >> smaller & 1 == 1) listed[next++] = scopeOf(smaller);
        if (bits >> (1 - smaller) & 1 == 1) listed[next++] = scopeOf(1 - smaller);
    }

    function scopeOf(uint256 power) public view returns (KeyDelegation.Scope memory) {
        if (power == 2) return KeyDelegation.Scope(address(0), bytes4(keccak256("rexis/scope/sign-in")));
        return
            KeyDelegation.Scope(address(TARGET), power == 0 ? ForwardedTarget.note.selector : ForwardedTarget.refuse.selector);
    }

    function _may(uint256 from, uint256 key, uint256 power) private view returns (bool) {
        Story storage told = story[from][key];
        return told.bits >> power & 1 == 1 && block.timestamp <= told.until;
    }

    function _assertReason(uint256 from, uint256 key, bytes4 why) private view {
        Story storage told = story[from][key];
        if (told.version == 0) {
            assert(
                why
                    == (from == INSTITUTIONS - 1
                            ? Forwarder.WalletRefusedSignature.selector
                            : Forwarder.SignerMismatch.selector)
            );
        } else if (told.until == 0) {
            assert(why == Forwarder.DelegationRevoked.selector);
        } else if (block.timestamp > told.until) {
            assert(why == Forwarder.DelegationExpired.selector);
        } else {
            assert(why == Forwarder.OutsideDelegation.selector || why == Forwarder.FunctionMissing.selector);
        }
    }

    function _bits(KeyDelegation.Scope[] memory listed) private view returns (uint256 bits) {
        for (uint256 power = 0; power < 3; ++power) {
            KeyDelegation.Scope memory scope = scopeOf(power);
            for (uint256 i = 0; i < listed.length; ++i) {
                if (listed[i].target == scope.target && listed[i].selector == scope.selector) bits |= 1 << power;
            }
        }
    }

    function _request(uint256 from, address to, bytes memory data) private returns (Request memory) {
        return Request(institutionAddress(from), to, 1_500_000, ++_nonce, type(uint48).max, data);
    }

    function _sign(uint256 key, Request memory request) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(_key(key), FORWARDER.hashRequest(request));
        return abi.encodePacked(r, s, v);
    }

    function _keyOf(address who) private view returns (uint256 key) {
        while (keyAddress(key) != who) ++key;
    }

    function _key(uint256 which) private pure returns (uint256) {
        return 0xD1CE + which;
    }

    function _arguments(bytes memory data) private pure returns (bytes memory arguments) {
        arguments = new bytes(data.length - 4);
        for (uint256 i = 0; i < arguments.length; ++i) {
            arguments[i] = data[i + 4];
        }
    }
}

contract KeyDelegationInvariantTest {
    DelegationHandler private handler;

    function setUp() public {
        vm.warp(1_800_000_000);
        handler = new DelegationHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev One institution after each act, in turn, because asking about everything takes most of the time; all of them at the end.
    function invariant_a_key_may_do_what_its_institution_left_standing() public view {
        _compare((handler.attempts() + handler.changes()) % handler.INSTITUTIONS());
        assert(handler.TARGET().calls() == handler.calls());
    }

    /// @dev A handler whose calls were mostly refused would prove little. (Replays of an old failure are short.)
    function afterInvariant() public view {
        for (uint256 from = 0; from < handler.INSTITUTIONS(); ++from) {
            _compare(from);
        }
        assert(handler.attempts() < 20 || (handler.delegated() + handler.changes() >= 4));
    }

    function _compare(uint256 from) private view {
        KeyDelegation delegations = handler.DELEGATIONS();
        address institution = handler.institutionAddress(from);
        address[] memory agents = delegations.agentsOf(institution);
        uint256 listed = 0;
        for (uint256 key = 0; key < handler.KEYS(); ++key) {
            address agent = handler.keyAddress(key);
            (uint256 bits, uint48 until, uint64 version) = handler.story(from, key);
            KeyDelegation.Delegation memory given = delegations.delegationOf(institution, agent);
            assert(given.version == version && given.until == until);
            assert(keccak256(abi.encode(given.scopes)) == keccak256(abi.encode(handler.scopes(bits))));
            for (uint256 power = 0; power < 3; ++power) {
                KeyDelegation.Scope memory scope = handler.scopeOf(power);
                bool covered = delegations.covers(institution, agent, scope.target, scope.selector);
                assert(covered == (bits >> power & 1 == 1 && block.timestamp <= until));
            }
            assert(_isListed(agents, agent) == (until != 0));
            if (until != 0) ++listed;
        }
        assert(agents.length == listed);
    }

    function _isListed(address[] memory agents, address agent) private pure returns (bool) {
        for (uint256 i = 0; i < agents.length; ++i) {
            if (agents[i] == agent) return true;
        }
        return false;
    }
}
