"""What an aggregator signs, and what it counts, by its own tables; no chain but rows as the index leaves them."""

from dataclasses import dataclass, replace

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.encoding import to_hex
from rexis.errors import EquivocationError, SignatureError, UnexpectedMessageError
from rexis.protocol.approvals import Approval, Statement
from rexis.protocol.equivocation import Equivocation
from rexis.protocol.federation_rounds import RoundResult, Survivors
from services.aggregator import approvals, foundings
from services.aggregator.background import jobs
from services.aggregator.models import ApprovalRow, EquivocationRow, Federation, OnchainRound
from services.aggregator.registry_calls import Registry
from services.aggregator.settings import AggregatorSettings
from services.foundation.database import migrate, transaction
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.federations_on_chain import config_of
from tests.services.marketplace_on_chain import RELAYER_KEY
from tests.services.service_applications import settings_for

SIGNERS = sorted((LocalSigner.generate() for _ in range(3)), key=lambda signer: signer.address.lower())
MEMBERS = sorted((LocalSigner.generate() for _ in range(4)), key=lambda signer: signer.address.lower())
OWN, OTHER, THIRD = SIGNERS
CONFIG = config_of(MEMBERS, MEMBERS[0], "approved", aggregators=[signer.address for signer in SIGNERS], quorum=2)
REGISTRY = Registry.of(load(LOCAL_CHAIN_ID))
ID = CONFIG.id(REGISTRY.chain_id, REGISTRY.address)
HASH = to_hex(b"\1" * 32)
SURVIVORS = Survivors(ID, 1, 1, b"\1" * 32, b"\2" * 32)
RESULT = RoundResult(ID, 1, 1, b"\1" * 32, b"\1" * 32, 3, bytes(32), b"\3" * 32, b"\4" * 32)


@dataclass
class Desk:
    """One aggregator's tables."""

    engine: Engine

    def sign(self, statement: Statement) -> Approval:
        with transaction(self.engine) as session:
            return approvals.sign(session, REGISTRY, OWN, statement)

    def record(self, approval: Approval) -> Equivocation | None:
        with transaction(self.engine) as session:
            return approvals.record(session, REGISTRY, self.federation(session), approval)

    def granted(self, statement: Statement) -> list[str]:
        with transaction(self.engine, read_only=True) as session:
            return [approval.signer for approval in approvals.granted(session, self.federation(session), statement)]

    def missing(self, statement: Statement) -> str:
        with transaction(self.engine, read_only=True) as session:
            return approvals.missing(session, self.federation(session), statement)

    def federation(self, session: Session) -> Federation:
        return session.get_one(Federation, to_hex(ID))

    def opened(self, attempt: int, **happened: str) -> None:
        """The chain has this attempt, with what happened to it since."""
        row = OnchainRound(federation_id=to_hex(ID), round=1, attempt=attempt, manifest_hash=HASH, base_model=HASH, opened_transaction=HASH)
        for name, value in happened.items():
            setattr(row, name, value)
        with transaction(self.engine) as session:
            session.merge(row)

    def rows(self) -> tuple[int, int]:
        with transaction(self.engine, read_only=True) as session:
            kept, named = (session.scalar(select(func.count()).select_from(table)) or 0 for table in (ApprovalRow, EquivocationRow))
        return kept, named


@pytest.fixture
def desk(engine: Engine) -> Desk:
    migrate(engine, "services.aggregator")
    with transaction(engine) as session:
        foundings.found(session, CONFIG, to_hex(ID), model=bytes(32), intent_key="", state="witnessing")
    return Desk(engine)


def by(signer: LocalSigner, statement: Statement) -> Approval:
    typed = statement.typed_data(REGISTRY.chain_id, REGISTRY.address)
    return Approval(statement, signer.address, signer.sign_typed_data(typed))


