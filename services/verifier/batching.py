"""Waiting receipts become batches, and batches are committed on chain (wire formats, sections 2 and 3).

The id of a batch is in its leaves, so it is chosen first: one transaction numbers the batch, gives each receipt its place in it, and
promises the call to the outbox. From there on the batch is never changed. A process that is killed anywhere leaves either nothing or all
of that, and the outbox makes the call once. A call that the chain refuses for good frees its receipts for another batch.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Engine, Select, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from rexis.chain.calls import encode_call
from rexis.chain.deployments import Deployment
from rexis.commitments import LeafKind, MerkleTree
from rexis.encoding import from_hex, to_hex
from rexis.protocol.receipt_bundle import BatchIdentity
from services.foundation.chain_index import ChainBlock
from services.foundation.database import lock, now, transaction
from services.foundation.outbox.transactions import ChainIntent, enqueue_call
from services.verifier.batches import committed_as
from services.verifier.models import CommittedBatch, ReceiptBatch, StoredReceipt, VouchedModel
from services.verifier.owners import answers_for
from services.verifier.receipts import receipt_of
from services.verifier.stakes import lack_of_stake

log = structlog.get_logger(__name__)

REGISTRY = "InferenceRegistry"
# About 125,000 is used, and 30,000 more where a bond is locked.
COMMIT_GAS = 300_000
# A receipt for which no owner answers is set aside after this time.
PATIENCE = timedelta(hours=24)
# After a batch of an owner's model was given up, the next one is not made before this time.
PAUSE = timedelta(seconds=30)
# A call that is final must have left its event; the index may be behind for this time.
INDEX_LAG = timedelta(seconds=60)

WAITS = and_(StoredReceipt.batch.is_(None), StoredReceipt.set_aside_at.is_(None))


class ReceiptBatches:
    """The job that batches receipts. Any number of processes may run it on one database.

    Args:
        operator: account that the outbox signs with: it is part of every batch's id.
        deployment: names the chain and its registry.
        receipts: a batch is made once so many receipts of a model wait; it has no more.
        seconds: or once one has waited so long.
    """

    def __init__(self, engine: Engine, operator: str, deployment: Deployment, *, receipts: int, seconds: float) -> None:
        self.engine, self.operator = engine, operator
        self.chain_id, self.registry = deployment.chain_id, deployment.contracts[REGISTRY].address
        self.receipts, self.age = receipts, timedelta(seconds=seconds)
        self._lack: str | None = None

    def run_once(self) -> int:
        """One pass: settle, set aside, and at most one new batch for each model and owner. Returns the number of new batches."""
        with transaction(self.engine, read_only=True) as session:
            if not self._has_work(session):
                return 0
        with transaction(self.engine) as session:
            lock(session, "receipt batches")
            for batch, intent in session.execute(_open()).all():
                self._settle(session, batch, intent)
            session.execute(update(StoredReceipt).where(_hopeless()).values(set_aside_at=now()))
            due = session.execute(self._due()).all()
            return sum(self._promise(session, model, owner) for model, owner in due if self._has_stake(session))

    def _has_work(self, session: Session) -> bool:
        questions: Sequence[Select[*tuple[Any, ...]]] = (
            select(ReceiptBatch.id).where(ReceiptBatch.outcome.is_(None)),
            select(StoredReceipt.digest).where(_hopeless()),
            self._due(),
        )
        return any(session.execute(question.limit(1)).first() is not None for question in questions)

    def _has_stake(self, session: Session) -> bool:
        """Whether the contract takes another batch; a lack is logged once, and receipts wait meanwhile."""
        lack = lack_of_stake(session, self.operator)
        if lack is not None and self._lack is None:
            log.warning("receipts wait: the operator's stake is bound", operator=self.operator, reason=lack)
        self._lack = lack
        return lack is None

    # Waiting receipts.

    def _due(self) -> Select[str, str]:
        """Models and who answers for them, with receipts enough or old enough, and without a batch that was given up just now."""
        own = VouchedModel.model, VouchedModel.owner
        # An owner's failures hold up nobody else: anybody can become the owner of any record.
        failed = exists().where(
            ReceiptBatch.model == VouchedModel.model,
            ReceiptBatch.owner == VouchedModel.owner,
            ReceiptBatch.outcome == "given-up",
            ReceiptBatch.decided_at > now() - PAUSE,
        )
        enough = or_(func.count() >= self.receipts, func.min(StoredReceipt.waiting_since) <= now() - self.age)
        return select(*own).where(WAITS, answers_for(), ~failed).group_by(*own).having(enough).order_by(*own)

    def _promise(self, session: Session, model: str, owner: str) -> int:
        oldest = select(StoredReceipt).where(WAITS, answers_for(), VouchedModel.model == model, VouchedModel.owner == owner)
        order = (StoredReceipt.waiting_since, StoredReceipt.digest, StoredReceipt.issuer)
        rows = session.scalars(oldest.order_by(*order).limit(self.receipts)).all()
        if not rows:
            return 0
        identity = BatchIdentity(
            self.chain_id, self.registry, self.operator, owner, from_hex(model), self._next_number(session, owner, model)
        )
        tree = MerkleTree(LeafKind.RECEIPT, identity.context, [receipt_of(row).leaf() for row in rows])
        batch = to_hex(identity.id)
        key = f"receipt batch {batch}"
        session.add(
            ReceiptBatch(
                id=batch,
                chain_id=self.chain_id,
                contract=self.registry,
                operator=self.operator,
                owner=owner,
                model=model,
                sequence=identity.sequence,
                count=len(rows),
                record=to_hex(tree.record),
                intent_key=key,
                created_at=now(),
            )
        )
        session.flush()
        for index, row in enumerate(rows):
            row.batch, row.batch_index = batch, index
        data = encode_call(REGISTRY, "commit", owner, identity.model, identity.sequence, tree.record, len(rows))
        enqueue_call(session, key=key, to=self.registry, data=data, gas=COMMIT_GAS, label="commit receipts")
        log.info("receipts batched", batch=batch, receipts=len(rows), sequence=identity.sequence)
        return 1

    def _next_number(self, session: Session, owner: str, model: str) -> int:
        """One above all numbers used for this model, also by batches that only the chain remembers, of a database that was lost."""
        used = [
            session.scalar(select(func.max(table.sequence)).filter_by(operator=self.operator, owner=owner, model=model)) or 0
            for table in (ReceiptBatch, CommittedBatch)
        ]
        return max(used) + 1

    # Promised batches.

    def _settle(self, session: Session, batch: ReceiptBatch, intent: ChainIntent) -> None:
        if committed_as(session, batch) is not None:
            # It may have failed the second time, after a reorganisation: "BatchExists".
            if intent.state in ("final", "failed"):
                batch.outcome, batch.decided_at = "committed", now()
        elif intent.state == "failed":
            error = intent.error or {}
            # If the id is taken, by this very batch perhaps, the index tells by what: wait for it.
            if error.get("error") != "BatchExists" or session.get(CommittedBatch, batch.id) is not None:
                self._give_up(session, batch, str(error.get("detail", "the call to the chain failed")))
        elif intent.state == "final" and intent.state_since < now() - INDEX_LAG and self._indexed(session) >= (intent.block_number or 0):
            # The key was changed between promise and signature, so that the chain knows it as another batch.
            self._give_up(session, batch, f"the commitment was not sent by its operator {batch.operator}")

    def _give_up(self, session: Session, batch: ReceiptBatch, reason: str) -> None:
        log.warning("batch given up; its receipts wait for another one", batch=batch.id, reason=reason)
        batch.outcome, batch.reason, batch.decided_at = "given-up", reason, now()
        session.execute(update(StoredReceipt).where(StoredReceipt.batch == batch.id).values(batch=None, batch_index=None))

    def _indexed(self, session: Session) -> int:
        """The last block that the index has read."""
        return session.scalar(select(func.max(ChainBlock.number)).where(ChainBlock.chain_id == self.chain_id)) or 0


def _open() -> Select[ReceiptBatch, ChainIntent]:
    promised = select(ReceiptBatch, ChainIntent).join(ChainIntent, ChainIntent.key == ReceiptBatch.intent_key)
    return promised.where(ReceiptBatch.outcome.is_(None)).order_by(ReceiptBatch.created_at)


def _hopeless() -> ColumnElement[bool]:
    return and_(WAITS, StoredReceipt.waiting_since < now() - PATIENCE, ~exists().where(answers_for()))
