"""What the aggregator asks for and takes in an attempt without masks: uploads of everybody, nothing of stages that do not happen."""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.chain.silence import ChainSilence
from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError, SignatureError, UnexpectedMessageError
from rexis.protocol.manifest import Deadlines, Manifest
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.protocol.uploads import UploadManifest
from rexis.secagg.plain_participant import PlainParticipant
from services.aggregator import attempts, foundings, messages, plain_attempts, stages
from services.aggregator.attempts import Phase
from services.aggregator.models import Attempt, Federation, OnchainCommitment, OnchainRound
from services.aggregator.registry_calls import Calls, Registry
from services.foundation.assembly import connect_chain
from services.foundation.database import migrate, now, transaction
from services.foundation.problems import Problem
from services.foundation.settings import LOCAL_CHAIN_ID
from services.foundation.uploads import Upload
from tests.services.conftest import free_port
from tests.services.federation_stand_in import AGGREGATOR
from tests.services.federations_on_chain import config_of, pull_vector
from tests.services.service_applications import settings_for

FOUNDER, STRANGER = LocalSigner.generate(), LocalSigner.generate()
MEMBERS = sorted((LocalSigner.generate() for _ in range(4)), key=lambda signer: signer.address.lower())
CONFIG = config_of(MEMBERS, FOUNDER, "without masks", protection="none")
REGISTRY = Registry.of(load(LOCAL_CHAIN_ID))
BASE = bytes([7]) * 32


@dataclass
class Desk:
    """An attempt that takes uploads."""

    engine: Engine
    id: str

    def rows(self, session: Session) -> tuple[Federation, Attempt]:
        return session.get_one(Federation, self.id), session.get_one(Attempt, (self.id, 1, 1))

    def due(self, who: LocalSigner) -> bool:
        with transaction(self.engine) as session:
            (item,) = messages.work_of(session, who.address)
        return bool(item["due"])

    def take(self, message: Envelope, by: LocalSigner, stage: Stage | None = None) -> None:
        with transaction(self.engine) as session:
            messages.take(session, REGISTRY, *self.rows(session), stage or message.stage, message.to_bytes(), by.address)

    def participant(self, who: LocalSigner) -> PlainParticipant:
        with transaction(self.engine) as session:
            return PlainParticipant(attempts.terms_of(REGISTRY, *self.rows(session)), who, earlier=())

    def upload(self, who: LocalSigner, manifest: UploadManifest) -> str:
        """A finished upload as the API leaves it."""
        name = secrets.token_hex(16)
        row = Upload(
            id=name, owner=who.address, total_bytes=manifest.total_bytes, state="complete", digest=manifest.digest, expires_at=now()
        )
        with transaction(self.engine) as session:
            session.add(row)
        return name

    def announced(self, who: LocalSigner) -> Envelope:
        participant = self.participant(who)
        _, manifest = participant.salted(vector())
        return participant.announce_masked(self.upload(who, manifest))


def vector() -> Any:
    return pull_vector(CONFIG, 0.0, 0)


def signed(who: LocalSigner, stage: Stage, ctx: bytes, payload: Any) -> Envelope:
    unsigned = Envelope(stage, ctx, who.address, payload)
    return Envelope(stage, ctx, who.address, payload, who.sign_typed_data(unsigned.typed_data(LOCAL_CHAIN_ID, REGISTRY.address)))


@pytest.fixture
def desk(engine: Engine) -> Desk:
    migrate(engine, "services.aggregator")
    number = CONFIG.id(LOCAL_CHAIN_ID, REGISTRY.address)
    deadlines = Deadlines.after(int(now().timestamp()), 60, masked=False)
    manifest = Manifest.of(CONFIG, federation=number, round_number=1, attempt=1, base_model=BASE, deadlines=deadlines)
    with transaction(engine) as session:
        foundings.found(session, CONFIG, to_hex(number), model=BASE, intent_key="none").state = "running"
        attempt = Attempt(federation_id=to_hex(number), round=1, number=1, opened_at=now())
        attempts.enter(attempt, Phase.OPENING)
        attempt.manifest, attempt.manifest_digest, attempt.base_model = manifest.document(), to_hex(manifest.digest), to_hex(BASE)
        attempt.ctx = to_hex(attempts.terms_of(REGISTRY, session.get_one(Federation, to_hex(number)), attempt).ctx)
        chain = OnchainRound(federation_id=to_hex(number), round=1, attempt=1, opened_transaction=to_hex(bytes(32)))
        chain.manifest_hash, chain.base_model = attempt.manifest_digest, attempt.base_model
        session.add_all([attempt, chain])
    return Desk(engine, to_hex(number))


