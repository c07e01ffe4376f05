"""From a prepared registration to a token in the catalogue.

Two tokens for one table are impossible whatever happens in between: the contract takes a content root once per registrant, and the
marketplace performs an `Idempotency-Key` once.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any, TypeVar

from rexis.agent.journal import Journal
from rexis.agent.metadata import document_hash
from rexis.agent.registration import Registration, advance
from rexis.chain.calls import encode_call
from rexis.chain.signer import Signer
from rexis.client.marketplace import CatalogueEntry, MarketplaceClient
from rexis.encoding import from_hex, to_hex
from rexis.errors import ChainError, ServiceError, UnavailableError, UnexpectedMessageError
from rexis.protocol.relayed_call import RelayedCall, random_nonce

# `register` with a 77-byte URI takes 282,000 gas when the registry's storage is cold.
REGISTER_GAS = 600_000
CALL_LIFETIME = timedelta(hours=1)
# A call this close to its deadline may arrive after it.
DEADLINE_MARGIN = timedelta(minutes=2)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
NOT_FOUND = 404
SIGNED_AGAIN = "signed again"

Key = TypeVar("Key")
Item = TypeVar("Item")


def submit(journal: Journal, registration: Registration, marketplace: MarketplaceClient, signer: Signer) -> Registration:
    """Bring a registration to stage submitted; one that is there, or further, stays as it is.

    Raises:
        ServiceError: the marketplace refuses it; the stage stays signed.
        UnavailableError: the marketplace does not answer; run again.
    """
    if registration.stage in ("prepared", "failed") or (registration.stage == "signed" and _is_late(registration)):
        registration = _sign(journal, registration, marketplace, signer)
    if registration.stage != "signed" or registration.request is None:
        return registration
    try:
        relay = marketplace.register_dataset(
            registration.metadata,
            registration.policy,
            RelayedCall.parse(registration.request["call"]),
            from_hex(registration.request["signature"]),
            idempotency_key=registration.request["idempotency_key"],
        )
    except ServiceError as error:
        token_id = _registered_already(error)
        if token_id is None:
            raise
        # An earlier call of ours arrived after all.
        return advance(journal, registration, "submitted", {"token_id": token_id}, token_id=token_id)
    return advance(journal, registration, "submitted", {"relay": relay.id}, relay=relay.id)


def settle(
    journal: Journal,
    registration: Registration,
    marketplace: MarketplaceClient,
    signer: Signer,
    *,
    timeout_s: float,
    on_state: Callable[[str], None] = lambda _state: None,
) -> CatalogueEntry:
    """Wait until the token is in the catalogue, and check that it is what was signed.

    A marketplace that has lost call and token (its chain or database was made anew) is given a newly signed call, once; if the token
    exists after all, the contract refuses the second call and names it.

    Args:
        journal, registration, marketplace, signer: as for `submit`, which came before.
        timeout_s: how long to wait; the journal remembers, so that a rerun goes on waiting.
        on_state: told each new state of the relay: queued, signed, submitted, mined, confirmed, final, then indexed; before them
            `SIGNED_AGAIN` if a new call had to be signed.

    Raises:
        ChainError: the relay failed; the message carries the reason, the stage becomes failed.
        UnavailableError: not in the catalogue in time.
        UnexpectedMessageError: the catalogue shows other hashes than those that were signed.
    """
    deadline, pause, shown, renewed = monotonic() + timeout_s, FIRST_PAUSE_S, "", False
    while True:
        relay = _found(marketplace.relay, registration.relay)
        token_id = relay.token_id if relay is not None and relay.token_id is not None else registration.token_id
        entry = _found(marketplace.dataset, token_id)
        if entry is not None and (entry.registrant, entry.content_root) == (registration.owner, registration.content_root):
            on_state("indexed")
            return _conclude(journal, registration, entry)
        if relay is None and (registration.stage == "registered" or token_id is None):
            if renewed:
                raise UnexpectedMessageError(f"the marketplace does not know call {registration.relay}, which it has just taken on")
            renewed = True
            on_state(SIGNED_AGAIN)
            registration = submit(journal, _sign(journal, registration, marketplace, signer), marketplace, signer)
            continue
        if entry is not None:
            raise UnexpectedMessageError(
                f"token {entry.token_id}: expected content root {to_hex(registration.content_root)} of {registration.owner}, "
                f"the catalogue shows {to_hex(entry.content_root)} of {entry.registrant}; ask the operator"
            )
        if relay is not None and relay.state != shown:
            shown = relay.state
            on_state(shown)
        if relay is not None and relay.state == "failed":
            reason = relay.error or "the marketplace gives no reason"
            registration = advance(journal, registration, "failed", {"reason": reason})
            if registration.stage == "failed":
                raise ChainError(f"the registration failed: {reason}")
            continue  # another process signed it anew since
        if monotonic() > deadline:
            raise UnavailableError(
                f"the data set is not in the catalogue after {timeout_s:.0f} s (the call is {shown or 'accepted'}); "
                "nothing is lost: run the same command again to go on waiting"
            )
        sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def _sign(journal: Journal, registration: Registration, marketplace: MarketplaceClient, signer: Signer) -> Registration:
    if signer.address != registration.owner:
        raise ValueError(f"expected the signer of {registration.owner}, got that of {signer.address}")
    metadata_hash = document_hash(registration.metadata)
    arguments: dict[str, Any] = {
        "contentRoot": registration.content_root,
        "policyHash": document_hash(registration.policy),
        "metadataHash": metadata_hash,
        "uri": marketplace.document_url(metadata_hash),
        "parents": [],
        "royaltyBps": 0,
    }
    call = RelayedCall(
        sender=registration.owner,
        to=registration.target.registry,
        gas=REGISTER_GAS,
        nonce=random_nonce(),
        deadline=int((datetime.now(UTC) + CALL_LIFETIME).timestamp()),
        data=encode_call("DatasetRegistry", "register", arguments),
    )
    typed = call.typed_data(registration.target.chain_id, registration.target.forwarder)
    # One key for one signed call: sent again it is the same request, and a newly signed one is another.
    request = {"call": call.to_json(), "signature": to_hex(signer.sign_typed_data(typed)), "idempotency_key": typed.hash().hex()}
    detail = {"digest": to_hex(typed.hash()), "deadline": call.deadline}
    return advance(journal, registration, "signed", detail, request=json.dumps(request), relay=None, token_id=None)


def _is_late(registration: Registration) -> bool:
    request = registration.request
    return request is None or int(request["call"]["deadline"]) < (datetime.now(UTC) + DEADLINE_MARGIN).timestamp()


def _registered_already(error: ServiceError) -> int | None:
    """The token id, if the contract refused the call because this registrant has registered this content."""
    arguments = error.problem.get("arguments")
    if error.problem.get("error") != "ContentAlreadyRegistered" or not isinstance(arguments, dict):
        return None
    token_id = arguments.get("id")
    return token_id if type(token_id) is int and token_id > 0 else None


def _found(fetch: Callable[[Key], Item], key: Key | None) -> Item | None:
    """What a service has under `key`; None without a key, or if there is no such thing."""
    if key is None:
        return None
    try:
        return fetch(key)
    except ServiceError as error:
        if error.status == NOT_FOUND:
            return None
        raise


def _conclude(journal: Journal, registration: Registration, entry: CatalogueEntry) -> CatalogueEntry:
    signed = (document_hash(registration.metadata), document_hash(registration.policy))
    if registration.stage != "registered" and (entry.metadata_hash, entry.policy_hash) != signed:
        raise UnexpectedMessageError(
            f"token {entry.token_id}: expected metadata {to_hex(signed[0])} and policy {to_hex(signed[1])} as signed, the catalogue shows "
            f"{to_hex(entry.metadata_hash)} and {to_hex(entry.policy_hash)}; compare with the chain and ask the operator"
        )
    if registration.stage != "registered":
        advance(
            journal,
            registration,
            "registered",
            {"token_id": entry.token_id, "transaction": to_hex(entry.transaction_hash), "block": entry.block_number},
            token_id=entry.token_id,
        )
    return entry
