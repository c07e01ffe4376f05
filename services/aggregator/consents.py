"""A round whose chain went away between the masked vectors and the result: signatures of the sites stand in, and the records queue.

The call that fixes the survivors is signed by a quorum and promised before any site is asked, and waits in the outbox: what is opened here
is what will stand on chain. A result is signed only when the survivors stand there, and the next round begins only after the result does.
Sites ask their own nodes whether the chain is away, so that this side's word opens nothing. A chain that is back after the round's deadline
takes the survivors with the sites' signatures, unless somebody was quicker and abandoned the round there.
"""

from datetime import datetime

import structlog
from sqlalchemy.orm import Session

from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.secagg_messages import Stage
from rexis.secagg.consents import may_stand_in
from services.aggregator import approvals, attempts
from services.aggregator.attempts import Phase, Step
from services.aggregator.models import Attempt, Federation, OnchainRound
from services.aggregator.registry_calls import Calls, failure_of, is_promised

log = structlog.get_logger(__name__)

# Stages without a new block after which a chain that answers counts as away; sites have a rule of their own.
AWAY_STAGES = 3


def standing_in(calls: Calls, federation: Federation, attempt: Attempt) -> Step | None:
    """Ask the sites for their signatures, if the chain is away while it should fix the survivors."""
    config = FederationConfig.parse(federation.config)
    why = calls.silence.reason(config.stage_s, AWAY_STAGES)
    return (lambda: _ask(attempt, why)) if why is not None and may_stand_in(config) else None


def collecting(session: Session, federation: Federation, attempt: Attempt, chain: OnchainRound | None, instant: datetime) -> Step | None:
    """What is next while sites sign: the chain has the survivors after all, it refused them, or enough sites have signed."""
    if chain is not None and chain.survivors_hash is not None:
        return _compared(session, attempt, chain, Phase.UNMASK)
    if not suffice(session, federation, attempt):
        back = failure_of(session, attempt, "fixSurvivors") is not None
        return (lambda: attempts.enter(attempt, Phase.FIXING, tries=attempt.tries)) if back else None
    waited = (instant - attempt.stage_since).total_seconds() >= FederationConfig.parse(federation.config).stage_s / 2
    everybody = attempts.senders(session, attempt, Stage.SHARES) <= attempts.senders(session, attempt, Stage.SURVIVORS)
    return (lambda: _open(attempt)) if everybody or waited else None


def recording(session: Session, calls: Calls, federation: Federation, attempt: Attempt, chain: OnchainRound | None) -> Step | None:
    """What is next when enough sites have signed, and may have answered: the chain has the survivors, takes them late, or refuses them."""
    opened = attempt.stage == Phase.RECORDING
    if chain is not None and chain.survivors_hash is not None:
        return _compared(session, attempt, chain, Phase.FINALISING) if opened else None
    failure = failure_of(session, attempt, "fixSurvivors")
    if failure is None:
        return None
    if (failure.error or {}).get("error") == "SurvivorsTooLate":
        if not is_promised(session, attempt, "fixConsented"):
            return lambda: _record_late(session, calls, federation, attempt)
        failure = failure_of(session, attempt, "fixConsented")
    if failure is None or not opened:
        return None
    detail = (failure.error or {}).get("detail", "the call failed")
    reason = f"its sum was opened by signatures while the chain was away, and its survivors could not be recorded afterwards: {detail}"
    return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)


def suffice(session: Session, federation: Federation, attempt: Attempt) -> bool:
    """Whether enough sites have signed the survivors of an attempt, for each other (t) and for the registry (min_survivors, no fewer)."""
    signed = attempts.senders(session, attempt, Stage.SURVIVORS)
    return len(signed) >= FederationConfig.parse(federation.config).min_survivors


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


def _record_late(session: Session, calls: Calls, federation: Federation, attempt: Attempt) -> None:
    signed = attempts.messages_of(session, attempt, Stage.SURVIVORS)
    calls.fix_consented(session, attempt, approvals.granted(session, federation, approvals.survivors_statement(attempt)), signed)


def _compared(session: Session, attempt: Attempt, chain: OnchainRound, following: Phase) -> Step:
    if (chain.survivors_hash, chain.masked_record) != (attempt.survivors_hash, attempt.masked_record):
        reason = f"the chain fixed other survivors than this aggregator asked for: {chain.survivors_hash}"
        return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)
    return lambda: attempts.enter(attempt, following)
