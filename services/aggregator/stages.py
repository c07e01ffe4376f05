"""What is next in an attempt: a stage to close, a fact of the chain to take in, or a call to promise.

`next_step` reads; the step that it returns writes. Whoever runs it decides again in the transaction that writes, so that two processes,
or one that was killed in between, take each step once.
"""

from collections.abc import Set
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from rexis.encoding import to_hex
from rexis.errors import ProtocolError, VerificationError
from rexis.protocol.approvals import Statement
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Manifest
from rexis.protocol.secagg_messages import Stage
from rexis.secagg.plain_coordinator import PlainCoordinator
from services.aggregator import approvals, attempts, consents, member_results, plain_attempts
from services.aggregator.attempts import Phase, Step
from services.aggregator.models import Attempt, Federation, OnchainCommitment, OnchainRound, RoundMessage
from services.aggregator.registry_calls import Calls, failure_of, is_promised
from services.foundation.outbox.transactions import ChainIntent

MAX_OPENINGS = 3
# The chain's clock may be behind ours: a call that came too early is tried again, each time after a longer pause.
LONGEST_PAUSE_S = 30.0
_BEFORE = {Stage.SHARES: Stage.KEYS, Stage.MASKED: Stage.SHARES}


def next_step(session: Session, calls: Calls, federation: Federation, attempt: Attempt, instant: datetime) -> Step | None:
    """The step that is due in an attempt that runs, or None. Opening the sum is not among them: see `is_answered`."""
    chain = attempts.onchain(session, attempt)
    phase = Phase(attempt.stage)
    if chain is not None and chain.abandoned_transaction is not None:
        return lambda: attempts.end(session, attempt, Phase.ABORTED, "a member abandoned it on chain after its deadline")
    match phase:
        case Phase.OPENING:
            return _opening(session, calls, federation, attempt, chain)
        case Phase.KEYS | Phase.SHARES | Phase.MASKED:
            return _sending(session, calls, federation, attempt, instant)
        case Phase.FIXING:
            return _fixing(session, calls, federation, attempt, chain, instant)
        case Phase.SURVIVORS:
            return consents.collecting(session, federation, attempt, chain, instant)
        case Phase.UNMASK | Phase.RECORDING:
            return _recording(session, calls, federation, attempt, chain, instant)
        case Phase.RESULTS:
            return _stating(session, federation, attempt, chain, instant)
        case Phase.FINALISING:
            return _finalising(session, calls, federation, attempt, chain, instant)
        case _:
            return None


def is_answered(session: Session, federation: Federation, attempt: Attempt, instant: datetime) -> bool:
    """Whether the sum can be opened: everybody who was asked for shares gave them, or the time for it is over."""
    chain = attempts.onchain(session, attempt)
    if attempt.stage != Phase.UNMASK or attempt.survivors is None:
        return False
    config = FederationConfig.parse(federation.config)
    fixed = chain is not None and chain.survivors_hash is not None
    # The chain may have been reorganised: whether these survivors stand there is known when it has them again.
    if not fixed and not consents.suffice(session, federation, attempt):
        return False
    if not config.masked:
        return True
    awaited = set(attempt.survivors) if fixed else attempts.senders(session, attempt, Stage.SURVIVORS)
    # A stage that began late, because the chain was slow, is not shorter for it.
    deadline = max(Manifest.parse(attempt.manifest).deadlines.unmask, int(attempt.stage_since.timestamp()) + config.stage_s)
    return attempts.senders(session, attempt, Stage.UNMASK) >= awaited or attempts.is_over(deadline, instant)


def committed(session: Session, attempt: Attempt) -> set[str]:
    """Participants whose commitment in this attempt is on chain."""
    return set(session.scalars(select(OnchainCommitment.participant).where(OnchainCommitment.ctx == attempt.ctx)))


def may_retry(failure: ChainIntent, attempt: Attempt, instant: datetime) -> bool:
    """Whether enough time has passed since a call failed that came too early."""
    return (instant - failure.state_since).total_seconds() >= min(1.0 + attempt.tries, LONGEST_PAUSE_S)


def detail_of(failure: ChainIntent) -> str:
    """Why a call failed."""
    return str((failure.error or {}).get("detail", "the call failed"))


def _opening(session: Session, calls: Calls, federation: Federation, attempt: Attempt, chain: OnchainRound | None) -> Step | None:
    if chain is not None:
        if (chain.manifest_hash, chain.base_model) != (attempt.manifest_digest, attempt.base_model):
            reason = f"the chain opened it with manifest {chain.manifest_hash} on model {chain.base_model}"
            return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)
        first = Phase.KEYS if FederationConfig.parse(federation.config).masked else Phase.MASKED
        return lambda: attempts.enter(attempt, first)
    failure = failure_of(session, attempt, "openRound")
    if failure is None:
        return None
    if attempt.tries + 1 < MAX_OPENINGS:
        return lambda: attempts.begin_again(session, calls, federation, attempt)
    reason = f"it could not be opened on chain: {detail_of(failure)}"
    return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)


