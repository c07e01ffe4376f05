"""Federations as the events of the FederationRegistry tell them, whichever aggregator they name."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

from rexis.encoding import checksum_address, to_hex
from services.aggregator.models import OnchainCommitment, OnchainFederation, OnchainRound
from services.foundation.chain_index import IndexedEvent

REGISTRY = "FederationRegistry"


class FederationProjection:
    """Writes `onchain_federation`, `onchain_round` and `onchain_commitment` from events, and from nothing else."""

    contract = REGISTRY
    tables = (OnchainCommitment, OnchainRound, OnchainFederation)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        given: Mapping[str, Any] = event.arguments
        match event.name:
            case "FederationCreated":
                session.add(
                    OnchainFederation(
                        id=to_hex(given["federation"]),
                        founder=checksum_address(given["founder"]),
                        config_hash=to_hex(given["configHash"]),
                        created_transaction=event.transaction_hash,
                    )
                )
            case "RoundOpened":
                session.add(
                    OnchainRound(
                        federation_id=to_hex(given["federation"]),
                        round=given["round"],
                        attempt=given["attempt"],
                        manifest_hash=to_hex(given["manifestHash"]),
                        base_model=to_hex(given["baseModel"]),
                        opened_transaction=event.transaction_hash,
                        opened_block=event.block_hash,
                        opened_by=checksum_address(given["openedBy"]),
                        deadline=given["deadline"],
                    )
                )
            case "UpdateCommitted":
                participant, commitment = checksum_address(given["participant"]), to_hex(given["commitment"])
                session.add(OnchainCommitment(ctx=to_hex(given["ctx"]), participant=participant, commitment=commitment))
            case "SurvivorsFixed":
                fixed = _round(session, given)
                fixed.survivors_hash, fixed.masked_record = to_hex(given["survivorsHash"]), to_hex(given["maskedRecord"])
                fixed.accumulator, fixed.fixed_transaction = to_hex(given["accumulator"]), event.transaction_hash
                fixed.survivors = [checksum_address(survivor) for survivor in given["survivors"]]
            case "RoundFinalised":
                finalised = _round(session, given)
                finalised.model, finalised.finalised_transaction = to_hex(given["model"]), event.transaction_hash
                finalised.aggregate, finalised.metrics = to_hex(given["aggregate"]), to_hex(given["metrics"])
            case "RoundAbandoned":
                _round(session, given).abandoned_transaction = event.transaction_hash
            case "FederationClosed":
                closed = session.get_one(OnchainFederation, to_hex(given["federation"]))
                closed.closed_by = checksum_address(given["closedBy"])
        # Later events of the same block look the row up.
        session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        for table in self.tables:
            session.execute(delete(table))


def _round(session: Session, given: Mapping[str, Any]) -> OnchainRound:
    return session.get_one(OnchainRound, (to_hex(given["federation"]), given["round"], given["attempt"]))
