"""Which signed calls a service sends for others.

The service pays, so it refuses before it promises: a signature that is not the caller's, a contract or function that it does not relay,
a deadline that would pass on the way, more gas than an honest call needs, and whatever the contracts would revert.
"""

from datetime import datetime, timedelta

import requests
from sqlalchemy import Engine, select

from rexis.chain.account_signatures import check_account_signature
from rexis.chain.calls import SELECTOR_BYTES
from rexis.chain.connection import Chain
from rexis.chain.delegations import Scope
from rexis.errors import ChainError, ContractRevertedError, MalformedMessageError, SignatureError, UnavailableError
from rexis.protocol.relayed_call import RelayedCall
from services.foundation.database import now, transaction
from services.foundation.outbox.policies import policy_of
from services.foundation.outbox.preflight import Call, gas_limit
from services.foundation.outbox.transactions import ChainIntent
from services.foundation.relays.records import execute_data, forwarder, intent_key, outer_gas

MIN_GAS, MAX_GAS = 50_000, 2_000_000
SHORTEST_DEADLINE, LONGEST_DEADLINE = timedelta(minutes=1), timedelta(hours=24)
ZERO_ADDRESS = "0x" + 40 * "0"


def admit(engine: Engine, chain: Chain, call: RelayedCall, signature: bytes, *, caller: str, target: str) -> None:
    """Check a call before it is promised; call it outside of a transaction, since a slow chain must not hold a lock on the database.

    Raises:
        see `check_call`, `check_signature` and `preflight`; a call that was promised before is not run again.
    """
    check_call(call, caller=caller, target=target, instant=now())
    check_signature(chain, call, signature)
    if not _is_known(engine, call, signature):
        preflight(chain, call, signature)


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
    """Check that the sender signed the call for this chain's forwarder: by its key, by one that it delegated this function to, or as a
    contract account (ERC-1271).

    Raises:
        SignatureError: another account signed, or another request, chain or forwarder; or the delegation does not cover the call.
        MalformedMessageError: the call names no function.
        UnavailableError: only the chain could tell, and it does not answer.
    """
    if len(call.data) < SELECTOR_BYTES:
        # The target would read the rest of the selector out of the sender's address, which stands behind the data.
        raise MalformedMessageError(f"call: expected data of at least {SELECTOR_BYTES} bytes, got {len(call.data)}")
    digest = call.typed_data(chain.deployment.chain_id, forwarder(chain)).hash()
    check_account_signature(chain, call.sender, digest, signature, Scope(call.to, call.data[:SELECTOR_BYTES]))


def preflight(chain: Chain, call: RelayedCall, signature: bytes) -> None:
    """Run the call on the pending state without sending it; the forwarder checks the signature once more.

    Raises:
        ContractRevertedError: the forwarder or the contract refuses it, with the decoded custom error.
        MalformedMessageError: it needs more gas than it was signed with.
        UnavailableError: the node does not answer.
    """
    data = execute_data(call, signature)
    gas = outer_gas(call, data) * policy_of(chain.deployment.chain_id).gas_allowance
    try:
        gas_limit(chain.web3, Call(sender=ZERO_ADDRESS, to=forwarder(chain), data=data, gas=gas))
    except requests.RequestException as error:
        raise UnavailableError(f"the chain does not answer ({type(error).__name__})") from error
    except ContractRevertedError:
        raise
    except ChainError as error:
        raise MalformedMessageError(f"call: {error}; sign it with more gas") from error


def _is_known(engine: Engine, call: RelayedCall, signature: bytes) -> bool:
    with transaction(engine, read_only=True) as session:
        intent = session.scalar(select(ChainIntent).where(ChainIntent.key == intent_key(call)))
        return intent is not None and intent.data == execute_data(call, signature)
