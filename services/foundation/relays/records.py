"""What a service took on to send. How far it got is in the outbox row with the key `intent_key`."""

import secrets
from datetime import datetime

from sqlalchemy import String, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.protocol.relayed_call import RelayedCall
from services.foundation.database import FoundationBase, Instant, lock, now
from services.foundation.outbox.transactions import ChainIntent, enqueue_call
from services.foundation.problems import Problem, not_found

# Signature check, nonce, event and the outer transaction itself; then the price of a byte of call data (EIP-7623).
FORWARDER_GAS = 150_000
GAS_PER_BYTE = 40
# The service pays for each, so nobody may queue up more than a burst.
MAX_UNSETTLED = 32


class RelayedCallRow(FoundationBase):
    """A signed call that this service took on to send."""

    __tablename__ = "relayed_call"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    sender: Mapped[str] = mapped_column(String(42), index=True)
    operation: Mapped[str] = mapped_column(String(32))
    intent_key: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime] = mapped_column(Instant)


def promise(session: Session, chain: Chain, call: RelayedCall, signature: bytes, *, operation: str) -> RelayedCallRow:
    """Take a call on that was admitted: from this transaction on it is sent, whatever happens. The same call twice is one relay.

    Raises:
        UnexpectedMessageError: the sender used this nonce for another call.
        Problem: 429 if the sender would have more than `MAX_UNSETTLED` calls under way.
    """
    lock(session, f"relays of {call.sender}")
    key, data = intent_key(call), execute_data(call, signature)
    enqueue_call(session, key=key, to=forwarder(chain), data=data, gas=outer_gas(call, data), label=operation)
    relay = session.scalar(select(RelayedCallRow).where(RelayedCallRow.intent_key == key))
    if relay is None:
        _check_quota(session, call.sender)
        relay = RelayedCallRow(id=secrets.token_hex(16), sender=call.sender, operation=operation, intent_key=key, created_at=now())
        session.add(relay)
        session.flush()
    return relay


def of_sender(session: Session, relay_id: str, sender: str) -> RelayedCallRow:
    """A relay, for the institution that handed it in.

    Raises:
        Problem: 404.
    """
    relay = session.get(RelayedCallRow, relay_id)
    if relay is None or relay.sender != sender:
        raise not_found("relay", relay_id)
    return relay


def intent_of(session: Session, relay: RelayedCallRow) -> ChainIntent:
    """The outbox row of a relay."""
    return session.scalars(select(ChainIntent).where(ChainIntent.key == relay.intent_key)).one()


def forwarder(chain: Chain) -> str:
    """Address of the chain's Forwarder."""
    return chain.deployment.contracts["Forwarder"].address


def execute_data(call: RelayedCall, signature: bytes) -> bytes:
    """Call data of `Forwarder.execute`."""
    request = {"from": call.sender, "to": call.to, "gas": call.gas, "nonce": call.nonce, "deadline": call.deadline, "data": call.data}
    return encode_call("Forwarder", "execute", request, signature)


def outer_gas(call: RelayedCall, data: bytes) -> int:
    """Gas of the transaction that executes the call."""
    # EIP-150 hands on at most 63/64 of what is left.
    return call.gas + call.gas // 63 + FORWARDER_GAS + GAS_PER_BYTE * len(data)


def intent_key(call: RelayedCall) -> str:
    """Key of the call's outbox row."""
    return f"relay:{call.sender}:{call.nonce}"


def _check_quota(session: Session, sender: str) -> None:
    mine = (
        select(func.count())
        .select_from(RelayedCallRow)
        .join(ChainIntent, ChainIntent.key == RelayedCallRow.intent_key)
        .where(RelayedCallRow.sender == sender)
    )
    if session.scalars(mine.where(ChainIntent.state.not_in(("final", "failed")))).one() >= MAX_UNSETTLED:
        detail = f"at most {MAX_UNSETTLED} calls of one account may be under way; wait until some of them are final"
        raise Problem(429, "relay-quota", "Too many calls are under way", detail, headers={"Retry-After": "10"})
