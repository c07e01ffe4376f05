"""What aggregators signed about attempts: our own signatures, given once, and the others', counted towards the quorum.

An approval is kept before it is shown to anybody, and the first one of a signer is kept for good. A second one that says something else
is kept as evidence: from then on its signer counts for nothing in that federation.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from rexis.chain.signer import Signer
from rexis.encoding import canonical_json, from_hex, sha256, to_hex
from rexis.errors import EquivocationError, SignatureError, UnexpectedMessageError
from rexis.protocol.approvals import Approval, Kind, Statement, kind_of
from rexis.protocol.equivocation import Equivocation
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_rounds import NO_METRICS, RoundResult, Survivors
from rexis.secagg.privacy import declared_micro
from services.aggregator.models import ApprovalRow, Attempt, EquivocationRow, Federation, FederationAggregator, OnchainRound
from services.aggregator.registry_calls import Registry
from services.foundation.database import lock, now

log = structlog.get_logger(__name__)

# Stages of an attempt in which its leader waits for approvals of a kind.
AWAITED = {"fixing": Kind.SURVIVORS, "finalising": Kind.RESULT}


def survivors_statement(attempt: Attempt) -> Survivors:
    """What is signed about an attempt whose stage masked is closed."""
    if attempt.survivors_hash is None or attempt.masked_record is None:
        raise ValueError("expected an attempt whose stage masked is closed")
    return Survivors(
        federation=from_hex(attempt.federation_id),
        round_number=attempt.round,
        attempt=attempt.number,
        survivors_hash=from_hex(attempt.survivors_hash),
        masked_record=from_hex(attempt.masked_record),
    )


def result_statement(
    config: FederationConfig,
    fixed: OnchainRound,
    survivors: Sequence[str],
    *,
    aggregate: bytes,
    model: bytes,
    metrics: dict[str, Any] | bytes | None,
) -> RoundResult:
    """What is signed about the sum of an attempt.

    Args:
        config: which privacy loss follows from.
        fixed: what the chain has of the attempt.
        survivors: whose updates the sum holds.
        aggregate: digest of the sum, 32 bytes.
        model: record of the new model, or digest of the statistic, 32 bytes.
        metrics: canonical document, or its digest where only members have it (32 bytes); None for a statistic.
    """
    if fixed.survivors_hash is None or fixed.accumulator is None:
        raise ValueError("expected an attempt whose survivors are fixed on chain")
    return RoundResult(
        federation=from_hex(fixed.federation_id),
        round_number=fixed.round,
        attempt=fixed.attempt,
        survivors_hash=from_hex(fixed.survivors_hash),
        accumulator=from_hex(fixed.accumulator),
        updates=len(survivors),
        base_model=from_hex(fixed.base_model),
        aggregate=aggregate,
        model=model,
        metrics=metrics if isinstance(metrics, bytes) else NO_METRICS if metrics is None else sha256(canonical_json(metrics)),
        epsilon_micro=declared_micro(config, fixed.round),
    )


def attempt_result(config: FederationConfig, attempt: Attempt, fixed: OnchainRound) -> RoundResult:
    """What is signed about an attempt whose sum we opened."""
    if attempt.aggregate is None or attempt.model is None or attempt.survivors is None:
        raise ValueError("expected an attempt whose sum is open")
    aggregate, model = from_hex(attempt.aggregate), from_hex(attempt.model)
    metrics = attempt.metrics if attempt.metrics_digest is None else from_hex(attempt.metrics_digest)
    return result_statement(config, fixed, attempt.survivors, aggregate=aggregate, model=model, metrics=metrics)


def sign(session: Session, registry: Registry, signer: Signer, statement: Statement) -> Approval:
    """Our own approval, signed once for each kind and attempt; the same statement again gives the same signature.

    It is another's to see when the transaction is committed, and not before. Survivors are signed for one attempt of a round at a time:
    for a later one only when the chain has given every earlier one up without survivors, so that it never gets two sets of one round.

    Raises:
        EquivocationError: we signed another statement.
        UnexpectedMessageError: the chain has the attempt in no state for this, or an earlier one still stands.
    """
    kind = kind_of(statement)
    federation, round_number, number = to_hex(statement.federation), statement.round_number, statement.attempt
    lock(session, f"approvals of {federation}")
    known = session.get(ApprovalRow, (federation, round_number, number, kind.value, signer.address))
    if known is not None:
        approval = Approval.parse(known.document)
        if approval.statement != statement:
            raise EquivocationError(f"this aggregator signed another {kind} statement for round {round_number}, attempt {number} before")
        return approval
    _check_chain(session, kind, federation, round_number, number)
    approval = Approval(statement, signer.address, signer.sign_typed_data(statement.typed_data(registry.chain_id, registry.address)))
    _keep(session, approval)
    return approval


def record(session: Session, registry: Registry, federation: Federation, approval: Approval) -> Equivocation | None:
    """Keep what an aggregator signed; the same again changes nothing.

    Returns:
        Evidence, which is kept as well, if it signed something else before.

    Raises:
        SignatureError: not signed by one of the federation's aggregators.
        UnexpectedMessageError: about an attempt that the chain does not have.
    """
    check(registry, federation, approval)
    _, round_number, number = approval.attempt
    if session.get(OnchainRound, (federation.id, round_number, number)) is None:
        # Nothing is kept without limit about rounds that never were.
        raise UnexpectedMessageError(f"the chain has no attempt {number} of round {round_number} yet")
    lock(session, f"approvals of {federation.id}")
    known = session.get(ApprovalRow, (federation.id, round_number, number, approval.kind.value, approval.signer))
    if known is None:
        _keep(session, approval)
        return None
    first = Approval.parse(known.document)
    if first.statement == approval.statement:
        return None
    evidence = Equivocation(first, approval)
    keep_evidence(session, registry, federation, evidence)
    return evidence


def check(registry: Registry, federation: Federation, approval: Approval) -> None:
    """Check that an approval is one of this federation, by one of its aggregators.

    Raises:
        SignatureError: it is not.
    """
    if to_hex(approval.attempt[0]) != federation.id:
        raise SignatureError(f"expected an approval in federation {federation.id}, got one in {to_hex(approval.attempt[0])}")
    if approval.signer not in FederationConfig.parse(federation.config).aggregators:
        raise SignatureError(f"{approval.signer} is not among the aggregators of federation {federation.id}")
    approval.verify(registry.chain_id, registry.address)


def keep_evidence(session: Session, registry: Registry, federation: Federation, evidence: Equivocation) -> None:
    """Keep evidence against an aggregator, whoever brings it; one piece is enough, and more changes nothing.

    Raises:
        SignatureError: it is none: a signature is not that of an aggregator of this federation.
    """
    for approval in (evidence.first, evidence.second):
        check(registry, federation, approval)
    lock(session, f"approvals of {federation.id}")
    if session.get(EquivocationRow, (federation.id, evidence.signer)) is None:
        row = EquivocationRow(federation_id=federation.id, signer=evidence.signer, document=evidence.document(), seen_at=now())
        session.add(row)
        session.flush()
        log.error("an aggregator equivocated", federation=federation.id, aggregator=evidence.signer, reason=str(evidence.error()))


def evidence_of(session: Session, federation_id: str) -> tuple[Equivocation, ...]:
    """Evidence in a federation, one piece against each aggregator that there is any against."""
    query = select(EquivocationRow.document).where(EquivocationRow.federation_id == federation_id).order_by(EquivocationRow.seen_at)
    return tuple(Equivocation.parse(document) for document in session.scalars(query))


def of_attempt(session: Session, federation_id: str, round_number: int, number: int, kind: Kind | None = None) -> tuple[Approval, ...]:
    """What was signed about an attempt, ascending by kind and signer."""
    query = select(ApprovalRow.document).where(
        ApprovalRow.federation_id == federation_id, ApprovalRow.round == round_number, ApprovalRow.attempt == number
    )
    if kind is not None:
        query = query.where(ApprovalRow.kind == kind.value)
    return tuple(Approval.parse(document) for document in session.scalars(query.order_by(ApprovalRow.kind, ApprovalRow.signer)))


def signed_at(session: Session, federation: Federation, round_number: int, number: int) -> datetime:
    """When the newest approval of an attempt came that is kept."""
    mine = (ApprovalRow.federation_id == federation.id, ApprovalRow.round == round_number, ApprovalRow.attempt == number)
    return session.scalars(select(ApprovalRow.taken_at).where(*mine).order_by(ApprovalRow.taken_at.desc()).limit(1)).one()


def granted(session: Session, federation: Federation, statement: Statement) -> tuple[Approval, ...]:
    """The approvals of exactly this statement that count; none of an aggregator that signed two."""
    kind = kind_of(statement)
    named = {evidence.signer for evidence in evidence_of(session, federation.id)}
    given = of_attempt(session, federation.id, statement.round_number, statement.attempt, kind)
    return tuple(approval for approval in given if approval.statement == statement and approval.signer not in named)


def missing(session: Session, federation: Federation, statement: Statement) -> str:
    """For people: how far a statement is from its quorum, and who did not sign it."""
    config = FederationConfig.parse(federation.config)
    kind = kind_of(statement)
    signed = {approval.signer for approval in granted(session, federation, statement)}
    given = {approval.signer for approval in of_attempt(session, federation.id, statement.round_number, statement.attempt, kind)}
    named = {evidence.signer for evidence in evidence_of(session, federation.id)}

    def told(address: str) -> str:
        what = "signed two different statements" if address in named else "signed another one" if address in given else "did not"
        return f"{address} {what}"

    others = "; ".join(told(address) for address in config.aggregators if address not in signed)
    return f"{len(signed)} of {len(config.aggregators)} aggregators signed the {kind} in time, {config.quorum} have to: {others}"


def work_of(session: Session, address: str) -> list[dict[str, Any]]:
    """Every running attempt of the federations that `address` aggregates for, and whether it waits for its approval."""
    own = and_(
        ApprovalRow.federation_id == Attempt.federation_id,
        ApprovalRow.round == Attempt.round,
        ApprovalRow.attempt == Attempt.number,
        ApprovalRow.signer == address,
    )
    query = (
        select(Attempt, ApprovalRow.kind)
        .join(
            FederationAggregator, and_(FederationAggregator.federation_id == Attempt.federation_id, FederationAggregator.address == address)
        )
        .outerjoin(ApprovalRow, own)
        .where(Attempt.stage.not_in(("finished", "aborted")))
        .order_by(Attempt.federation_id)
    )
    found: dict[str, tuple[Attempt, set[str]]] = {}
    for attempt, kind in session.execute(query):
        found.setdefault(attempt.ctx, (attempt, set()))[1].add(kind)
    return [
        {
            "federation": attempt.federation_id,
            "round": attempt.round,
            "attempt": attempt.number,
            "stage": attempt.stage,
            "manifest": attempt.manifest,
            "due": attempt.stage in AWAITED and AWAITED[attempt.stage].value not in given,
            "commitment_due": False,
        }
        for attempt, given in found.values()
    ]


def _check_chain(session: Session, kind: Kind, federation_id: str, round_number: int, number: int) -> None:
    query = select(OnchainRound).where(
        OnchainRound.federation_id == federation_id, OnchainRound.round == round_number, OnchainRound.attempt <= number
    )
    standing = [row for row in session.scalars(query) if row.abandoned_transaction is None or row.survivors_hash is not None]
    alone = [(row.attempt, row.abandoned_transaction) for row in standing] == [(number, None)]
    if not alone or (standing[0].survivors_hash is None) != (kind is Kind.SURVIVORS):
        raise UnexpectedMessageError(
            f"expected the chain to have attempt {number} of round {round_number} alone, with its survivors "
            f"{'not fixed yet' if kind is Kind.SURVIVORS else 'fixed'}: nothing is signed"
        )


def _keep(session: Session, approval: Approval) -> None:
    federation, round_number, number = approval.attempt
    session.add(
        ApprovalRow(
            federation_id=to_hex(federation),
            round=round_number,
            attempt=number,
            kind=approval.kind.value,
            signer=approval.signer,
            document=approval.document(),
            taken_at=now(),
        )
    )
    session.flush()
