"""Delegated keys: what an institution lets another key sign, as scopes of the contract KeyDelegation, and whether that holds now.

A scope is one function of one contract, or a power off chain, which has a name instead of a contract. Nobody remembers an answer: a
delegation may be revoked at any time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from web3 import Web3
from web3.types import TxParams

from rexis.chain.artifacts import artifact
from rexis.chain.calls import decode_arguments, encode_call, selector
from rexis.chain.connection import NODE_FAILURES, Chain
from rexis.chain.contract_accounts import impatient
from rexis.chain.deployments import Deployment
from rexis.encoding import keccak256, to_hex
from rexis.errors import ConfigurationError, MalformedMessageError, SignatureError, UnavailableError

CONTRACT = "KeyDelegation"
MAX_SCOPES = 32
MAX_TERM = timedelta(days=730)
OFF_CHAIN = "0x" + 40 * "0"

SIGN_IN = "sign-in"
OFF_CHAIN_POWERS = (SIGN_IN,)
# What an institution's machines do day by day, by name. What is missing is for the institution's own key, such as passing a data set
# on; or it is named as Contract.function.
POWERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "registration": (("DatasetRegistry", "register"),),
    "datasets": tuple(("DatasetRegistry", function) for function in ("setPolicy", "setMetadata", "setState")),
    "grants": (("AccessManager", "grant"), ("AccessManager", "revoke")),
    "committee": (("AccessManager", "setCommittee"),),
    "models": (("ModelRegistry", "authorise"), ("ModelRegistry", "revoke")),
}
# In the order of the contract's enum.
ABSENT, REVOKED, EXPIRED, OUTSIDE_SCOPE, ACTIVE = range(5)


@dataclass(frozen=True, order=True)
class Scope:
    """One thing that a delegated key may sign.

    Attributes:
        target: checksum address of a contract; `OFF_CHAIN` for a power off chain.
        selector: of the function, or of the power's name, 4 bytes.
    """

    target: str
    selector: bytes

    @classmethod
    def of_function(cls, deployment: Deployment, contract: str, function: str) -> "Scope":
        """The scope of one function.

        Raises:
            ConfigurationError: no such contract on this chain, or no such function that changes state.
        """
        if contract not in deployment.contracts:
            raise ConfigurationError(f"chain {deployment.chain_id} has no contract {contract}; it has {', '.join(deployment.contracts)}")
        return cls(deployment.contracts[contract].address, _selector(contract, function))

    @classmethod
    def of_power(cls, name: str) -> "Scope":
        """The scope of a power off chain."""
        return cls(OFF_CHAIN, keccak256(f"rexis/scope/{name}".encode("ascii"))[:4])


@dataclass(frozen=True)
class Delegation:
    """What the chain holds about one institution and one key.

    Attributes:
        institution, agent: checksum addresses.
        since, until: when it was given, and its last second; None if none stands.
        version: changes so far, which the next one must name.
        scopes: in the contract's order.
    """

    institution: str
    agent: str
    since: datetime | None
    until: datetime | None
    version: int
    scopes: tuple[Scope, ...]

    @property
    def state(self) -> str:
        """absent, revoked, expired or active; by this machine's clock."""
        if self.until is None:
            return "revoked" if self.version else "absent"
        return "active" if datetime.now(UTC) <= self.until else "expired"


def scopes_of(deployment: Deployment, names: Iterable[str]) -> tuple[Scope, ...]:
    """Scopes by name, in the contract's order: of `POWERS`, `OFF_CHAIN_POWERS`, or `Contract.function`.

    Raises:
        ConfigurationError: an unknown name, one that can not be delegated, none, or more than `MAX_SCOPES`.
    """
    scopes: set[Scope] = set()
    for name in names:
        if name in OFF_CHAIN_POWERS:
            scopes.add(Scope.of_power(name))
        elif name in POWERS:
            scopes |= {Scope.of_function(deployment, *function) for function in POWERS[name]}
        else:
            contract, _, function = name.partition(".")
            if not function:
                known = ", ".join((*OFF_CHAIN_POWERS, *POWERS))
                raise ConfigurationError(f"expected powers among {known}, or Contract.function, got {name[:40]!r}")
            if contract == CONTRACT:
                raise ConfigurationError(f"{CONTRACT} can not be delegated: who may delegate could take any power")
            scopes.add(Scope.of_function(deployment, contract, function))
    if not 1 <= len(scopes) <= MAX_SCOPES:
        raise ConfigurationError(f"expected 1 to {MAX_SCOPES} functions and powers, got {len(scopes)}")
    # Addresses differ in case only by their checksum, which is no order.
    return tuple(sorted(scopes, key=lambda scope: (int(scope.target, 16), scope.selector)))


