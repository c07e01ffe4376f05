"""What rounds made: attempts that are over, with the transactions that anybody can look up."""

from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from services.aggregator.attempts import ENDED, Phase
from services.aggregator.models import Attempt, Federation, OnchainRound


def of_federation(session: Session, federation: Federation) -> list[dict[str, Any]]:
    """Attempts of a federation that are over, in their order, as `schemas.RoundView` shows them."""
    same = and_(
        OnchainRound.federation_id == Attempt.federation_id,
        OnchainRound.round == Attempt.round,
        OnchainRound.attempt == Attempt.number,
    )
    query = (
        select(Attempt, OnchainRound)
        .outerjoin(OnchainRound, same)
        .where(Attempt.federation_id == federation.id, Attempt.stage.in_([phase.value for phase in ENDED]))
        .order_by(Attempt.round, Attempt.number)
    )
    return [_record(attempt, chain) for attempt, chain in session.execute(query)]


def metrics(session: Session, federation: Federation) -> list[dict[str, Any]]:
    """Metrics of the rounds that are final, in their order."""
    final = (Attempt.federation_id == federation.id, Attempt.stage == Phase.FINISHED.value)
    return [found for found in session.scalars(select(Attempt.metrics).where(*final).order_by(Attempt.round)) if found is not None]


def _record(attempt: Attempt, chain: OnchainRound | None) -> dict[str, Any]:
    finished = attempt.stage == Phase.FINISHED
    fixed = chain is not None and chain.survivors_hash is not None
    return {
        "round": attempt.round,
        "attempt": attempt.number,
        "state": attempt.stage,
        "reason": attempt.reason,
        "survivors": (attempt.survivors or []) if fixed else [],
        "base_model": attempt.base_model,
        "model": attempt.model if finished else None,
        "aggregate": attempt.aggregate if finished else None,
        "metrics": attempt.metrics if finished else None,
        "opened_at": attempt.opened_at,
        "finished_at": attempt.finished_at,
        "transactions": {
            step: None if chain is None else getattr(chain, f"{step}_transaction") for step in ("opened", "fixed", "finalised", "abandoned")
        },
    }
