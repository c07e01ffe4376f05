"""Who leads a federation: the aggregator that opened its newest attempt on chain, and who is next when that one keeps silent.

The contract lets any aggregator open the next attempt, one at a time and by its number, so that two who try are one who leads.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.protocol.federation_config import FederationConfig
from services.aggregator import attempts
from services.aggregator.attempts import ENDED, Phase
from services.aggregator.models import Attempt, Federation, OnchainRound
from services.aggregator.registry_calls import Calls

# State of a federation that another aggregator leads.
WITNESSING = "witnessing"
# Where survivors were fixed late, the leader may still be opening their sum: giving that round up would close the federation.
OPENING_STAGES = 2


def newest(session: Session, federation_id: str) -> OnchainRound | None:
    """The newest attempt of a federation on chain."""
    query = select(OnchainRound).where(OnchainRound.federation_id == federation_id)
    return session.scalar(query.order_by(OnchainRound.round.desc(), OnchainRound.attempt.desc()).limit(1))


def turn(config: FederationConfig, last: OnchainRound, own: str) -> int | None:
    """How many aggregators, by address, come after the one that opened an attempt up to this one; None if it is not known who did."""
    if last.opened_by not in config.aggregators:
        return None
    order, count = config.aggregators, len(config.aggregators)
    return (order.index(own) - order.index(last.opened_by)) % count or count


def due_at(config: FederationConfig, last: OnchainRound, own: str) -> int | None:
    """From which second (Unix time) on this aggregator goes on in the place of the one that opened an attempt; None if unknown.

    The next ones wait a stage longer each, after the deadline up to which the leader itself could go on.
    """
    place = turn(config, last, own)
    if place is None or last.deadline is None:
        return None
    is_fixed = last.survivors_hash is not None and last.model is None
    return last.deadline + (place + (OPENING_STAGES if is_fixed else 0)) * config.stage_s


def taken_over_by(session: Session, calls: Calls, attempt: Attempt) -> str | None:
    """Who opened what stands on chain since an attempt of our own, or in its place; None while the lead is ours."""
    last = newest(session, attempt.federation_id)
    if last is None or last.opened_by is None or (last.round, last.attempt) < (attempt.round, attempt.number):
        return None
    return last.opened_by if last.opened_by != calls.signer.address else None


def hand_over(session: Session, federation: Federation, attempt: Attempt, leader: str) -> None:
    """Be a witness from now on."""
    if attempt.stage not in ENDED:
        attempts.end(session, attempt, Phase.ABORTED, f"{leader} has taken the lead over")
    federation.state, federation.reason, federation.leader = WITNESSING, None, leader


def may_have_been_taken_over(session: Session, calls: Calls, attempt: Attempt, instant: datetime) -> bool:
    """Whether an attempt that could not be opened may be another aggregator's, whose opening the index has not seen yet."""
    if attempt.finished_at is None or newest(session, attempt.federation_id) is None:
        return False
    return instant < attempt.finished_at + timedelta(seconds=attempts.opening_s(calls.registry))
