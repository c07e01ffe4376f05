"""An aggregator whose chain goes away between the masked vectors and the result, and which dies at every commit meanwhile."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.chain.silence import ChainSilence
from rexis.encoding import to_hex
from rexis.protocol.secagg_messages import Stage
from services.aggregator import attempts, foundings, lifecycle, stages
from services.aggregator.attempts import Phase
from services.aggregator.models import Attempt, Federation, OnchainFederation, OnchainRound, RoundMessage
from services.aggregator.registry_calls import Calls, Registry
from services.foundation.assembly import connect_chain
from services.foundation.database import now, open_engine, transaction
from services.foundation.outbox.transactions import ChainIntent
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.aggregators_on_chain import config_changes, dying, operators
from tests.services.chain_process import Outage, Proxy, is_call, rpc
from tests.services.conftest import free_port
from tests.services.federations_on_chain import (
    AGGREGATOR,
    TRAINING,
    config_of,
    gathered,
    mean_pull,
    migrated,
    survivors_of,
    wait_until,
    weights_in,
)
from tests.services.marketplace_on_chain import running_chain

STAGE_S = 20
DIGEST = to_hex(bytes(32))
START = np.array([0.5, -1.0, 2.0])
# At which commit each life ends; the longer ones get further than the introduction and the relay's own.
LIVES = ((1, "after"), (2, "before"), (2, "after"), (3, "before"), (3, "after"), (5, "after"))


def test_a_round_without_its_chain_is_opened_once_and_recorded_later_whatever_dies_at_any_commit(tmp_path: Path) -> None:
    """Two aggregators have to sign; the chain is back when the round's deadline is long over."""
    with ExitStack() as stack, running_chain(tmp_path) as rpc_url:
        node = Proxy(rpc_url)
        stack.callback(node.close)
        made = stack.enter_context(operators(tmp_path, node.url, 2))
        dies = stack.enter_context(ExitStack())
        outages: list[Outage] = []

        def cut(parameters: list[Any]) -> bool:
            if outages or not is_call(parameters, "fixSurvivors"):
                return False
            outages.append(Outage())
            node.before = outages[0]
            dies.enter_context(dying(made[0], LIVES))
            raise ConnectionAbortedError

        node.refuses["eth_sendRawTransaction"] = cut
        chain, seen = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID)), []
        with gathered(made[0].settings, chain, tmp_path) as gathering:

            def work() -> None:
                for operator in made:
                    operator.work()
                stage = {item.stage for item in gathering.institutions[0].client.work()}
                seen.extend(stage - set(seen))
                if stage == {"recording"} and isinstance(node.before, Outage):
                    dies.close()
                    rpc(rpc_url, "evm_increaseTime", 24 * 3600)
                    rpc(rpc_url, "evm_mine")
                    node.before = {}

            federation = gathering.found("cut off", training={**TRAINING, "rounds": 1}, stage_s=30, **config_changes(made, 2))
            ended = gathering.play(federation, until_s=170, then=work)[federation]
            assert (ended.state, ended.reason) == ("finished", "")
            assert made[0].deaths >= 2
            assert [stage for stage in seen if stage in ("survivors", "recording")] == ["survivors", "recording"]
            (record,) = gathering.founder.rounds(federation)
            assert (record.attempt, survivors_of(record.survivors, gathering.members)) == (1, [0, 1, 2, 3])
            np.testing.assert_allclose(weights_in(gathering.founder.model(federation)), mean_pull(START, [0, 1, 2, 3]), atol=1e-5)
            for event in ("RoundOpened", "SurvivorsFixed", "RoundFinalised"):
                found = getattr(chain.contract("FederationRegistry").events, event)().get_logs(from_block=0)
                assert len(found) == 1, event


