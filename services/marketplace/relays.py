"""Signed calls that the marketplace sends for institutions, so that they pay no gas (wire formats, section 6).

The marketplace pays, so it refuses before it promises: a signature that is not the caller's, a contract or function it does not relay,
a deadline that would pass on the way, more gas than an honest call needs, and whatever the contracts would revert.
"""

import secrets
from datetime import datetime, timedelta

import requests
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.errors import ChainError, ContractRevertedError, MalformedMessageError, SignatureError, UnavailableError
from rexis.protocol.relayed_call import RelayedCall
from rexis.protocol.typed_data import verify_signer
from services.foundation.database import lock, now, transaction
from services.foundation.outbox.preflight import Call, gas_limit
from services.foundation.outbox.transactions import ChainIntent, enqueue_call
from services.foundation.problems import Problem, not_found
from services.foundation.sign_in import check_wallet_signature
from services.marketplace.models import CatalogueEntry, Relay

MIN_GAS, MAX_GAS = 50_000, 2_000_000
SHORTEST_DEADLINE, LONGEST_DEADLINE = timedelta(minutes=1), timedelta(hours=24)
# Signature check, nonce, event and the outer transaction itself; then the price of a byte of call data (EIP-7623).
FORWARDER_GAS = 150_000
GAS_PER_BYTE = 40
# The marketplace pays for each, so nobody may queue up more than a burst.
MAX_UNSETTLED = 32
ZERO_ADDRESS = "0x" + 40 * "0"


def check_call(call: RelayedCall, *, caller: str, target: str, instant: datetime) -> None:
    """Check everything about a call that needs neither the chain nor its signature.

    Args:
        caller: who is signed in; institutions hand in their own calls only.
        target: address of the one contract that this operation calls.
        instant: the present.

    Raises:
        SignatureError: the call is another account's.
        MalformedMessageError: another target, or gas or deadline out of bounds.
    """
    if call.sender != caller:
        raise SignatureError(f"call: expected one from the account that is signed in, {caller}, got one from {call.sender}")
    if call.to != target:
        raise MalformedMessageError(f"call: expected one to {target}, got one to {call.to}")
    if not MIN_GAS <= call.gas <= MAX_GAS:
        raise MalformedMessageError(f"call: expected gas of {MIN_GAS} to {MAX_GAS}, got {call.gas}")
    left = call.deadline - instant.timestamp()
    if not SHORTEST_DEADLINE.total_seconds() <= left <= LONGEST_DEADLINE.total_seconds():
        raise MalformedMessageError(
            f"call: expected a deadline {SHORTEST_DEADLINE} to {LONGEST_DEADLINE} from now, got {int(left)} s from now; "
            "sign again, or check this machine's clock"
        )


def check_signature(chain: Chain, call: RelayedCall, signature: bytes) -> None:
    """Check that the sender signed the call for this chain's forwarder: by its key, or as a contract account (ERC-1271).

    Raises:
        SignatureError: another account signed, or another request, chain or forwarder.
        UnavailableError: only the chain could tell, and it does not answer.
    """
    typed = call.typed_data(chain.deployment.chain_id, _forwarder(chain))
    try:
        verify_signer(typed, signature, call.sender)
    except SignatureError as refused:
        check_wallet_signature(chain.web3, call.sender, typed.hash(), signature, refused)


def is_known(engine: Engine, call: RelayedCall, signature: bytes) -> bool:
    """Whether exactly this signed call was taken on before."""
    key = _intent_key(call)
    with transaction(engine, read_only=True) as session:
        intent = session.scalar(select(ChainIntent).where(ChainIntent.key == key))
        return intent is not None and intent.data == _execute(call, signature)


def preflight(chain: Chain, call: RelayedCall, signature: bytes) -> None:
    """Run the call on the pending state without sending it; the forwarder checks the signature once more, also of a contract wallet.

    Raises:
        ContractRevertedError: the forwarder or the contract refuses it, with the decoded custom error.
        MalformedMessageError: it needs more gas than it was signed with.
        UnavailableError: the node does not answer.
    """
    data = _execute(call, signature)
    try:
        gas_limit(chain.web3, Call(sender=ZERO_ADDRESS, to=_forwarder(chain), data=data, gas=_outer_gas(call, data)))
    except requests.RequestException as error:
        raise UnavailableError(f"the chain does not answer ({type(error).__name__})") from error
    except ContractRevertedError:
        raise
    except ChainError as error:
        raise MalformedMessageError(f"call: {error}; sign it with more gas") from error


def promise(session: Session, chain: Chain, call: RelayedCall, signature: bytes, *, operation: str) -> Relay:
    """Take the call on: from this transaction on it is sent, whatever happens. The same call twice is one relay.

    Raises:
        UnexpectedMessageError: the sender used this nonce for another call.
        Problem: 429 if the sender would have more than `MAX_UNSETTLED` calls under way.
    """
    lock(session, f"relays of {call.sender}")
    key = _intent_key(call)
    data = _execute(call, signature)
    enqueue_call(session, key=key, to=_forwarder(chain), data=data, gas=_outer_gas(call, data), label=operation)
    relay = session.scalar(select(Relay).where(Relay.intent_key == key))
    if relay is None:
        _check_quota(session, call.sender)
        relay = Relay(id=secrets.token_hex(16), sender=call.sender, operation=operation, intent_key=key, created_at=now())
        session.add(relay)
        session.flush()
    return relay


def of_sender(session: Session, relay_id: str, sender: str) -> Relay:
    """A relay, for the institution that handed it in.

    Raises:
        Problem: 404.
    """
    relay = session.get(Relay, relay_id)
    if relay is None or relay.sender != sender:
        raise not_found("relay", relay_id)
    return relay


def progress(session: Session, relay: Relay) -> tuple[ChainIntent, int | None]:
    """How far a relay got, and the token id once the chain index has seen the data set that it registered."""
    intent = session.scalars(select(ChainIntent).where(ChainIntent.key == relay.intent_key)).one()
    token_id = None
    if intent.transaction_hash is not None:
        token_id = session.scalar(select(CatalogueEntry.token_id).where(CatalogueEntry.transaction_hash == intent.transaction_hash))
    return intent, token_id


def _check_quota(session: Session, sender: str) -> None:
    mine = select(func.count()).select_from(Relay).join(ChainIntent, ChainIntent.key == Relay.intent_key).where(Relay.sender == sender)
    if session.scalars(mine.where(ChainIntent.state.not_in(("final", "failed")))).one() >= MAX_UNSETTLED:
        detail = f"at most {MAX_UNSETTLED} calls of one account may be under way; wait until some of them are final"
        raise Problem(429, "relay-quota", "Too many calls are under way", detail, headers={"Retry-After": "10"})


def _forwarder(chain: Chain) -> str:
    return chain.deployment.contracts["Forwarder"].address


def _execute(call: RelayedCall, signature: bytes) -> bytes:
    request = {"from": call.sender, "to": call.to, "gas": call.gas, "nonce": call.nonce, "deadline": call.deadline, "data": call.data}
    return encode_call("Forwarder", "execute", request, signature)


def _outer_gas(call: RelayedCall, data: bytes) -> int:
    # EIP-150 hands on at most 63/64 of what is left.
    return call.gas + call.gas // 63 + FORWARDER_GAS + GAS_PER_BYTE * len(data)


def _intent_key(call: RelayedCall) -> str:
    return f"relay:{call.sender}:{call.nonce}"
