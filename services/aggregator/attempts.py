"""Attempts at rounds: what they start from, the state machine that stands behind them, and how they end."""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from rexis.encoding import from_hex, to_hex
from rexis.errors import UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Deadlines, Manifest
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg.coordinator import Coordinator
from rexis.secagg.survivors import FixedSurvivors
from rexis.secagg.terms import RoundTerms
from rexis.secagg.thresholds import Thresholds
from services.aggregator.models import Attempt, Federation, OnchainRound, RoundMessage
from services.aggregator.registry_calls import Calls, Registry
from services.foundation.database import now
from services.foundation.settings import LOCAL_CHAIN_ID
from services.foundation.uploads.records import Upload, abandon_upload

Step = Callable[[], None]

# After so many a round has shown that it can not be finished.
MAX_ATTEMPTS = 3
# Before the first stage begins, the chain has to mine the opening; the local one does at once.
OPENING_S, LOCAL_OPENING_S = 60, 2


class Phase(StrEnum):
    """Stages of an attempt in their order; `opening`, `fixing`, `recording` and `finalising` wait for the chain.

    `survivors` and `recording` are gone through only while the chain is away: see `consents`. `results` is there with the group pad only:
    members state what the sum is without their pads.
    """

    OPENING = "opening"
    KEYS = "keys"
    SHARES = "shares"
    MASKED = "masked"
    FIXING = "fixing"
    SURVIVORS = "survivors"
    UNMASK = "unmask"
    RECORDING = "recording"
    RESULTS = "results"
    FINALISING = "finalising"
    FINISHED = "finished"
    ABORTED = "aborted"

    def is_behind(self, other: "Phase | Stage") -> bool:
        """Whether an attempt in this stage has left `other`."""
        order = [phase.value for phase in Phase]
        return order.index(self.value) > order.index(other.value)


ENDED = (Phase.FINISHED, Phase.ABORTED)
# Stages in which the sites send, in their order.
SENDING = tuple(Stage)


def begin(session: Session, calls: Calls, federation: Federation, *, round_number: int, number: int) -> Attempt:
    """Plan an attempt and have it opened on chain."""
    attempt = Attempt(federation_id=federation.id, round=round_number, number=number, tries=0, opened_at=now())
    enter(attempt, Phase.OPENING)
    federation.round, federation.leader = round_number, calls.signer.address
    _plan(calls.registry, federation, attempt)
    session.add(attempt)
    session.flush()
    calls.open_round(session, attempt)
    return attempt


def begin_again(session: Session, calls: Calls, federation: Federation, attempt: Attempt) -> None:
    """Have an attempt that could not be opened opened under new deadlines."""
    attempt.tries += 1
    _plan(calls.registry, federation, attempt)
    session.flush()
    calls.open_round(session, attempt)


def latest(session: Session, federation: Federation, *, for_update: bool = False) -> Attempt | None:
    """The newest attempt of a federation."""
    query = select(Attempt).where(Attempt.federation_id == federation.id).order_by(Attempt.round.desc(), Attempt.number.desc()).limit(1)
    return session.scalar(query.with_for_update() if for_update else query)


def enter(attempt: Attempt, phase: Phase, *, tries: int = 0) -> None:
    """Change the stage; `tries` of one that waits for the call of a stage before it."""
    attempt.stage, attempt.stage_since, attempt.tries = phase.value, now(), tries


def end(session: Session, attempt: Attempt, phase: Phase, reason: str | None = None) -> None:
    """Finish or abort an attempt, and forget everything in it that came from single sites: masked vectors, shares, messages."""
    enter(attempt, phase)
    attempt.reason, attempt.finished_at = reason, now()
    for envelope in messages_of(session, attempt, Stage.MASKED):
        discard_vector(session, envelope)
    session.execute(update(RoundMessage).where(*rows_of(attempt)).values(body=None))


def discard_vector(session: Session, masked: Envelope) -> None:
    """Have the upload that a message of the stage masked names deleted."""
    upload = session.get(Upload, masked.payload["upload"], with_for_update=True)
    if upload is not None and upload.owner == masked.sender and upload.state != "abandoned":
        abandon_upload(upload)


def messages_of(session: Session, attempt: Attempt, stage: Stage) -> list[Envelope]:
    """Messages of one stage, which were checked when they came; none of an attempt that is over."""
    query = select(RoundMessage.body).where(*rows_of(attempt), RoundMessage.stage == stage.value).order_by(RoundMessage.sender)
    return [Envelope.parse(body) for body in session.scalars(query) if body is not None]