def step(desk: Desk, later: int = 0) -> bool:
    """Take the step that is due, if one is."""
    silence = ChainSilence(lambda: connect_chain(settings_for("aggregator", "sqlite://", chain_rpc_url=f"http://127.0.0.1:{free_port()}")))
    calls, instant = Calls(REGISTRY, AGGREGATOR, silence), now() + timedelta(seconds=later)
    with transaction(desk.engine) as session:
        due = stages.next_step(session, calls, *desk.rows(session), instant)
        if due is not None:
            due()
    return due is not None


def phase(desk: Desk) -> str:
    with transaction(desk.engine) as session:
        return str(desk.rows(session)[1].stage)


def test_an_attempt_without_masks_begins_with_uploads_and_waits_for_no_stage_that_does_not_happen(desk: Desk) -> None:
    assert step(desk)
    assert phase(desk) == "masked"
    assert all(desk.due(member) for member in MEMBERS)
    for member in MEMBERS[:3]:
        desk.take(desk.announced(member), member)
        assert not desk.due(member)
    assert not step(desk), "one vector and all commitments are missing"
    with transaction(desk.engine) as session:
        for member in MEMBERS[:3]:
            session.add(OnchainCommitment(ctx=desk.rows(session)[1].ctx, participant=member.address, commitment=to_hex(bytes(32))))
    assert not step(desk)
    assert step(desk, later=62)
    assert phase(desk) == "fixing"
    with transaction(desk.engine) as session:
        federation, attempt = desk.rows(session)
        assert attempt.survivors == [member.address for member in MEMBERS[:3]]
        coordinator = plain_attempts.coordinator_of(session, REGISTRY, federation, attempt)
        assert to_hex(coordinator.survivors.fixed.masked) == attempt.masked_record
        chain = session.get_one(OnchainRound, (desk.id, 1, 1))
        chain.survivors_hash, chain.masked_record = attempt.survivors_hash, attempt.masked_record
    assert step(desk)
    assert phase(desk) == "unmask"
    with transaction(desk.engine) as session:
        federation, attempt = desk.rows(session)
        # Nobody is asked for anything, and nothing is waited for.
        assert stages.is_answered(session, federation, attempt, now())
    assert not any(desk.due(member) for member in MEMBERS)


def test_below_the_threshold_the_attempt_is_aborted(desk: Desk) -> None:
    step(desk)
    for member in MEMBERS[:2]:
        desk.take(desk.announced(member), member)
    assert step(desk, later=62)
    assert phase(desk) == "aborted"


def test_hostile_messages_are_refused(desk: Desk) -> None:
    step(desk)
    member, other = MEMBERS[:2]
    honest = desk.announced(member)
    with pytest.raises(SignatureError, match="account that is signed in"):
        desk.take(honest, other)
    keys = signed(member, Stage.KEYS, honest.ctx, {"position": 1, "mask": to_hex(BASE), "encryption": to_hex(bytes([8]) * 32)})
    with pytest.raises(Problem, match="stage keys is closed"):
        desk.take(keys, member)
    # Somebody else's upload, and one whose bytes are not those of the message.
    thief = desk.participant(other)
    _, manifest = thief.salted(vector())
    with pytest.raises(Problem, match="upload"):
        desk.take(thief.announce_masked(honest.payload["upload"]), other)
    wrong = desk.participant(other)
    wrong.salted(vector())
    with pytest.raises(Problem, match="expected upload"):
        desk.take(wrong.announce_masked(desk.upload(other, manifest)), other)
    with pytest.raises(UnexpectedMessageError, match="not in the roster"):
        desk.take(signed(STRANGER, Stage.MASKED, honest.ctx, dict(honest.payload)), STRANGER)
    desk.take(honest, member)
    desk.take(honest, member)
    with pytest.raises(Problem, match="the first one counts"):
        desk.take(desk.announced(member), member)
    with pytest.raises(MalformedMessageError, match="expected a message of the stage unmask"):
        desk.take(honest, member, Stage.UNMASK)
