"""Batches as their readers see them: how far a receipt got, and the bundle that shows it on chain without this service."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.commitments import LeafKind, MerkleTree, Receipt
from rexis.encoding import from_hex
from rexis.protocol.receipt_bundle import BatchIdentity, CommittedIn, ReceiptBundle
from services.foundation.problems import conflict, not_found
from services.verifier.models import BatchChallenge, CommittedBatch, OperatorTerms, ReceiptBatch, StoredReceipt
from services.verifier.owners import lack_of_owner
from services.verifier.receipts import may_read, receipt_of
from services.verifier.stakes import Status, challenges_of, status_of, terms_of

State = Literal["waiting", "set-aside", "promised", "on-chain"]


@dataclass(frozen=True)
class Standing:
    """How far a receipt got.

    Attributes:
        state: waiting for a batch; set-aside, because no owner answers for its model; promised, in a batch that is on its way to the
            chain; or on-chain.
        reason: why it is not farther, where it depends on somebody else.
        receipt: with batch and index once the batch is on chain.
        batch: its batch, None until it has one.
        committed: where the chain holds the batch, None before it does.
        status: what became of the batch there, None before it is there.
    """

    state: State
    reason: str | None
    receipt: Receipt
    batch: ReceiptBatch | None = None
    committed: CommittedBatch | None = None
    status: Status | None = None


@dataclass(frozen=True)
class BatchStanding:
    """A batch; where the chain holds it and what became of it there, both None before it does; what is staked on it; its challenges."""

    batch: ReceiptBatch
    committed: CommittedBatch | None
    status: Status | None
    terms: OperatorTerms | None
    challenges: Sequence[BatchChallenge]


def standing(session: Session, stored: StoredReceipt) -> Standing:
    """How far a receipt got, by the newest that this service knows of the chain."""
    receipt = receipt_of(stored)
    if stored.batch is None:
        lack = lack_of_owner(session, stored)
        if stored.set_aside_at is None:
            return Standing("waiting", lack, receipt)
        return Standing("set-aside", f"{lack or 'the owner vouched too late'}; hand the receipt in again once that is settled", receipt)
    batch = session.get_one(ReceiptBatch, stored.batch)
    committed = committed_as(session, batch)
    if committed is None:
        return Standing("promised", None, receipt, batch)
    placed = replace(receipt, batch=from_hex(batch.id), index=stored.batch_index)
    return Standing("on-chain", None, placed, batch, committed, status_of(session, committed))


def committed_as(session: Session, batch: ReceiptBatch) -> CommittedBatch | None:
    """Where the chain holds this batch; None if it does not, or holds another one under its id."""
    found = session.get(CommittedBatch, batch.id)
    return found if found is not None and (found.record, found.count) == (batch.record, batch.count) else None


def readable(session: Session, batch_id: str, reader: str) -> BatchStanding:
    """A batch in which `reader` has a receipt, and what the chain tells of it.

    Raises:
        Problem: 404.
    """
    mine = select(StoredReceipt.digest).where(StoredReceipt.batch == batch_id, may_read(reader)).limit(1)
    if session.scalars(mine).first() is None:
        raise not_found("batch", batch_id)
    batch = session.get_one(ReceiptBatch, batch_id)
    committed = committed_as(session, batch)
    if committed is None:
        return BatchStanding(batch, None, None, None, ())
    return BatchStanding(batch, committed, status_of(session, committed), terms_of(session, committed), challenges_of(session, committed))


def bundle(session: Session, stored: StoredReceipt) -> ReceiptBundle:
    """What its holder needs to show the receipt to anyone.

    Raises:
        Problem: 409 if it is not in a batch on chain yet.
    """
    found = standing(session, stored)
    if found.batch is None or found.committed is None or found.receipt.index is None:
        raise conflict(
            "not-on-chain", f"receipt {stored.digest} is {found.state}: {found.reason or 'its batch is not on chain yet'}; ask later"
        )
    batch, committed = found.batch, found.committed
    identity = BatchIdentity(batch.chain_id, batch.contract, batch.operator, batch.owner, from_hex(batch.model), batch.sequence)
    members = session.scalars(select(StoredReceipt).where(StoredReceipt.batch == batch.id).order_by(StoredReceipt.batch_index)).all()
    tree = MerkleTree(LeafKind.RECEIPT, identity.context, [receipt_of(member).leaf() for member in members])
    return ReceiptBundle(
        receipt=found.receipt,
        batch=identity,
        count=batch.count,
        record=from_hex(batch.record),
        proof=tuple(tree.proof(found.receipt.index)),
        committed=CommittedIn(from_hex(committed.transaction_hash), committed.block_number, from_hex(committed.block_hash)),
    )