def scope_names(deployment: Deployment, scopes: Sequence[Scope]) -> list[str]:
    """What scopes are called here: `sign-in`, `Contract.function`, or address and selector of what this version does not know."""
    known = {Scope.of_power(name): name for name in OFF_CHAIN_POWERS}
    for contract, deployed in deployment.contracts.items():
        for entry in artifact(contract).abi:
            if entry["type"] == "function":
                known[Scope(deployed.address, selector(entry))] = f"{contract}.{entry['name']}"
    return [known.get(scope, f"{scope.target}.{to_hex(scope.selector)}") for scope in scopes]


def delegate_arguments(agent: str, scopes: Sequence[Scope], until: datetime, version: int) -> tuple[object, ...]:
    """Arguments of `KeyDelegation.delegate`, in its order."""
    listed = [{"target": scope.target, "selector": scope.selector} for scope in scopes]
    return agent, listed, int(until.timestamp()), version


def delegation_of(chain: Chain, institution: str, agent: str) -> Delegation:
    """What the chain holds about a key now.

    Raises:
        UnavailableError: the node does not answer.
    """
    given = _ask(chain.web3, chain.deployment, "delegationOf", institution, agent)
    stands = given["until"] != 0
    return Delegation(
        institution=institution,
        agent=agent,
        since=datetime.fromtimestamp(given["since"], UTC) if stands else None,
        until=datetime.fromtimestamp(given["until"], UTC) if stands else None,
        version=given["version"],
        scopes=tuple(Scope(each["target"], each["selector"]) for each in given["scopes"]),
    )


def agents_of(chain: Chain, institution: str) -> list[str]:
    """Checksum addresses of all keys whose delegation was not revoked, expired ones too.

    Raises:
        UnavailableError: the node does not answer.
    """
    return sorted(_ask(chain.web3, chain.deployment, "agentsOf", institution))


def check_covered(chain: Chain, institution: str, agent: str, scope: Scope, refused: SignatureError) -> None:
    """Ask the chain whether `agent` may sign for `institution` now.

    Args:
        chain: over HTTP; the question goes over a connection of its own, with a short timeout.
        refused: why the signature is not the institution's own; raised if it never delegated to this key.

    Raises:
        SignatureError: not delegated, revoked, expired, or not for this.
        UnavailableError: the node does not answer in time.
    """
    status = _ask(impatient(chain.web3), chain.deployment, "statusOf", institution, agent, scope.target, scope.selector)
    if status == ACTIVE:
        return
    if status == ABSENT:
        raise refused
    named = ", ".join(scope_names(chain.deployment, [scope]))
    why = {REVOKED: "was revoked", EXPIRED: "has expired"}.get(status, f"does not cover {named}")
    raise SignatureError(f"{agent} signed for {institution}, whose delegation to this key {why}")


def _selector(contract: str, function: str) -> bytes:
    changing = [
        entry for entry in artifact(contract).abi if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    ]
    found = [selector(entry) for entry in changing if entry["name"] == function]
    if len(found) != 1:
        raise ConfigurationError(f"{contract}: expected a function that changes state, got {function[:40]!r}")
    return found[0]


def _ask(web3: Web3, deployment: Deployment, function: str, *arguments: object) -> Any:
    """The one value that a view of the contract returns."""
    outputs = next(entry["outputs"] for entry in artifact(CONTRACT).abi if entry["type"] == "function" and entry["name"] == function)
    call: TxParams = {
        "to": Web3.to_checksum_address(deployment.contracts[CONTRACT].address),
        "data": Web3.to_hex(encode_call(CONTRACT, function, *arguments)),
    }
    try:
        answer = bytes(web3.eth.call(call))
        (value,) = decode_arguments(outputs, answer).values()
    except (*NODE_FAILURES, MalformedMessageError) as error:
        raise UnavailableError(
            f"the chain did not say which keys {arguments[0]} delegated to ({type(error).__name__}); try again"
        ) from error
    return value