def terms_of(registry: Registry, federation: Federation, attempt: Attempt) -> RoundTerms:
    """What every participant reads from chain and manifest."""
    config = FederationConfig.parse(federation.config)
    return RoundTerms(
        chain_id=registry.chain_id,
        registry=registry.address,
        federation=from_hex(federation.id),
        round=attempt.round,
        attempt=attempt.number,
        manifest_hash=from_hex(attempt.manifest_digest),
        base_model=config.trained_base(from_hex(federation.id), from_hex(attempt.base_model)),
        roster=config.roster,
        thresholds=Thresholds(len(config.members), config.collusion_bound, config.threshold, config.min_survivors),
        length=config.upload_length,
        ring_bits=config.ring_bits,
        degree=config.degree,
        masked=config.masked,
        groups=config.groups,
    )


def graph_seed(session: Session, config: FederationConfig, attempt: Attempt) -> bytes:
    """What orders a sparse graph or draws the groups (32 bytes): the hash of the block that opened the attempt.

    It is zero for one complete graph. Groups that are kept are drawn by the block that opened the federation's first attempt.

    Raises:
        UnexpectedMessageError: the chain was reorganised, and the attempt is not open on it now.
    """
    if config.degree is None and config.groups is None:
        return bytes(32)
    kept = config.groups is not None and not config.groups.redrawn
    chain = session.get(OnchainRound, (attempt.federation_id, 1, 1)) if kept else onchain(session, attempt)
    if chain is None or chain.opened_block is None:
        raise UnexpectedMessageError("the attempt that draws them is not open on chain: neighbours and groups are unknown")
    return from_hex(chain.opened_block, 32)


def coordinator_of(session: Session, registry: Registry, federation: Federation, attempt: Attempt) -> Coordinator:
    """The attempt's state machine, rebuilt from its messages.

    Raises:
        EquivocationError: the chain fixed other survivors than this aggregator asked for.
        UnexpectedMessageError: the attempt is not open yet, or over.
    """
    coordinator, phase = Coordinator(terms_of(registry, federation, attempt)), Phase(attempt.stage)
    if phase is Phase.OPENING or phase in ENDED:
        raise UnexpectedMessageError(f"attempt {attempt.number} of round {attempt.round} is {phase}: no message of it is taken")
    for stage in SENDING:
        for message in messages_of(session, attempt, stage):
            coordinator.receive(message)
        if not phase.is_behind(stage):
            break
        if stage is Stage.KEYS:
            coordinator.close_keys(graph_seed=graph_seed(session, FederationConfig.parse(federation.config), attempt))
        elif stage is Stage.SHARES:
            coordinator.close_shares()
        elif stage is Stage.MASKED:
            coordinator.close_masked()
        elif stage is Stage.SURVIVORS:
            coordinator.close_survivors(fixed=_fixed(session, attempt))
    return coordinator


def onchain(session: Session, attempt: Attempt) -> OnchainRound | None:
    """What the chain has of an attempt."""
    return session.get(OnchainRound, (attempt.federation_id, attempt.round, attempt.number))


def senders(session: Session, attempt: Attempt, stage: Stage) -> set[str]:
    """Whose messages of a stage were taken."""
    return set(session.scalars(select(RoundMessage.sender).where(*rows_of(attempt), RoundMessage.stage == stage.value)))


def rows_of(attempt: Attempt) -> tuple[ColumnElement[bool], ...]:
    """Which messages are the attempt's."""
    return (
        RoundMessage.federation_id == attempt.federation_id,
        RoundMessage.round == attempt.round,
        RoundMessage.attempt == attempt.number,
    )


def opening_s(registry: Registry) -> int:
    """How long the chain may take to mine an opening."""
    return LOCAL_OPENING_S if registry.chain_id == LOCAL_CHAIN_ID else OPENING_S


def is_over(deadline: int, instant: datetime) -> bool:
    """Whether the last second of a stage has passed, so that the next block's time is behind it too."""
    return instant.timestamp() >= deadline + 1


def _fixed(session: Session, attempt: Attempt) -> FixedSurvivors | None:
    chain = onchain(session, attempt)
    if chain is None or chain.survivors_hash is None or chain.masked_record is None:
        return None
    return FixedSurvivors(from_hex(chain.survivors_hash), from_hex(chain.masked_record))


def _plan(registry: Registry, federation: Federation, attempt: Attempt) -> None:
    config = FederationConfig.parse(federation.config)
    manifest = Manifest.of(
        config,
        federation=from_hex(federation.id),
        round_number=attempt.round,
        attempt=attempt.number,
        base_model=from_hex(federation.model),
        deadlines=Deadlines.after(int(now().timestamp()) + opening_s(registry), config.stage_s, masked=config.masked),
    )
    attempt.manifest, attempt.manifest_digest, attempt.base_model = manifest.document(), to_hex(manifest.digest), federation.model
    attempt.ctx = to_hex(terms_of(registry, federation, attempt).ctx)