def _sending(session: Session, calls: Calls, federation: Federation, attempt: Attempt, instant: datetime) -> Step | None:
    stage = Stage(attempt.stage)
    sent = attempts.senders(session, attempt, stage)
    if stage is Stage.MASKED:
        sent &= committed(session, attempt)
    before = _BEFORE.get(stage) if FederationConfig.parse(federation.config).masked else None
    due = {member.address for member in federation.members} if before is None else attempts.senders(session, attempt, before)
    deadline = getattr(Manifest.parse(attempt.manifest).deadlines, stage.value)
    if due - sent and not attempts.is_over(deadline, instant):
        return None
    return lambda: _close(session, calls, federation, attempt, stage)


def _close(session: Session, calls: Calls, federation: Federation, attempt: Attempt, stage: Stage) -> None:
    if stage is Stage.MASKED:
        # A vector whose owner committed to nothing is not in the sum, and leaves no trace.
        _drop(session, attempt, stage, committed(session, attempt))
    try:
        coordinator = plain_attempts.coordinator_of(session, calls.registry, federation, attempt)
        if isinstance(coordinator, PlainCoordinator) or stage is Stage.MASKED:
            coordinator.close_masked()
            survivors = coordinator.survivors
            attempt.survivors = coordinator.terms.addresses(survivors.positions)
            attempt.survivors_hash, attempt.masked_record = to_hex(survivors.fixed.survivors), to_hex(survivors.fixed.masked)
            attempts.enter(attempt, Phase.FIXING)
        elif stage is Stage.KEYS:
            coordinator.close_keys(graph_seed=attempts.graph_seed(session, FederationConfig.parse(federation.config), attempt))
            attempts.enter(attempt, Phase.SHARES)
        else:
            coordinator.close_shares()
            attempts.enter(attempt, Phase.MASKED)
        if coordinator.terms.groups is not None:
            # Of a group that lost too many nothing counts, and nobody waits for it.
            _drop(session, attempt, stage, {message.sender for message in coordinator.messages(stage)})
    except (ProtocolError, VerificationError) as error:
        attempts.end(session, attempt, Phase.ABORTED, f"stage {stage}: {error}")


def _drop(session: Session, attempt: Attempt, stage: Stage, kept: Set[str]) -> None:
    """Forget the messages of a stage whose senders are not among those kept, and their vectors."""
    for message in attempts.messages_of(session, attempt, stage):
        if message.sender not in kept:
            if stage is Stage.MASKED:
                attempts.discard_vector(session, message)
            one = (*attempts.rows_of(attempt), RoundMessage.stage == stage.value, RoundMessage.sender == message.sender)
            session.execute(delete(RoundMessage).where(*one))


def _fixing(
    session: Session, calls: Calls, federation: Federation, attempt: Attempt, chain: OnchainRound | None, instant: datetime
) -> Step | None:
    if chain is not None and chain.survivors_hash is not None:
        if (chain.survivors_hash, chain.masked_record) != (attempt.survivors_hash, attempt.masked_record):
            reason = f"the chain fixed other survivors than this aggregator asked for: {chain.survivors_hash}"
            return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)
        return lambda: attempts.enter(attempt, Phase.UNMASK)
    due = Manifest.parse(attempt.manifest).deadlines
    if not is_promised(session, attempt, "fixSurvivors"):
        # Nobody may be left out while the chain still takes commitments.
        whole = len(attempt.survivors or ()) == len(federation.members)
        ready = whole or attempts.is_over(due.masked, instant)
        promise = (lambda: _fix(session, calls, federation, attempt)) if ready else None
        given_up = attempts.is_over(due.unmask, instant)
        return _approving(session, calls, federation, attempt, chain, approvals.survivors_statement(attempt), promise, given_up=given_up)
    failure = failure_of(session, attempt, "fixSurvivors")
    if failure is None:
        return consents.standing_in(calls, federation, attempt)
    if _came_too_early(failure, attempt, instant):
        return (lambda: _fix_again(session, calls, federation, attempt)) if may_retry(failure, attempt, instant) else None
    reason = f"the survivors could not be fixed on chain: {detail_of(failure)}"
    return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)


def _recording(
    session: Session, calls: Calls, federation: Federation, attempt: Attempt, chain: OnchainRound | None, instant: datetime
) -> Step | None:
    if chain is None or chain.survivors_hash is None:
        if not consents.suffice(session, federation, attempt):
            return None  # the chain was reorganised: it has fixed them, and will again
        failure = failure_of(session, attempt, "fixSurvivors")
        if failure is not None and _came_too_early(failure, attempt, instant):
            return (lambda: _fix_again(session, calls, federation, attempt)) if may_retry(failure, attempt, instant) else None
    return consents.recording(session, calls, federation, attempt, chain)


