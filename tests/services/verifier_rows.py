"""A batch on chain as the verifier's tables have it, for tests that need its resources and no chain."""

from sqlalchemy import Engine, select

from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from services.foundation.database import transaction
from services.foundation.settings import LOCAL_CHAIN_ID
from services.verifier.batching import ReceiptBatches
from services.verifier.models import CommittedBatch, ReceiptBatch, VouchedModel


def commit_waiting(engine: Engine, model: str) -> str:
    """Batch the waiting receipts of `model` as the background process does, note what the chain would tell, and return the batch's id."""
    owner, operator = LocalSigner.generate().address, LocalSigner.generate().address
    with transaction(engine) as session:
        session.add(VouchedModel(model=model, owner=owner, authorised=True))
    assert ReceiptBatches(engine, operator, load(LOCAL_CHAIN_ID), receipts=1, seconds=60).run_once() == 1
    with transaction(engine) as session:
        batch = session.scalars(select(ReceiptBatch).where(ReceiptBatch.model == model)).one()
        same = {name: getattr(batch, name) for name in ("id", "operator", "owner", "model", "sequence", "count", "record")}
        hashes = {"transaction_hash": "0x" + 64 * "1", "block_hash": "0x" + 64 * "2"}
        session.add(CommittedBatch(**same, **hashes, block_number=2, terms=0, until=2_000_000_000))
        return batch.id
