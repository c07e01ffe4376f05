"""From the survivors' stored vectors to the result of a round: sum, unmask, decode, and the new model or the statistic.

Reading, computing and recording are three steps, and only the last one changes the database. Whoever is killed between them does the same
again: the sum is exact and every file has one form, so a second run gives the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from rexis.encoding import canonical_json, to_hex
from rexis.errors import EncodingError, ProtocolError, VerificationError
from rexis.protocol.batch import READ_BYTES
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.secagg_messages import Stage
from rexis.secagg.masks import RingVector
from rexis.secagg.payloads import sums_record
from rexis.secagg.plain_coordinator import AnyCoordinator, PlainCoordinator
from rexis.secagg.server_steps import server_step
from rexis.secagg.statistics import decode_statistic
from services.aggregator import attempts, consents, global_models, opened_sums, plain_attempts
from services.aggregator.attempts import Phase
from services.aggregator.global_models import ModelFile
from services.aggregator.models import Attempt, Federation, GlobalModel
from services.aggregator.registry_calls import Calls
from services.foundation.database import transaction
from services.foundation.objects import ObjectStore
from services.foundation.problems import Problem
from services.foundation.uploads import StoredUpload, open_upload

log = structlog.get_logger(__name__)

# What says that this attempt can give no sum, whoever tries again; a store or database that does not answer is not among them.
HOPELESS = (ProtocolError, VerificationError, EncodingError, Problem, FileNotFoundError)


@dataclass(frozen=True)
class Opening:
    """Everything that the sum of an attempt is made from; `base` is None for a statistic, and where only members have the model."""

    config: FederationConfig
    coordinator: AnyCoordinator
    uploads: Mapping[str, StoredUpload]
    base: GlobalModel | None


@dataclass(frozen=True)
class Outcome:
    """What a round made.

    Attributes:
        aggregate: digest of the sum, 32 bytes.
        model: record of the new model, or digest of the statistic, 32 bytes.
        metrics: canonical document, None for a statistic.
        file: the new model; None for a statistic.
        state: file of the server's new state; b"" for a statistic, or a strategy without one.
        document: the statistic's result in canonical JSON; None for training.
    """

    aggregate: bytes
    model: bytes
    metrics: dict[str, Any] | None
    file: ModelFile | None
    state: bytes
    document: bytes | None


def open_sum(engine: Engine, objects: ObjectStore, calls: Calls, federation_id: str) -> None:
    """Open the sum of the federation's newest attempt and keep its result, to be signed, or abort the attempt with a reason.

    Raises:
        UnavailableError: the store does not answer; nothing was changed.
    """
    reason, outcome, key, totals = "", None, "", None
    try:
        with transaction(engine, read_only=True) as session:
            opening = _gather(session, calls, federation_id)
        if opening is None:
            return
        totals = _unmasked(objects, opening)
        if opening.config.leaves_one_sum:
            terms, (total,) = opening.coordinator.terms, totals
            opened_sums.keep(engine, objects, (federation_id, terms.round, terms.attempt), total)
        outcome = None if opening.config.group_pad else decoded(objects, opening, totals)
        if outcome is not None and outcome.file is not None:
            key = global_models.keep(objects, federation_id, outcome.file, outcome.state)
    except HOPELESS as error:
        reason = f"stage unmask: {error}"
    with transaction(engine) as session:
        federation = session.get_one(Federation, federation_id, with_for_update=True)
        attempt = attempts.latest(session, federation, for_update=True)
        if attempt is None or attempt.stage != Phase.UNMASK:
            return
        if totals is None or reason:
            attempts.end(session, attempt, Phase.ABORTED, reason)
        elif outcome is None:
            _leave_to_members(session, attempt, sums_record(totals))
        else:
            _record(session, federation, attempt, outcome, key)


def _gather(session: Session, calls: Calls, federation_id: str) -> Opening | None:
    federation = session.get_one(Federation, federation_id)
    attempt = attempts.latest(session, federation)
    if attempt is None or attempt.stage != Phase.UNMASK:
        return None
    config = FederationConfig.parse(federation.config)
    coordinator = plain_attempts.coordinator_of(session, calls.registry, federation, attempt)
    announced = attempts.messages_of(session, attempt, Stage.MASKED)
    uploads = {message.sender: open_upload(session, message.payload["upload"], message.sender) for message in announced}
    base = None if config.training is None or config.group_pad else global_models.current(session, federation)
    return Opening(config, coordinator, uploads, base)


def _unmasked(objects: ObjectStore, opening: Opening) -> tuple[RingVector, ...]:
    masked_sums = opening.coordinator.masked_sums()
    for masked_sum in masked_sums:
        for sender in masked_sum.missing:
            masked_sum.add(sender, _pieces(opening.uploads[sender], objects))
    return opening.coordinator.unmask(masked_sums)


def decoded(objects: ObjectStore, opening: Opening, totals: Sequence[RingVector]) -> Outcome:
    """What the unmasked sums, [d] for each group that was opened, make of the base model: the same bytes at every aggregator."""
    aggregate = sums_record(totals)
    plan = opening.config.training
    if plan is None or opening.base is None:
        (total,) = totals
        result = decode_statistic(opening.config, total)
        return Outcome(aggregate, result.digest, None, None, b"", canonical_json(result.document()))
    base, state = global_models.tensors(objects, opening.base, plan.model), global_models.state(objects, opening.base, plan)
    step = server_step(opening.config, base, state, _by_group(opening.coordinator, totals))
    file = global_models.written(step.tensors, plan.model)
    return Outcome(aggregate, file.record, step.metrics, file, step.state, None)


def _by_group(coordinator: AnyCoordinator, totals: Sequence[RingVector]) -> Sequence[RingVector | None]:
    """The sum of each group that has survivors, None where their answers did not open it."""
    if isinstance(coordinator, PlainCoordinator):
        return totals
    survivors, opened = coordinator.survivors, dict(zip(coordinator.opened, totals, strict=True))
    return [opened.get(group & survivors.positions) for group in survivors.groups]


def _leave_to_members(session: Session, attempt: Attempt, aggregate: bytes) -> None:
    """What was unmasked is under the members' pads: they say what it makes of the model."""
    chain = attempts.onchain(session, attempt)
    if chain is None or chain.survivors_hash is None:
        return  # the chain was reorganised meanwhile, see `_record`
    attempts.enter(attempt, Phase.RESULTS)
    attempt.aggregate = to_hex(aggregate)
    log.info("padded sum opened", federation=attempt.federation_id, round=attempt.round, attempt=attempt.number)


def _record(session: Session, federation: Federation, attempt: Attempt, outcome: Outcome, key: str) -> None:
    chain = attempts.onchain(session, attempt)
    if chain is not None and chain.survivors_hash is not None:
        attempts.enter(attempt, Phase.FINALISING)
    elif consents.suffice(session, federation, attempt):
        attempts.enter(attempt, Phase.RECORDING, tries=attempt.tries)
    else:
        return  # the chain was reorganised meanwhile: the sum is opened again when it stands there again
    attempt.aggregate, attempt.model, attempt.metrics = to_hex(outcome.aggregate), to_hex(outcome.model), outcome.metrics
    federation.result = outcome.document
    if outcome.file is not None:
        global_models.record(session, federation.id, attempt.round, outcome.file, key, outcome.state)
    log.info("sum opened", federation=federation.id, round=attempt.round, attempt=attempt.number, survivors=len(attempt.survivors or ()))


def _pieces(upload: StoredUpload, objects: ObjectStore) -> Iterator[bytes]:
    with upload.open(objects) as content:
        while piece := content.read(READ_BYTES):
            yield piece
