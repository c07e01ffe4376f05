"""Signed calls that a service sends to the chain, so that institutions pay no gas (wire formats, section 6)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any, Self

from rexis.chain.calls import encode_call
from rexis.chain.deployments import Deployment
from rexis.chain.signer import Signer
from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.encoding import to_hex
from rexis.errors import ChainError, UnavailableError
from rexis.protocol.relayed_call import RelayedCall, random_nonce

DEFAULT_GAS = 500_000
# Long enough for a relay that has to wait for its chain, short enough that nobody sends what was forgotten.
CALL_LIFETIME = timedelta(hours=6)
ON_CHAIN = frozenset({"mined", "confirmed", "final"})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0


@dataclass(frozen=True)
class SignedCall:
    """A contract call, and its sender's signature for the Forwarder."""

    call: RelayedCall
    signature: bytes

    def to_json(self) -> dict[str, Any]:
        """The members `request` and `signature` of a body."""
        return {"request": self.call.to_json(), "signature": to_hex(self.signature)}


@dataclass(frozen=True)
class Relay:
    """A signed call on its way to the chain.

    Attributes:
        id: the service's id.
        state: queued, signed, submitted, mined, confirmed, final, or failed.
        transaction_hash: 32 bytes, once it was sent.
        token_id: of the data set that it registered, once the catalogue has it; at marketplaces only.
        error: why it failed, if it did.
    """

    id: str
    state: str
    transaction_hash: bytes | None
    token_id: int | None
    error: str | None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer."""
        fields = Fields("relay", value)
        return cls(
            id=fields.text("id"),
            state=fields.text("state"),
            transaction_hash=fields.optional_digest("transaction_hash"),
            token_id=fields.optional_integer("token_id"),
            error=fields.optional_text("error"),
        )


def sign_call(signer: Signer, deployment: Deployment, contract: str, function: str, *arguments: Any, gas: int = DEFAULT_GAS) -> SignedCall:
    """Sign a call for the deployment's Forwarder, with a nonce of its own.

    Args:
        contract, function: as the ABI names them.
        arguments: of the function; a struct as a dict by member names.
        gas: for the inner call.
    """
    call = RelayedCall(
        sender=signer.address,
        to=deployment.contracts[contract].address,
        gas=gas,
        nonce=random_nonce(),
        deadline=int((datetime.now(UTC) + CALL_LIFETIME).timestamp()),
        data=encode_call(contract, function, *arguments),
    )
    typed = call.typed_data(deployment.chain_id, deployment.contracts["Forwarder"].address)
    return SignedCall(call, signer.sign_typed_data(typed))


class RelayClient:
    """Hands signed calls to any service that relays them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def hand_in(self, signed: SignedCall) -> Relay:
        """Have a call sent; the same call again is the same relay.

        Raises:
            ServiceError: the service does not relay it, or the contract would refuse it: the problem has the decoded error.
        """
        return Relay.parse(self.connection.post("/v1/relays", signed.to_json(), repeatable=True))

    def relay(self, relay_id: str) -> Relay:
        """The state of a call that was handed in."""
        return Relay.parse(self.connection.get(f"/v1/relays/{relay_id}"))

    def wait_until_mined(self, relay_id: str, *, timeout_s: float = 60.0, on_state: Callable[[str], None] = lambda _state: None) -> Relay:
        """The relay once its transaction is on chain.

        Args:
            on_state: told each new state.

        Raises:
            ChainError: it failed; the message carries the reason.
            UnavailableError: it is not on chain in time; it goes on all the same.
        """
        deadline, pause, shown = monotonic() + timeout_s, FIRST_PAUSE_S, ""
        while True:
            relay = self.relay(relay_id)
            if relay.state != shown:
                shown = relay.state
                on_state(shown)
            if relay.state == "failed":
                raise ChainError(f"the call failed: {relay.error or 'the service gives no reason'}")
            if relay.state in ON_CHAIN:
                return relay
            if monotonic() > deadline:
                raise UnavailableError(f"call {relay_id} is still {relay.state} after {timeout_s:.0f} s; ask for it again later")
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
