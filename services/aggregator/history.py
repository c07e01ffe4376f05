"""What rounds made: attempts that are over, with the transactions that anybody can look up.

Of those that another aggregator led this one has what the chain says, and metrics whose digest stands there.
"""

from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from rexis.encoding import canonical_json, sha256, to_hex
from services.aggregator.attempts import ENDED, Phase
from services.aggregator.models import Attempt, Federation, OnchainRound, RoundMetrics


def of_federation(session: Session, federation: Federation) -> list[dict[str, Any]]:
    """Attempts of a federation that are over, in their order, as `schemas.RoundView` shows them."""
    led = {(each.round, each.number): each for each in session.scalars(select(Attempt).where(Attempt.federation_id == federation.id))}
    query = select(OnchainRound).where(OnchainRound.federation_id == federation.id)
    known, shown = {(each.round, each.attempt): each for each in session.scalars(query)}, metrics(session, federation.id)
    records = []
    for key in sorted({*led, *known}):
        attempt, chain = led.get(key), known.get(key)
        if attempt is not None and (chain is None or chain.manifest_hash == attempt.manifest_digest):
            if attempt.stage in ENDED:
                records.append(_record(attempt, chain))
        elif chain is not None and (chain.finalised_transaction or chain.abandoned_transaction):
            records.append(_led_by_another(chain, shown.get(chain.round)))
    return records


def metrics(session: Session, federation_id: str) -> dict[int, dict[str, Any]]:
    """Metrics of final rounds by round, as far as they are known here."""
    same = and_(
        OnchainRound.federation_id == RoundMetrics.federation_id,
        OnchainRound.round == RoundMetrics.round,
        OnchainRound.metrics == RoundMetrics.digest,
    )
    others = select(RoundMetrics.round, RoundMetrics.document).join(OnchainRound, same).where(RoundMetrics.federation_id == federation_id)
    final = (Attempt.federation_id == federation_id, Attempt.stage == Phase.FINISHED.value)
    own = session.execute(select(Attempt.round, Attempt.metrics).where(*final)).all()
    return {number: document for number, document in [*session.execute(others), *own] if document is not None}


def keep_metrics(session: Session, federation_id: str, round_number: int, document: dict[str, Any]) -> None:
    """Keep metrics of a round that another aggregator led; again, it changes nothing."""
    digest = to_hex(sha256(canonical_json(document)))
    session.merge(RoundMetrics(federation_id=federation_id, round=round_number, digest=digest, document=document))


def _record(attempt: Attempt, chain: OnchainRound | None) -> dict[str, Any]:
    finished = attempt.stage == Phase.FINISHED
    fixed = chain is not None and chain.survivors_hash is not None
    return {
        "round": attempt.round,
        "attempt": attempt.number,
        "leader": None if chain is None else chain.opened_by,
        "state": attempt.stage,
        "reason": attempt.reason,
        "survivors": (attempt.survivors or []) if fixed else [],
        "base_model": attempt.base_model,
        "model": attempt.model if finished else None,
        "aggregate": attempt.aggregate if finished else None,
        "metrics": attempt.metrics if finished else None,
        "opened_at": attempt.opened_at,
        "finished_at": attempt.finished_at,
        "transactions": _transactions(chain),
    }


def _led_by_another(chain: OnchainRound, shown: dict[str, Any] | None) -> dict[str, Any]:
    finished = chain.model is not None
    return {
        "round": chain.round,
        "attempt": chain.attempt,
        "leader": chain.opened_by,
        "state": (Phase.FINISHED if finished else Phase.ABORTED).value,
        "reason": None if finished else f"it was led by {chain.opened_by}, and abandoned on chain",
        "survivors": chain.survivors or [],
        "base_model": chain.base_model,
        "model": chain.model,
        "aggregate": chain.aggregate,
        "metrics": shown if finished else None,
        "opened_at": None,
        "finished_at": None,
        "transactions": _transactions(chain),
    }


def _transactions(chain: OnchainRound | None) -> dict[str, str | None]:
    steps = ("opened", "fixed", "finalised", "abandoned")
    return {step: None if chain is None else getattr(chain, f"{step}_transaction") for step in steps}