def test_survivors_are_signed_once_and_the_same_ones_again_give_the_same_signature(desk: Desk) -> None:
    with pytest.raises(UnexpectedMessageError, match="nothing is signed"):
        desk.sign(SURVIVORS)
    desk.opened(1)
    first = desk.sign(SURVIVORS)
    first.verify(REGISTRY.chain_id, REGISTRY.address)
    assert desk.sign(SURVIVORS) == first
    for other in (replace(SURVIVORS, survivors_hash=bytes(32)), replace(SURVIVORS, masked_record=bytes(32))):
        with pytest.raises(EquivocationError, match="signed another survivors statement"):
            desk.sign(other)
    assert desk.rows() == (1, 0)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_round_gets_other_survivors_only_after_the_chain_gave_the_earlier_attempt_up_without_any(desk: Desk) -> None:
    """An attempt that is taken back by a reorganisation can then not be fixed beside a later one by the signatures that it had."""
    desk.opened(1)
    desk.sign(SURVIVORS)
    desk.opened(2)
    later = replace(SURVIVORS, attempt=2, survivors_hash=b"\7" * 32)
    for happened in ({}, {"survivors_hash": HASH}, {"survivors_hash": HASH, "abandoned_transaction": HASH}):
        desk.opened(1, **{"survivors_hash": None, "abandoned_transaction": None, **happened})
        with pytest.raises(UnexpectedMessageError, match="attempt 2 of round 1 alone"):
            desk.sign(later)
    desk.opened(1, survivors_hash=None, abandoned_transaction=HASH)
    assert desk.sign(later).statement == later


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_result_is_signed_when_the_chain_has_its_survivors(desk: Desk) -> None:
    desk.opened(1)
    with pytest.raises(UnexpectedMessageError, match="with its survivors fixed"):
        desk.sign(RESULT)
    desk.opened(1, survivors_hash=HASH)
    with pytest.raises(UnexpectedMessageError, match="not fixed yet"):
        desk.sign(SURVIVORS)
    assert desk.sign(RESULT) == desk.sign(RESULT)
    desk.opened(1, survivors_hash=HASH, abandoned_transaction=HASH)
    with pytest.raises(EquivocationError):
        desk.sign(replace(RESULT, model=bytes(32)))


def test_who_signs_two_things_counts_for_nothing_and_is_named(desk: Desk) -> None:
    desk.opened(1)
    desk.sign(SURVIVORS)
    assert desk.record(by(OTHER, SURVIVORS)) is None
    assert desk.record(by(OTHER, SURVIVORS)) is None
    assert desk.granted(SURVIVORS) == [OWN.address, OTHER.address]
    second = by(OTHER, replace(SURVIVORS, survivors_hash=b"\7" * 32))
    evidence = desk.record(second)
    assert evidence is not None
    evidence.verify(REGISTRY.chain_id, REGISTRY.address)
    assert desk.record(second) is not None
    assert desk.rows() == (2, 1)
    assert desk.granted(SURVIVORS) == [OWN.address]
    desk.record(by(THIRD, replace(SURVIVORS, masked_record=b"\7" * 32)))
    assert desk.missing(SURVIVORS) == (
        "1 of 3 aggregators signed the survivors in time, 2 have to: "
        f"{OTHER.address} signed two different statements; {THIRD.address} signed another one"
    )


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_is_not_an_aggregators_word_about_this_round_is_not_kept(desk: Desk) -> None:
    desk.opened(1)
    good = by(OTHER, SURVIVORS)
    for approval in (
        by(MEMBERS[0], SURVIVORS),
        Approval(SURVIVORS, OTHER.address, by(THIRD, SURVIVORS).signature),
        by(OTHER, replace(SURVIVORS, federation=bytes(32))),
    ):
        with pytest.raises(SignatureError):
            desk.record(approval)
    with pytest.raises(UnexpectedMessageError, match="the chain has no attempt 2 of round 1 yet"):
        desk.record(by(OTHER, replace(SURVIVORS, attempt=2)))
    forgery = Approval(replace(SURVIVORS, masked_record=bytes(32)), OTHER.address, good.signature)
    with transaction(desk.engine) as session, pytest.raises(SignatureError):
        approvals.keep_evidence(session, REGISTRY, desk.federation(session), Equivocation(good, forgery))
    assert desk.rows() == (0, 0)


def test_peers_are_addresses_with_origins(engine: Engine) -> None:
    def settings(peers: str) -> AggregatorSettings:
        made = settings_for("aggregator", "sqlite:///unused", relayer_key=RELAYER_KEY, peers=peers)
        assert isinstance(made, AggregatorSettings)
        return made

    two = settings(f" {OTHER.address.lower()}=https://b.example/ , {THIRD.address}=http://127.0.0.1:8003")
    assert dict(two.peer_urls) == {OTHER.address: "https://b.example", THIRD.address: "http://127.0.0.1:8003"}
    for peers in (
        "https://b.example",
        f"{OTHER.address}=http://b.example",
        f"{OTHER.address}=https://b.example/path",
        f"{OTHER.address}=https://b.example,{OTHER.address.lower()}=https://c.example",
        f"{OTHER.address[:-1]}=https://b.example",
    ):
        with pytest.raises(ValueError, match="peers"):
            settings(peers)
    names = {peers: {job.name for job in jobs(settings(peers), engine)} for peers in ("", two.peers)}
    assert names[two.peers] - names[""] == {"witness", "gossip", "takeover"}
