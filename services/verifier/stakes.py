"""What is staked on batches of receipts, and what became of the batches, by the newest that this service knows of the chain."""

from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.foundation.database import now
from services.verifier.models import BatchChallenge, CommittedBatch, OperatorStake, OperatorTerms, ReceiptBatch

Status = Literal["pending", "challenged", "final", "rejected"]

# Of challenges that are not over.
UNDECIDED = ("open", "answered")


def status_of(session: Session, batch: CommittedBatch) -> Status:
    """What became of a batch, as the contract's `statusOf` says it; its time is told by this machine's clock."""
    if batch.outcome is not None:
        return "rejected" if batch.outcome == "rejected" else "final"
    contested = select(BatchChallenge.batch).where(BatchChallenge.batch == batch.id, BatchChallenge.outcome.in_(UNDECIDED)).limit(1)
    if session.scalars(contested).first() is not None:
        return "challenged"
    return "pending" if now().timestamp() <= batch.until else "final"


def terms_of(session: Session, batch: CommittedBatch) -> OperatorTerms | None:
    """What is staked on a batch, and who judges; None where nothing is."""
    return session.get(OperatorTerms, (batch.operator, batch.terms)) if batch.terms else None


def challenges_of(session: Session, batch: CommittedBatch) -> list[BatchChallenge]:
    """All challenges of a batch, by place in it."""
    order = BatchChallenge.index, BatchChallenge.challenger
    return list(session.scalars(select(BatchChallenge).where(BatchChallenge.batch == batch.id).order_by(*order)))


def lack_of_stake(session: Session, operator: str) -> str | None:
    """Why the contract would refuse another batch of this operator for want of stake; None if it would not.

    Batches that were promised and are not on chain yet count as if they were.
    """
    newest = select(OperatorTerms).where(OperatorTerms.operator == operator).order_by(OperatorTerms.number.desc()).limit(1)
    terms = session.scalars(newest).first()
    if terms is None or int(terms.bond) == 0:
        return None
    stake = session.get(OperatorStake, (operator, terms.token))
    total = int(stake.total) if stake is not None else 0
    bound = (
        select(OperatorTerms.bond)
        .join(CommittedBatch, (CommittedBatch.operator == OperatorTerms.operator) & (CommittedBatch.terms == OperatorTerms.number))
        .where(OperatorTerms.operator == operator, OperatorTerms.token == terms.token, CommittedBatch.outcome.is_(None))
    )
    promised = (
        select(ReceiptBatch.id)
        .outerjoin(CommittedBatch, CommittedBatch.id == ReceiptBatch.id)
        .where(ReceiptBatch.operator == operator, ReceiptBatch.outcome.is_(None), CommittedBatch.id.is_(None))
    )
    locked = sum(int(bond) for bond in session.scalars(bound)) + len(session.scalars(promised).all()) * int(terms.bond)
    if total - locked >= int(terms.bond):
        return None
    expected = f"expected free stake of {terms.bond} of {terms.token} for another batch"
    return f"{expected}, got {total - locked}: deposit, or wait until bonds are free"