def _came_too_early(failure: ChainIntent, attempt: Attempt, instant: datetime) -> bool:
    abandon = Manifest.parse(attempt.manifest).deadlines.abandon
    return (failure.error or {}).get("error") == "CommitmentsStillOpen" and not attempts.is_over(abandon, instant)


def _fix(session: Session, calls: Calls, federation: Federation, attempt: Attempt) -> None:
    calls.fix_survivors(session, attempt, approvals.granted(session, federation, approvals.survivors_statement(attempt)))


def _fix_again(session: Session, calls: Calls, federation: Federation, attempt: Attempt) -> None:
    attempt.tries += 1
    _fix(session, calls, federation, attempt)


def _approving(
    session: Session,
    calls: Calls,
    federation: Federation,
    attempt: Attempt,
    chain: OnchainRound | None,
    statement: Statement,
    promise: Step | None,
    *,
    given_up: bool,
) -> Step | None:
    """Sign first, so that the others know what there is to sign; promise the call when a quorum did; give up when its time is over."""
    # The chain may have been reorganised: nothing is signed about an attempt that does not stand there.
    if chain is None:
        return None
    granted = approvals.granted(session, federation, statement)
    if len(granted) >= FederationConfig.parse(federation.config).quorum:
        return promise
    signed = approvals.of_attempt(session, federation.id, attempt.round, attempt.number)
    if not any(approval.signer == calls.signer.address and approval.statement == statement for approval in signed):
        return lambda: _sign(session, calls, attempt, statement)
    if not given_up:
        return None
    return lambda: attempts.end(session, attempt, Phase.ABORTED, approvals.missing(session, federation, statement))


def _sign(session: Session, calls: Calls, attempt: Attempt, statement: Statement) -> None:
    try:
        approvals.sign(session, calls.registry, calls.signer, statement)
    except (ProtocolError, VerificationError) as error:
        attempts.end(session, attempt, Phase.ABORTED, str(error))


def _stating(session: Session, federation: Federation, attempt: Attempt, chain: OnchainRound | None, instant: datetime) -> Step | None:
    """Members who have the group key say what the sum is; who is late has as long as a site has for a stage."""
    if chain is None or chain.survivors_hash is None:
        return None  # reorganised
    found = member_results.tally(session, federation, attempt)
    if found.agreed is not None:
        model, metrics = to_hex(found.agreed.model), to_hex(found.agreed.metrics)
        return lambda: _take_result(attempt, model, metrics)
    seconds = FederationConfig.parse(federation.config).stage_s
    deadline = max(Manifest.parse(attempt.manifest).deadlines.abandon, int(attempt.stage_since.timestamp()) + seconds)
    if not found.is_hopeless and not attempts.is_over(deadline, instant):
        return None
    return lambda: attempts.end(session, attempt, Phase.ABORTED, f"stage results: {found.reason}")


def _take_result(attempt: Attempt, model: str, metrics: str) -> None:
    attempt.model, attempt.metrics_digest = model, metrics
    attempts.enter(attempt, Phase.FINALISING)


def _finalising(
    session: Session, calls: Calls, federation: Federation, attempt: Attempt, chain: OnchainRound | None, instant: datetime
) -> Step | None:
    if chain is not None and chain.model is not None:
        if chain.model != attempt.model:
            reason = f"the chain has the model {chain.model} as its result, this aggregator computed {attempt.model}"
            return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)
        return lambda: attempts.end(session, attempt, Phase.FINISHED)
    if not is_promised(session, attempt, "finalise"):
        if chain is None or chain.survivors_hash is None:
            return None  # reorganised: the result is recorded when the survivors stand there again
        config = FederationConfig.parse(federation.config)
        result = approvals.attempt_result(config, attempt, chain)
        # Witnesses have as long as a site has for a stage, however late the sum could be opened.
        deadline = max(Manifest.parse(attempt.manifest).deadlines.abandon, int(attempt.stage_since.timestamp()) + config.stage_s)
        given_up = attempts.is_over(deadline, instant)
        return _approving(
            session,
            calls,
            federation,
            attempt,
            chain,
            result,
            lambda: calls.finalise(session, attempt, result, approvals.granted(session, federation, result)),
            given_up=given_up,
        )
    failure = failure_of(session, attempt, "finalise")
    if failure is None:
        return None
    reason = f"the result could not be recorded on chain: {detail_of(failure)}"
    return lambda: attempts.end(session, attempt, Phase.ABORTED, reason)