@dataclass
class Desk:
    """One attempt of a federation of four with t = 3, between two steps; no chain is needed to decide what is next."""

    session: Session
    federation: Federation
    attempt: Attempt
    calls: Calls

    def step(self, instant: datetime | None = None) -> str:
        """Take the step that is due; the stage afterwards."""
        due = lifecycle.next_step(self.session, self.calls, self.federation, instant or now())
        if due is not None:
            due()
        self.session.flush()
        return self.attempt.stage

    def lose_chain(self) -> None:
        """No node answers, for long enough."""
        self.calls.silence.look()
        wait_until(lambda: self.calls.silence.reason(STAGE_S, 3) is not None)

    def say(self, stage: Stage, count: int) -> None:
        """So many members have sent at a stage; what they sent was checked when it came."""
        for member in self.federation.members[:count]:
            numbers = {"federation_id": self.federation.id, "round": 1, "attempt": 1}
            self.session.merge(RoundMessage(**numbers, stage=stage.value, sender=member.address, digest=DIGEST, body=None))
        self.session.flush()

    def fail(self, function: str, error: str) -> None:
        """The promised call was refused."""
        intent = self.session.scalars(select(ChainIntent).where(ChainIntent.key.startswith(function))).one()
        intent.enter("failed", {"error": error, "detail": f"the registry refuses it: {error}"})
        self.session.flush()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """In the stage fixing, its call promised, everybody's shares there."""
    settings = migrated(tmp_path, f"http://127.0.0.1:{free_port()}")
    engine = open_engine(settings.database_url)
    members = sorted((LocalSigner.generate() for _ in range(4)), key=lambda signer: signer.address.lower())
    config = config_of(members, members[0], "desk", stage_s=STAGE_S)
    registry = Registry.of(load(LOCAL_CHAIN_ID))
    calls = Calls(registry, AGGREGATOR, ChainSilence(lambda: connect_chain(settings)))
    with transaction(engine) as session:
        number = to_hex(config.id(registry.chain_id, registry.address))
        federation = foundings.found(session, config, number, model=bytes(32), intent_key="relay:none", state="running")
        session.add(OnchainFederation(id=number, founder=members[0].address, config_hash=DIGEST, created_transaction=DIGEST))
        attempt = attempts.begin(session, calls, federation, round_number=1, number=1)
        attempts.enter(attempt, Phase.FIXING)
        attempt.survivors, attempt.survivors_hash, attempt.masked_record = list(config.roster), DIGEST, DIGEST
        chain = OnchainRound(federation_id=number, round=1, attempt=1, manifest_hash=attempt.manifest_digest, base_model=attempt.base_model)
        chain.opened_transaction = DIGEST
        session.add(chain)
        session.flush()
        made = Desk(session, federation, attempt, calls)
        made.say(Stage.SHARES, 4)
        # It signs, and then promises.
        assert (made.step(), made.step()) == ("fixing", "fixing")
        yield made
    engine.dispose()


def test_sites_are_asked_only_while_the_chain_is_away(desk: Desk) -> None:
    assert desk.step() == "fixing"
    desk.lose_chain()
    assert desk.step() == "survivors"


def test_fewer_than_t_open_nothing_and_t_open_when_the_others_had_half_a_stage(desk: Desk) -> None:
    desk.lose_chain()
    assert desk.step() == "survivors"
    half = now() + timedelta(seconds=STAGE_S / 2 + 1)
    desk.say(Stage.SURVIVORS, 2)
    assert desk.step(half) == "survivors"
    desk.say(Stage.SURVIVORS, 3)
    assert desk.step() == "survivors"
    assert desk.step(half) == "unmask"
    assert not stages.is_answered(desk.session, desk.federation, desk.attempt, now())
    desk.say(Stage.UNMASK, 3)
    assert stages.is_answered(desk.session, desk.federation, desk.attempt, now())


@pytest.mark.parametrize(("stage", "following"), [(Phase.SURVIVORS, "unmask"), (Phase.RECORDING, "finalising")])
@pytest.mark.parametrize("same", [True, False])
def test_the_chain_decides_when_it_is_back(stage: Phase, following: str, same: bool, desk: Desk) -> None:
    attempts.enter(desk.attempt, stage, tries=desk.attempt.tries)
    desk.say(Stage.SURVIVORS, 3)
    chain = attempts.onchain(desk.session, desk.attempt)
    assert chain is not None
    chain.survivors_hash, chain.masked_record = DIGEST, DIGEST if same else to_hex(bytes([1]) * 32)
    assert desk.step() == (following if same else "aborted")


def test_a_sum_that_could_not_be_recorded_ends_the_federation_with_a_reason(desk: Desk) -> None:
    """Three of four have answered and send nothing in another attempt, so that there is none."""
    attempts.enter(desk.attempt, Phase.RECORDING)
    desk.say(Stage.SURVIVORS, 3)
    desk.say(Stage.UNMASK, 3)
    assert desk.step() == "recording"
    desk.fail("fixSurvivors", "SurvivorsTooLate")
    # The registry takes them late, with the sites' signatures, but not from a round that was abandoned.
    assert (desk.step(), desk.step()) == ("recording", "recording")
    desk.fail("fixConsented", "WrongStatus")
    assert desk.step() == "aborted"
    assert "while the chain was away" in (desk.attempt.reason or "")
    chain = attempts.onchain(desk.session, desk.attempt)
    assert chain is not None
    chain.abandoned_transaction = DIGEST
    desk.step()
    assert (desk.federation.state, "WrongStatus" in (desk.federation.reason or "")) == ("failed", True)


def test_a_sum_that_nobody_opened_leaves_the_round_another_attempt(desk: Desk) -> None:
    desk.lose_chain()
    assert desk.step() == "survivors"
    desk.say(Stage.SURVIVORS, 2)
    desk.fail("fixSurvivors", "SurvivorsTooLate")
    assert (desk.step(), desk.step()) == ("fixing", "aborted")
    chain = attempts.onchain(desk.session, desk.attempt)
    assert chain is not None
    chain.abandoned_transaction = DIGEST
    desk.step()
    again = attempts.latest(desk.session, desk.federation)
    assert again is not None
    assert (desk.federation.state, again.number) == ("running", 2)
