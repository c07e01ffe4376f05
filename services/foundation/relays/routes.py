"""Relays over HTTP, the same router in every service that sends calls for institutions."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rexis.chain.calls import decode_call
from rexis.chain.deployments import Deployment
from rexis.encoding import checksum_address, from_hex
from rexis.errors import MalformedMessageError
from rexis.protocol.relayed_call import RelayedCall
from services.foundation.assembly import ChainDep
from services.foundation.database import SessionDep
from services.foundation.outbox.transactions import ChainIntent
from services.foundation.relays.admission import admit
from services.foundation.relays.records import RelayedCallRow, intent_of, of_sender, promise
from services.foundation.sign_in import CallerDep

Address = Annotated[str, AfterValidator(checksum_address), Field(max_length=42, description="Ethereum address with its EIP-55 checksum")]
Decimal = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,77})$", description="a whole number of at most 256 bits")]
Signature = Annotated[
    str,
    Field(
        pattern="^0x([0-9a-f]{2})+$",
        max_length=2 + 2 * 4096,
        description="EIP-712 signature of request; longer than 65 bytes for ERC-1271 wallets",
    ),
]
RelayId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
RelayState = Literal["queued", "signed", "submitted", "mined", "confirmed", "final", "failed"]

SENDER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


class RelayedCallBody(BaseModel):
    """A call that the institution signed for the Forwarder (wire formats, section 6)."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    sender: Address = Field(alias="from")
    to: Address
    gas: Decimal
    nonce: Decimal
    deadline: Decimal = Field(description="Unix time in seconds")
    data: str = Field(pattern="^0x([0-9a-f]{2})*$", max_length=2 + 2 * 64 * 1024, description="call data of the contract's function")

    def call(self) -> RelayedCall:
        """The checked call.

        Raises:
            MalformedMessageError: a field out of range.
        """
        return RelayedCall.parse(self.model_dump(by_alias=True))


class SignedCallBody(BaseModel):
    """A signed call to be sent."""

    model_config = ConfigDict(extra="forbid")

    request: RelayedCallBody
    signature: Signature


class Revert(BaseModel):
    """A contract's custom error, decoded."""

    contract: str
    error: str
    arguments: dict[str, Any]


class RelayView(BaseModel):
    """A relayed call as its sender sees it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "5b0f6a0a4a0f4e0d8a3a8f6f0b1c2d3e",
                    "operation": "grant",
                    "sender": SENDER,
                    "state": "final",
                    "transaction_hash": "0x" + 64 * "a",
                    "block_number": 12,
                    "error": None,
                    "revert": None,
                    "created_at": "2026-11-20T09:30:00Z",
                    "state_since": "2026-11-20T09:30:05Z",
                }
            ]
        }
    )

    id: str
    operation: str
    sender: str
    state: RelayState = Field(
        description="queued → signed → submitted → mined → confirmed → final, or failed; the chain may undo mined, and rarely confirmed"
    )
    transaction_hash: str | None
    block_number: int | None
    error: str | None = Field(description="why it failed")
    revert: Revert | None = Field(description="why it failed, for programs")
    created_at: datetime
    state_since: datetime

    @classmethod
    def of(cls, relay: RelayedCallRow, intent: ChainIntent, **more: Any) -> Self:
        """The view of a relay and its outbox row."""
        return cls.model_validate(
            {
                "id": relay.id,
                "operation": relay.operation,
                "sender": relay.sender,
                "state": intent.state,
                "transaction_hash": intent.transaction_hash,
                "block_number": intent.block_number,
                "error": None if intent.error is None else intent.error["detail"],
                "revert": intent.error,
                "created_at": relay.created_at,
                "state_since": intent.state_since,
                **more,
            }
        )


def relay_router(doors: Mapping[str, Collection[str]]) -> APIRouter:
    """`POST /v1/relays` for calls to the contracts that are named, and of each to these functions.

    Args:
        doors: contract name → functions.
    """
    router = APIRouter(prefix="/v1/relays", tags=["relays"])

    @router.post("", status_code=202)
    def relay_call(body: SignedCallBody, caller: CallerDep, session: SessionDep, chain: ChainDep, request: Request) -> RelayView:
        """Have a signed call sent to the chain at this service's cost; handed in again it is the same relay.

        Open to any account that signed in, for calls that it signed itself. The call is run on the chain's pending state first: what
        the contracts would refuse is answered at once, as `contract-reverted` with the decoded error.
        """
        call, signature = body.request.call(), from_hex(body.signature)
        operation = _operation(chain.deployment, call, doors)
        admit(request.app.state.engine, chain, call, signature, caller=caller.address, target=call.to)
        relay = promise(session, chain, call, signature, operation=operation)
        return RelayView.of(relay, intent_of(session, relay))

    return router


def relay_progress_router() -> APIRouter:
    """`GET /v1/relays/{relay_id}`."""
    router = APIRouter(prefix="/v1/relays", tags=["relays"])

    @router.get("/{relay_id}")
    def get_relay(relay_id: RelayId, caller: CallerDep, session: SessionDep) -> RelayView:
        """How far a signed call got, and why it failed if it did. Open to the account that handed it in."""
        relay = of_sender(session, relay_id, caller.address)
        return RelayView.of(relay, intent_of(session, relay))

    return router


def _operation(deployment: Deployment, call: RelayedCall, doors: Mapping[str, Collection[str]]) -> str:
    for contract, functions in doors.items():
        if call.to == deployment.contracts[contract].address:
            function, _ = decode_call(contract, call.data)
            if function in functions:
                return function
            raise MalformedMessageError(f"call: expected {contract}.{' or .'.join(sorted(functions))}, got {contract}.{function}")
    expected = ", ".join(f"{contract} at {deployment.contracts[contract].address}" for contract in doors)
    raise MalformedMessageError(f"call: expected one to {expected}, got one to {call.to}")
