"""What is next in a federation: from its founding on chain to its last round, or to the reason why it failed."""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Manifest
from services.aggregator import attempts, consents, group_keys, history, leads, stages, stopping
from services.aggregator.attempts import MAX_ATTEMPTS, Phase
from services.aggregator.models import Attempt, Federation, OnchainFederation, OnchainRound
from services.aggregator.registry_calls import Calls, failure_of, is_promised
from services.aggregator.stages import Step, committed, detail_of, may_retry
from services.foundation.outbox.transactions import ChainIntent

ACTIVE = ("founding", "inviting", "running")
INVITATION = timedelta(days=7)


def next_step(session: Session, calls: Calls, federation: Federation, instant: datetime) -> Step | None:
    """The step that is due, or None; see `stages.next_step` for how it is run."""
    chain = session.get(OnchainFederation, federation.id)
    if federation.state == "founding":
        return _founding(session, federation, chain)
    attempt = attempts.latest(session, federation)
    if chain is not None and chain.closed_by is not None:
        return lambda: _close(session, federation, attempt, chain)
    if federation.state == "inviting":
        return _inviting(session, calls, federation, instant)
    if federation.state != "running" or attempt is None:
        return None
    other = leads.taken_over_by(session, calls, attempt)
    if other is not None:
        # What the chain says of our own attempt comes first, if it stands there at all.
        own = attempts.onchain(session, attempt)
        goes_on = attempt.stage not in attempts.ENDED and own is not None and own.manifest_hash == attempt.manifest_digest
        step = stages.next_step(session, calls, federation, attempt, instant) if goes_on else None
        return step or (lambda: leads.hand_over(session, federation, attempt, other))
    if attempt.stage == Phase.FINISHED:
        return lambda: _go_on(session, calls, federation, attempt)
    if attempt.stage == Phase.ABORTED:
        return _aborted(session, calls, federation, attempt, instant)
    return stages.next_step(session, calls, federation, attempt, instant)


def _founding(session: Session, federation: Federation, chain: OnchainFederation | None) -> Step | None:
    if chain is not None:
        return lambda: _enter(federation, "inviting")
    call = session.scalar(select(ChainIntent).where(ChainIntent.key == federation.intent_key))
    if call is None or call.state != "failed":
        return None
    return lambda: _enter(federation, "failed", f"it could not be founded on chain: {detail_of(call)}")


def _inviting(session: Session, calls: Calls, federation: Federation, instant: datetime) -> Step | None:
    missing = [member.address for member in federation.members if member.joined_at is None]
    agreed = group_keys.is_agreed(session, federation)
    if not missing and agreed:
        return lambda: _start(session, calls, federation)
    if instant > federation.created_at + INVITATION:
        late = f"{len(missing)} members did not join" if missing else "members and founder did not agree on a group key"
        return lambda: _enter(federation, "failed", f"{late} within {INVITATION.days} days")
    return None


def _start(session: Session, calls: Calls, federation: Federation) -> None:
    _enter(federation, "running")
    attempts.begin(session, calls, federation, round_number=1, number=1)


def _go_on(session: Session, calls: Calls, federation: Federation, attempt: Attempt) -> None:
    if attempt.model is None:
        raise ValueError("expected a finished attempt to have a model")
    federation.model = attempt.model
    reason = _converged(session, federation, attempt)
    if attempt.round >= federation.rounds_total:
        _enter(federation, "finished")
    elif reason is not None:
        _enter(federation, "finished", reason)
    else:
        attempts.begin(session, calls, federation, round_number=attempt.round + 1, number=1)


def _converged(session: Session, federation: Federation, attempt: Attempt) -> str | None:
    """Why training ends with this round, or None."""
    return stopping.converged(FederationConfig.parse(federation.config), history.metrics(session, federation.id), attempt.round)


def _close(session: Session, federation: Federation, attempt: Attempt | None, chain: OnchainFederation) -> None:
    """The registry closes a federation for its founder, and by itself when survivors were fixed and the round was given up."""
    if attempt is not None and attempt.stage == Phase.FINISHED:
        converged = _converged(session, federation, attempt)
        if attempt.round >= federation.rounds_total or converged is not None:
            federation.model = attempt.model or federation.model
            _enter(federation, "finished", None if attempt.round >= federation.rounds_total else converged)
            return
    if attempt is not None and attempt.stage not in attempts.ENDED:
        attempts.end(session, attempt, Phase.ABORTED, f"{chain.closed_by} closed the federation on chain")
    reason = (
        f"round {attempt.round}: {attempt.reason}" if attempt is not None and attempt.reason else f"{chain.closed_by} closed it on chain"
    )
    _enter(federation, "failed", reason)


def _aborted(session: Session, calls: Calls, federation: Federation, attempt: Attempt, instant: datetime) -> Step | None:
    chain = attempts.onchain(session, attempt)
    if chain is None:
        if leads.may_have_been_taken_over(session, calls, attempt, instant):
            return None
        return lambda: _enter(federation, "failed", f"round {attempt.round}: {attempt.reason}")
    if chain.abandoned_transaction is not None:
        fixed = chain.survivors_hash is not None
        if fixed or attempt.number >= MAX_ATTEMPTS or consents.leave_no_round(session, federation, attempt):
            return lambda: _enter(federation, "failed", f"round {attempt.round}, attempt {attempt.number}: {attempt.reason}")
        return lambda: _try_again(session, calls, federation, attempt)
    if chain.finalised_transaction is not None:
        return lambda: _enter(federation, "failed", f"round {attempt.round}: {attempt.reason}")
    if not is_promised(session, attempt, "abandon"):
        return (lambda: calls.abandon(session, attempt)) if _may_abandon(session, federation, attempt, chain, instant) else None
    failure = failure_of(session, attempt, "abandon")
    if failure is None or not may_retry(failure, attempt, instant):
        return None
    return lambda: _abandon_again(session, calls, attempt)


def _may_abandon(session: Session, federation: Federation, attempt: Attempt, chain: OnchainRound, instant: datetime) -> bool:
    due = Manifest.parse(attempt.manifest).deadlines
    if attempts.is_over(due.abandon, instant):
        return True
    few = len(committed(session, attempt)) < FederationConfig.parse(federation.config).min_survivors
    return few and chain.survivors_hash is None and attempts.is_over(due.masked, instant)


def _abandon_again(session: Session, calls: Calls, attempt: Attempt) -> None:
    attempt.tries += 1
    calls.abandon(session, attempt)


def _try_again(session: Session, calls: Calls, federation: Federation, attempt: Attempt) -> None:
    attempts.begin(session, calls, federation, round_number=attempt.round, number=attempt.number + 1)


def _enter(federation: Federation, state: str, reason: str | None = None) -> None:
    federation.state, federation.reason = state, reason
