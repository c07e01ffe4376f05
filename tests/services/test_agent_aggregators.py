"""A site that names several aggregators: it follows whoever opened the attempt on chain, and nobody else can keep it out of a round."""

from pathlib import Path

import numpy as np
import pytest

from rexis.agent.federation.aggregators import Aggregators
from rexis.agent.federation.contribution import read_model
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.registry import Registry
from rexis.chain.signer import development_signer
from rexis.client.aggregator import AggregatorClient
from rexis.errors import UnavailableError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.secagg import Coordinator
from tests.services.federation_stand_in import AGGREGATOR, Attempt, Hospital, Kept, Line, StandIn, config_of, plain_update, play

SECOND = development_signer(8)


@pytest.fixture
def second(stand_in: StandIn, tmp_path: Path) -> StandIn:
    return StandIn(stand_in.chain, tmp_path, (SECOND, AGGREGATOR))


def away(_method: str, _path: str, _content: bytes | None) -> None:
    raise UnavailableError("the aggregator does not answer")


def sent(aggregator: StandIn) -> list[str]:
    """Stages of the messages that came; uploads and commitments go the same way."""
    return [stage for _, stage, _ in aggregator.received if stage in ("keys", "shares", "masked", "unmask")]


def test_an_agent_follows_whoever_opened_the_attempt_when_its_leader_is_gone(
    stand_in: StandIn, second: StandIn, hospitals: list[Hospital]
) -> None:
    stand_in.signers = (AGGREGATOR, SECOND)
    both = sorted((AGGREGATOR.address, SECOND.address), key=str.lower)
    config = FederationConfig.parse(config_of(hospitals, "training", aggregators=both, quorum=2, rounds=1))
    federation = stand_in.found(FederationPlan(config, seed=0))
    kept = stand_in.kept[federation]
    taken = second.kept[federation] = Kept(config, kept.content, kept.model)
    old_lines = []
    for hospital in hospitals:
        hospital.join(federation)
        old_lines.append(Line(stand_in, hospital.signer.address))
        lines = Line(second, hospital.signer.address), old_lines[-1]
        hospital.client = Aggregators(Registry(hospital.chain), [AggregatorClient(line) for line in lines])
        hospital.duty = hospital.agent()
    attempt = stand_in.open_round(federation)
    # The other one shows the leader's attempt as its own: what is sent to it would be missing at the leader.
    taken.attempt = Attempt(attempt.manifest, Coordinator(attempt.coordinator.terms), attempt.graph_seed)
    for stage in ("keys", "shares", "masked"):
        for hospital in hospitals[: 2 if stage == "masked" else 4]:
            hospital.poll()
        if stage != "masked":
            stand_in.close(federation)
    assert not second.received
    assert sent(stand_in) == ["keys"] * 4 + ["shares"] * 4 + ["masked"] * 2
    for line in old_lines:
        line.before = away
    second.abandon(federation)
    second.open_round(federation)
    for number, line in enumerate(old_lines):
        # Two are told by the old leader, which is back and has noticed nothing, that its attempt still runs.
        if number < 2:
            line.before = lambda _method, _path, _content: None
    play(second, federation, hospitals)
    assert len(sent(stand_in)) == 10, "nothing more was sent to the one that does not lead any more"
    assert sent(second) == [stage for stage in ("keys", "shares", "masked", "unmask") for _ in range(4)]
    seen = Registry(stand_in.chain).federation(federation)
    assert (seen.round, seen.model) == (2, taken.model)
    assert config.training is not None
    updates = [plain_update(hospital, config, kept.model, kept.content) for hospital in hospitals]
    weights = sum(weight for _, weight in updates)
    base = read_model(config.training, kept.content, kept.model)
    new = read_model(config.training, taken.content, taken.model)
    moved = np.concatenate([(new[name].astype(np.float64) - base[name]).ravel() for name in config.training.shared])
    assert np.abs(moved - sum(weight * delta for delta, weight in updates) / weights).max() < 1e-6


def test_one_that_took_over_shows_no_sums_of_before_and_the_model_that_a_quorum_signed_is_trained_on(
    stand_in: StandIn, second: StandIn, hospitals: list[Hospital]
) -> None:
    stand_in.signers = (AGGREGATOR, SECOND)
    both = sorted((AGGREGATOR.address, SECOND.address), key=str.lower)
    config = FederationConfig.parse(config_of(hospitals, "training", aggregators=both, quorum=2, rounds=2))
    federation = stand_in.found(FederationPlan(config, seed=0))
    lines = []
    for hospital in hospitals:
        hospital.join(federation)
        lines.append(Line(stand_in, hospital.signer.address))
        clients = [AggregatorClient(line) for line in (lines[-1], Line(second, hospital.signer.address))]
        hospital.client = Aggregators(Registry(hospital.chain), clients)
        hospital.duty = hospital.agent()
    stand_in.open_round(federation)
    play(stand_in, federation, hospitals)
    for line in lines:
        line.before = away
    kept = stand_in.kept[federation]
    taken = second.kept[federation] = Kept(config, kept.content, kept.model)
    taken.rounds = kept.rounds
    before = read_model(plan_of(config), kept.content, kept.model)
    updates = [plain_update(hospital, config, kept.model, kept.content) for hospital in hospitals]
    second.open_round(federation)
    play(second, federation, hospitals)
    new = read_model(plan_of(config), taken.content, taken.model)
    moved = np.concatenate([(new[name].astype(np.float64) - before[name]).ravel() for name in plan_of(config).shared])
    expected = sum(weight * delta for delta, weight in updates) / sum(weight for _, weight in updates)
    assert np.abs(moved - expected).max() < 1e-6
    assert Registry(stand_in.chain).federation(federation).round == 3


def plan_of(config: FederationConfig) -> TrainingPlan:
    assert config.training is not None
    return config.training


def test_what_was_made_is_shown_by_whoever_answers_and_one_that_is_away_stops_nobody(
    stand_in: StandIn, second: StandIn, hospitals: list[Hospital]
) -> None:
    second.signers = (SECOND,)
    federation = stand_in.found(FederationPlan(FederationConfig.parse(config_of(hospitals, "training", rounds=1)), seed=1))
    me = hospitals[0]
    gone, there = Line(second, me.signer.address), Line(stand_in, me.signer.address)
    several = Aggregators(Registry(me.chain), [AggregatorClient(gone), AggregatorClient(there)])
    gone.before = away
    assert several.work() == ()
    assert several.model(federation) == stand_in.kept[federation].content
    assert several.rounds(federation) == ()
    there.before = away
    with pytest.raises(UnavailableError):
        several.work()
    with pytest.raises(UnavailableError):
        several.model(federation)
