// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";

/// @title Which keys may sign for an institution, what, and until when
/// @notice An institution's own key stays offline; its machines sign with keys that it delegates to. Each is good for the functions
/// that are named, and for nothing else. The Forwarder asks this contract about calls, services ask it about powers off chain.
/// @dev Signed calls arrive late and in any order. So a delegation names the number of the one that it replaces, and a revocation
/// needs none: it always succeeds and outdates every delegation that was signed before. A delegation is by one institution to one
/// key and never leads on: what an agent delegates concerns the agent. Nobody owns this contract.
contract KeyDelegation is ERC2771Context {
    enum Status {
        Absent,
        Revoked,
        Expired,
        OutsideScope,
        Active
    }

    /// @notice One function of one contract; with target 0, a power off chain: bytes4(keccak256("rexis/scope/<name>")).
    struct Scope {
        address target;
        bytes4 selector;
    }

    /// @param since When it was given; 0 if none stands.
    /// @param until Its last second.
    /// @param version Changes so far, revocations among them: what the next delegation must name.
    /// @param scopes Strictly ascending by target, then selector.
    struct Delegation {
        uint48 since;
        uint48 until;
        uint64 version;
        Scope[] scopes;
    }

    /// @param place One more than the agent's index in the list of its institution; 0 if it is not there.
    struct Stored {
        uint48 since;
        uint48 until;
        uint64 version;
        uint16 place;
        Scope[] scopes;
    }

    uint256 public constant MAX_SCOPES = 32;
    uint256 public constant MAX_AGENTS = 64;
    uint48 public constant MAX_TERM = 730 days;

    mapping(address institution => mapping(address agent => Stored)) private _delegations;
    mapping(address institution => address[]) private _agents;

    event KeyDelegated(address indexed institution, address indexed agent, uint64 version, uint48 until, Scope[] scopes);
    event KeyRevoked(address indexed institution, address indexed agent, uint64 version);

    error InvalidAgent(address agent);
    error ScopeCountOutOfBounds(uint256 length, uint256 limit);
    error ScopesNotAscending(uint256 index);
    /// @notice Whoever may delegate could give himself any power.
    error NotDelegable(address target);
    error UntilOutOfBounds(uint48 until, uint256 earliest, uint256 latest);
    error DelegationVersionMismatch(uint64 expected, uint64 got);
    error TooManyAgents(uint256 limit);

    constructor(address forwarder) ERC2771Context(forwarder) {}

    /// @notice Lets `agent` sign for the sender until `until` what `scopes` name, in place of what it was allowed before.
    /// @dev Keeps: a delegation ends within `MAX_TERM`, is bounded, and never includes delegating. Each change has its number, so a
    /// signed delegation takes effect at most once and never after a later one or a revocation.
    /// @param scopes 1 to `MAX_SCOPES`, strictly ascending by target, then selector.
    /// @param version Present value of `delegationOf(sender, agent).version`.
    function delegate(address agent, Scope[] calldata scopes, uint48 until, uint64 version) external {
        address institution = _msgSender();
        if (agent == address(0) || agent == institution) revert InvalidAgent(agent);
        if (scopes.length == 0 || scopes.length > MAX_SCOPES) revert ScopeCountOutOfBounds(scopes.length, MAX_SCOPES);
        if (until <= block.timestamp || until > block.timestamp + MAX_TERM) {
            revert UntilOutOfBounds(until, block.timestamp + 1, block.timestamp + MAX_TERM);
        }
        Stored storage current = _delegations[institution][agent];
        if (version != current.version) revert DelegationVersionMismatch(current.version, version);

        current.since = uint48(block.timestamp);
        current.until = until;
        current.version = ++version;
        delete current.scopes;
        for (uint256 i = 0; i < scopes.length; ++i) {
            if (scopes[i].target == address(this)) revert NotDelegable(scopes[i].target);
            if (i > 0 && _place(scopes[i].target, scopes[i].selector) <= _place(scopes[i - 1].target, scopes[i - 1].selector)) {
                revert ScopesNotAscending(i);
            }
            current.scopes.push(scopes[i]);
        }
        if (current.place == 0) {
            if (_agents[institution].length == MAX_AGENTS) revert TooManyAgents(MAX_AGENTS);
            _agents[institution].push(agent);
            current.place = uint16(_agents[institution].length);
        }
        emit KeyDelegated(institution, agent, version, until, scopes);
    }

    /// @notice Ends a delegation at once, and outdates every one that was signed before, also where none has arrived yet.
    /// @dev Keeps: nothing on chain stops an institution from revoking, whatever the state of the delegation is.
    function revoke(address agent) external {
        address institution = _msgSender();
        Stored storage current = _delegations[institution][agent];
        uint64 version = current.version + 1;
        if (current.place != 0) {
            address[] storage agents = _agents[institution];
            address last = agents[agents.length - 1];
            agents[current.place - 1] = last;
            _delegations[institution][last].place = current.place;
            agents.pop();
        }
        delete _delegations[institution][agent];
        current.version = version;
        emit KeyRevoked(institution, agent, version);
    }

    /// @notice Whether `agent` may sign for `institution` now: a call of this function of `target`, or with target 0 a power off chain.
    function covers(address institution, address agent, address target, bytes4 selector) external view returns (bool) {
        return statusOf(institution, agent, target, selector) == Status.Active;
    }

    /// @notice The delegation as it was given, all zero but `version` if there is none.
    function delegationOf(address institution, address agent) external view returns (Delegation memory) {
        Stored storage given = _delegations[institution][agent];
        return Delegation(given.since, given.until, given.version, given.scopes);
    }

    /// @notice Keys with a delegation that was not revoked, at most `MAX_AGENTS`, in no order; some may have expired.
    function agentsOf(address institution) external view returns (address[] memory) {
        return _agents[institution];
    }

    /// @notice What a key may do, or why not. Expiry comes before scope.
    function statusOf(address institution, address agent, address target, bytes4 selector) public view returns (Status) {
        Stored storage given = _delegations[institution][agent];
        if (given.until == 0) return given.version == 0 ? Status.Absent : Status.Revoked;
        if (block.timestamp > given.until) return Status.Expired;
        uint256 wanted = _place(target, selector);
        uint256 low = 0;
        uint256 high = given.scopes.length;
        while (low < high) {
            uint256 middle = (low + high) / 2;
            Scope storage scope = given.scopes[middle];
            uint256 place = _place(scope.target, scope.selector);
            if (place == wanted) return Status.Active;
            if (place < wanted) low = middle + 1;
            else high = middle;
        }
        return Status.OutsideScope;
    }

    /// @dev Target and selector as one number.
    function _place(address target, bytes4 selector) private pure returns (uint256) {
        return uint256(uint160(target)) << 32 | uint32(selector);
    }
}
