"""Sparse graphs of neighbours at the aggregator: seventy members get one, and a chain that changes its mind about it gets no sum."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from sqlalchemy import Engine

from rexis.agent.federation.founding import FederationPlan
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.chain.silence import ChainSilence
from rexis.encoding import from_hex, to_hex
from rexis.errors import ServiceError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.secagg_messages import Stage
from rexis.secagg import Participant
from rexis.secagg.graph import neighbours
from services.aggregator import attempts, foundings, messages, stages
from services.aggregator.attempts import Phase
from services.aggregator.background import PROJECTIONS
from services.aggregator.models import Attempt, Federation, OnchainRound
from services.aggregator.registry_calls import Calls, Registry
from services.aggregator.rounds import Rounds
from services.foundation.assembly import chain_jobs, connect_chain, deployment_of
from services.foundation.background import Job
from services.foundation.database import migrate, now, open_engine, transaction
from services.foundation.objects import open_store
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.chain_process import rpc
from tests.services.federations_on_chain import AGGREGATOR, FEATURES, Gathering, gathered, migrated, wait_until
from tests.services.marketplace_on_chain import running_chain
from tests.services.service_applications import serving

REGISTRY = Registry.of(load(LOCAL_CHAIN_ID))
MEMBERS = 70
BLOCK = to_hex(bytes(range(32)))


@dataclass
class Desk:
    """An aggregator that is worked by hand."""

    gathering: Gathering
    engine: Engine
    jobs: list[Job]
    rpc_url: str

    def work(self) -> None:
        for job in self.jobs:
            job.run()

    def attempt(self, federation: bytes) -> Attempt | None:
        with transaction(self.engine, read_only=True) as session:
            return attempts.latest(session, session.get_one(Federation, to_hex(federation)))

    def is_in(self, federation: bytes, stage: str) -> bool:
        """Whether the attempt is in a stage, in which nobody has sent anything; up to there everybody sends."""
        self.work()
        attempt = self.attempt(federation)
        if attempt is not None and attempt.stage == stage:
            return True
        for institution in self.gathering.institutions:
            institution.act()
        return False

    def opened_block(self, federation: bytes) -> str | None:
        with transaction(self.engine, read_only=True) as session:
            row = session.get(OnchainRound, (to_hex(federation), 1, 1))
        return None if row is None else row.opened_block


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with running_chain(tmp_path) as rpc_url, ExitStack() as stack:
        settings = migrated(tmp_path, rpc_url)
        stack.enter_context(serving(settings))
        engine = open_engine(settings.database_url)
        stack.callback(engine.dispose)
        silence = ChainSilence(lambda: connect_chain(settings))
        rounds = Rounds(engine, open_store(settings.object_store_url), Registry.of(deployment_of(settings)), AGGREGATOR, silence)
        jobs = [*chain_jobs(settings, engine, PROJECTIONS), Job("rounds", 0, rounds.run_once)]
        for job in jobs:
            job.run()
        chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
        yield Desk(stack.enter_context(gathered(settings, chain, tmp_path)), engine, jobs, rpc_url)


def test_an_attempt_whose_opening_moves_to_another_block_ends_and_no_sum_is_opened(desk: Desk) -> None:
    federation = desk.gathering.found("moved", training=None, degree=2, stage_s=60)
    wait_until(lambda: desk.is_in(federation, "masked"))
    before, chain = desk.opened_block(federation), desk.gathering.chain
    assert before is not None
    opened = chain.contract("FederationRegistry").events.RoundOpened().get_logs(from_block=0)[-1]["blockNumber"]

    def has_moved() -> bool:
        """Onto a block whose hash orders the four in another ring: two in three do."""
        block = desk.opened_block(federation)
        return block is not None and ring(block) != ring(before)

    for _ in range(20):
        rpc(desk.rpc_url, "anvil_reorg", chain.web3.eth.block_number - opened + 1, [])
        block = desk.opened_block(federation)
        wait_until(lambda block=block: (desk.work(), desk.opened_block(federation) not in (None, block))[1])
        if has_moved():
            break
        opened = chain.contract("FederationRegistry").events.RoundOpened().get_logs(from_block=0)[-1]["blockNumber"]
    assert has_moved()
    # What the sites sent holds for other neighbours: nothing of it is taken, nor anything that follows from it.
    for institution in desk.gathering.institutions:
        with pytest.raises(ServiceError, match="neighbours"):
            institution.act()
    attempt = desk.attempt(federation)
    assert attempt is not None
    with transaction(desk.engine) as session:
        row = session.get_one(Attempt, (attempt.federation_id, 1, 1))
        row.manifest = {**row.manifest, "deadlines": dict.fromkeys(row.manifest["deadlines"], 1)}
    desk.work()
    attempt = desk.attempt(federation)
    assert attempt is not None
    assert (attempt.stage, "neighbours" in (attempt.reason or "")) == ("aborted", True), attempt.reason
    assert not chain.contract("FederationRegistry").events.SurvivorsFixed().get_logs(from_block=0)


def ring(block: str) -> dict[int, frozenset[int]]:
    return neighbours(range(1, 5), 2, from_hex(block, 32))


def never_asked() -> Chain:
    """No stage of these waits for a chain that may be away."""
    raise AssertionError


def plan_of(members: list[LocalSigner], folder: Path) -> FederationConfig:
    """As its founder wrote it: nothing about neighbours."""
    described = {
        "name": "seventy",
        "kind": "statistics",
        "members": [{"address": member.address, "dataset": number} for number, member in enumerate(members, start=1)],
        "purpose": "HMB",
        "features": FEATURES,
        "stage_s": 600,
        "collusion_bound": 3,
        "statistics": {"identifier": "moments", "scale_bits": 16},
    }
    path = folder / "federation.yaml"
    path.write_text(yaml.safe_dump(described))
    return FederationPlan.read(path, founder=members[0].address, aggregator=AGGREGATOR.address).config


def test_seventy_members_share_with_their_neighbours_alone(tmp_path: Path) -> None:
    members = sorted((LocalSigner.generate() for _ in range(MEMBERS)), key=lambda signer: signer.address.lower())
    config = plan_of(members, tmp_path)
    assert config.degree is not None
    assert 2 < config.degree < MEMBERS - 1
    foundings.check_config(config, caller=members[0].address, aggregator=AGGREGATOR.address)
    engine = open_engine(f"sqlite:///{tmp_path / 'seventy.sqlite'}")
    calls = Calls(REGISTRY, AGGREGATOR, ChainSilence(never_asked))
    migrate(engine, "services.aggregator")
    number = to_hex(config.id(REGISTRY.chain_id, REGISTRY.address))
    with transaction(engine) as session:
        federation = foundings.found(session, config, number, model=config.statistic_digest, intent_key="relay:none", state="running")
        attempt = attempts.begin(session, calls, federation, round_number=1, number=1)
        terms = attempts.terms_of(REGISTRY, federation, attempt)
        chain = OnchainRound(federation_id=number, round=1, attempt=1, opened_transaction=BLOCK, opened_block=BLOCK)
        chain.manifest_hash, chain.base_model = attempt.manifest_digest, attempt.base_model
        session.add(chain)
    participants = {member.address: Participant(terms, member, earlier=()) for member in members}

    def step() -> Phase:
        with transaction(engine) as session:
            found = session.get_one(Federation, number)
            current = attempts.latest(session, found)
            assert current is not None
            due = stages.next_step(session, calls, found, current, now())
            if due is not None:
                due()
            return Phase(current.stage)

    def take(stage: Stage, sender: str, body: bytes) -> None:
        with transaction(engine) as session:
            found, current = session.get_one(Federation, number), session.get_one(Attempt, (number, 1, 1))
            messages.take(session, REGISTRY, found, current, stage, body, sender)

    def closed(stage: Stage) -> list:
        with transaction(engine, read_only=True) as session:
            return messages.closed(session, session.get_one(Attempt, (number, 1, 1)), stage)

    assert step() is Phase.KEYS
    for address, participant in participants.items():
        take(Stage.KEYS, address, participant.announce_keys().to_bytes())
    assert step() is Phase.SHARES
    announced, ring_of_seventy = closed(Stage.KEYS), neighbours(range(1, MEMBERS + 1), config.degree, from_hex(BLOCK, 32))
    for address, participant in participants.items():
        message = participant.share(announced, graph_seed=from_hex(BLOCK, 32))
        receivers = {config.roster.index(entry["to"]) + 1 for entry in message.payload["ciphertexts"]}
        assert receivers == set(ring_of_seventy[config.roster.index(address) + 1])
        assert len(receivers) == config.degree
        take(Stage.SHARES, address, message.to_bytes())
    assert step() is Phase.MASKED
    shared = closed(Stage.SHARES)
    assert len(shared) == MEMBERS
    for participant in participants.values():
        participant.open_shares(shared)
