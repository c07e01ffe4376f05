"""Which models their owners vouch for, as the events of the ModelRegistry tell it, also for models that were never uploaded here."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

from rexis.chain.model_registry import REASONS, REGISTRY
from rexis.encoding import checksum_address, to_hex
from services.foundation.chain_index import IndexedEvent
from services.trainer.models import RegisteredModel

AUTHORISED, REVOKED = "authorised", "revoked"


class AuthorisationProjection:
    """Writes `registered_model` from events, and from nothing else."""

    contract = REGISTRY
    tables = (RegisteredModel,)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        given: Mapping[str, Any] = event.arguments
        if event.name not in ("ModelAuthorised", "ModelRevoked"):
            return
        identity = (checksum_address(given["owner"]), to_hex(given["model"]))
        registered = session.get(RegisteredModel, identity)
        if registered is None:
            # An owner may revoke what he never authorised: then it never can be.
            registered = RegisteredModel(owner=identity[0], record=identity[1])
            session.add(registered)
        if event.name == "ModelAuthorised":
            registered.state = AUTHORISED
            registered.spec_digest, registered.uri = to_hex(given["specDigest"]), given["uri"]
        else:
            registered.state, registered.revocation = REVOKED, REASONS[given["reason"]]
        registered.transaction_hash, registered.block_number = event.transaction_hash, event.block_number
        session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        session.execute(delete(RegisteredModel))


def registration(session: Session, owner: str, record: str) -> RegisteredModel | None:
    """What the chain says of an owner's model; None if it says nothing."""
    return session.get(RegisteredModel, (owner, record))
