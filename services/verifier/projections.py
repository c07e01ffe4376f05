"""What the chain tells the verifier: which owners vouch for which models, and which batches of receipts were committed."""

from sqlalchemy import delete
from sqlalchemy.orm import Session

from rexis.encoding import MAX_SAFE_INTEGER, checksum_address, to_hex
from services.foundation.chain_index import IndexedEvent
from services.verifier.models import CommittedBatch, VouchedModel


class VouchedModels:
    """Writes `vouched_model` from the events of the ModelRegistry."""

    contract = "ModelRegistry"
    tables = (VouchedModel,)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        if event.name not in ("ModelAuthorised", "ModelRevoked"):
            return
        model, owner = to_hex(event.arguments["model"]), checksum_address(event.arguments["owner"])
        found = session.get(VouchedModel, (model, owner))
        if found is None:
            found = VouchedModel(model=model, owner=owner)
            session.add(found)
        found.authorised = event.name == "ModelAuthorised"
        session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        session.execute(delete(VouchedModel))


class CommittedBatches:
    """Writes `committed_batch` from the events of the InferenceRegistry."""

    contract = "InferenceRegistry"
    tables = (CommittedBatch,)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        # Numbers beyond what JSON can hold are another operator's: none of ours gets there.
        if event.name != "BatchCommitted" or event.arguments["sequence"] > MAX_SAFE_INTEGER:
            return
        session.add(
            CommittedBatch(
                id=to_hex(event.arguments["batch"]),
                operator=checksum_address(event.arguments["operator"]),
                owner=checksum_address(event.arguments["owner"]),
                model=to_hex(event.arguments["model"]),
                sequence=event.arguments["sequence"],
                count=event.arguments["count"],
                record=to_hex(event.arguments["record"]),
                transaction_hash=event.transaction_hash,
                block_number=event.block_number,
                block_hash=event.block_hash,
            )
        )
        session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        session.execute(delete(CommittedBatch))
