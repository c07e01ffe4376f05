"""A round whose chain went away between the masked vectors and the result: signatures of the sites stand in, and the records queue.

The call that fixes the survivors is signed by a quorum and promised before any site is asked, and waits in the outbox: what is opened here
is what will stand on chain. A result is signed only when the survivors stand there, and the next round begins only after the result does.
Sites ask their own nodes whether the chain is away, so that this side's word opens nothing; and after the round's deadline, when the
registry would refuse the survivors, nothing is opened either.
"""

from datetime import datetime

import structlog
from sqlalchemy.orm import Session

from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Manifest
from rexis.protocol.secagg_messages import Stage
from rexis.secagg.consents import may_stand_in
from services.aggregator import attempts
from services.aggregator.attempts import Phase, Step
from services.aggregator.models import Attempt, Federation, OnchainRound
from services.aggregator.registry_calls import Calls, failure_of

log = structlog.get_logger(__name__)

# Stages without a new block after which a chain that answers counts as away; sites have a rule of their own.
AWAY_STAGES = 3


def standing_in(calls: Calls, federation: Federation, attempt: Attempt, instant: datetime) -> Step | None:
    """Ask the sites for their signatures, if the chain is away while it should fix the survivors."""
    config, due = FederationConfig.parse(federation.config), Manifest.parse(attempt.manifest).deadlines
    why = calls.silence.reason(config.stage_s, AWAY_STAGES)
    if why is None or not may_stand_in(config) or attempts.is_over(due.unmask, instant):
        return None
    return lambda: _ask(attempt, why)


def collecting(
    session: Session, calls: Calls, federation: Federation, attempt: Attempt, chain: OnchainRound | None, instant: datetime
) -> Step | None:
    """What is next while sites sign: the chain has the survivors after all, it refused them, or enough sites have signed."""
    if chain is not None and chain.survivors_hash is not None:
        return _compared(session, attempt, chain, Phase.UNMASK)
    if failure_of(session, attempt, "fixSurvivors") is not None:
        return lambda: attempts.enter(attempt, Phase.FIXING, tries=attempt.tries)
    config, due = FederationConfig.parse(federation.config), Manifest.parse(attempt.manifest).deadlines
    if attempts.is_over(due.unmask, instant) or not suffice(session, federation, attempt):
        return None
    waited = (instant - attempt.stage_since).total_seconds() >= config.stage_s / 2
    everybody = attempts.senders(session, attempt, Stage.SHARES) <= attempts.senders(session, attempt, Stage.SURVIVORS)
    return (lambda: _open(attempt)) if everybody or waited else None


def recording(session: Session, attempt: Attempt, chain: OnchainRound | None) -> Step | None:
    """What is next when the sum is open and the chain does not have its survivors yet."""
    if chain is not None and chain.survivors_hash is not None:
        return _compared(session, attempt, chain, Phase.FINALISING)
    failure = failure_of(session, attempt, "fixSurvivors")
    if failure is None:
        return None
    detail = (failure.error or {}).get("detail", "the call failed")
    reason = f"its sum was opened by signatures while the chain was away, and its survivors could not be recorded afterwards: {detail}"
    return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)


def suffice(session: Session, federation: Federation, attempt: Attempt) -> bool:
    """Whether enough sites have signed the survivors of an attempt."""
    signed = attempts.senders(session, attempt, Stage.SURVIVORS)
    return len(signed) >= FederationConfig.parse(federation.config).threshold


def leave_no_round(session: Session, federation: Federation, attempt: Attempt) -> bool:
    """Whether too few sites are left for another attempt: whoever gave shares in this one sends nothing in any other."""
    answered = attempts.senders(session, attempt, Stage.UNMASK)
    return len(federation.members) - len(answered) < FederationConfig.parse(federation.config).min_survivors


def _ask(attempt: Attempt, why: str) -> None:
    attempts.enter(attempt, Phase.SURVIVORS, tries=attempt.tries)
    numbers = {"round": attempt.round, "attempt": attempt.number}
    log.warning("the chain is away: sites are asked for their signatures", federation=attempt.federation_id, why=why, **numbers)


def _open(attempt: Attempt) -> None:
    attempts.enter(attempt, Phase.UNMASK, tries=attempt.tries)


def _compared(session: Session, attempt: Attempt, chain: OnchainRound, following: Phase) -> Step:
    if (chain.survivors_hash, chain.masked_record) != (attempt.survivors_hash, attempt.masked_record):
        reason = f"the chain fixed other survivors than this aggregator asked for: {chain.survivors_hash}"
        return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)
    return lambda: attempts.enter(attempt, following)
