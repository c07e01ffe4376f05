"""Federations from founding to the last round, with everything that can go missing on the way, against a real chain and real processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.client.aggregator import Federation, RoundRecord
from rexis.client.relayed_calls import RelayClient, sign_call
from rexis.encoding import canonical_json, parse_canonical_json, sha256
from rexis.errors import ServiceError
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg.payloads import vector_record
from rexis.secagg.server_steps import initial_state, server_step
from rexis.secagg.statistics import Moments
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.conftest import new_postgres_database
from tests.services.federations_on_chain import (
    SPEC,
    TABLES,
    TRAINING,
    Gathering,
    gathered,
    masked_uploads,
    mean_pull,
    migrated,
    process,
    pull_vector,
    survivors_of,
    wait_until,
    weights_in,
)
from tests.services.marketplace_on_chain import running_chain
from tests.services.service_applications import serving

BACKGROUND = "services.aggregator.background"
START = np.array([0.5, -1.0, 2.0])
# Long enough for a busy machine: whoever is not missing must not be late.
STAGE_S = 20
NAMES = ("whole", "shares", "masked", "uncommitted", "below", "unanswered", "statistic", "converging")
# No loss falls by so much: training ends after the second of five rounds.
CONVERGING = {
    "rounds": 5,
    "strategy": {"name": "fedadam", "learning_rate": "0.5", "beta1": "0.5", "beta2": "0.75", "tau": "0.25"},
    "stopping": {"holdout": "0.2", "patience": 1, "improvement": "10"},
}


def silence(who: int, name: str, round_number: int, attempt: int, stage: str) -> bool:
    """Who is missing where, in each federation."""
    first = (round_number, attempt) == (1, 1)
    match name:
        case "shares":
            return first and who == 3 and stage in ("shares", "masked", "unmask")
        case "masked":
            return first and who == 1 and stage in ("masked", "unmask")
        case "uncommitted":
            return first and who == 0 and stage == "commitment"
        case "below":
            return first and who in (0, 1)
        case "unanswered":
            return first and who in (2, 3) and stage == "unmask"
        case _:
            return False


@dataclass
class Played:
    """All federations, after they ended."""

    gathering: Gathering
    federations: dict[str, Federation]
    rounds: dict[str, tuple[RoundRecord, ...]]

    def survivors(self, name: str) -> list[list[int]]:
        """Numbers of the survivors of each attempt."""
        return [survivors_of(record.survivors, self.gathering.members) for record in self.rounds[name]]


@pytest.fixture(scope="module")
def database(postgres_admin: Engine) -> Iterator[str]:
    """A PostgreSQL database, where row locks matter; the rounds of `test_aggregator_kills` are on SQLite."""
    yield from new_postgres_database(postgres_admin, "foundation_template")


@pytest.fixture(scope="module")
def played(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Eight federations of the same four institutions, at the same time."""
    folder: Path = tmp_path_factory.mktemp("rounds")
    with running_chain(folder) as rpc_url:
        chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
        settings = migrated(folder, rpc_url, database)
        with serving(settings), process(settings, BACKGROUND), gathered(settings, chain, folder, silence) as gathering:
            ids = {}
            for name in NAMES:
                changes = CONVERGING if name == "converging" else {"rounds": 1 if name == "below" else 2}
                training = None if name == "statistic" else {**TRAINING, **changes}
                stage_s = 60 if name in ("whole", "statistic", "converging") else STAGE_S
                ids[name] = gathering.found(name, stage_s=stage_s, training=training)
            ended = gathering.play(*ids.values())
            found = {name: ended[federation] for name, federation in ids.items()}
            yield Played(gathering, found, {name: gathering.founder.rounds(federation) for name, federation in ids.items()})


@pytest.mark.parametrize(
    ("name", "survivors"),
    [
        ("whole", [[0, 1, 2, 3], [0, 1, 2, 3]]),
        ("shares", [[0, 1, 2], [0, 1, 2, 3]]),
        ("masked", [[0, 2, 3], [0, 1, 2, 3]]),
        ("uncommitted", [[1, 2, 3], [0, 1, 2, 3]]),
        ("below", [[], [0, 1, 2, 3]]),
    ],
)
def test_the_model_is_the_mean_of_exactly_the_survivors(played: Played, name: str, survivors: list[list[int]]) -> None:
    federation = played.federations[name]
    assert (federation.state, federation.reason) == ("finished", ""), federation
    assert played.survivors(name) == survivors
    expected = START
    for present in filter(None, survivors):
        expected = mean_pull(expected.astype(np.float32).astype(np.float64), present)
    np.testing.assert_allclose(weights_in(played.gathering.founder.model(federation.id)), expected, atol=1e-5)


def test_models_on_chain_follow_from_each_other(played: Played) -> None:
    contract = played.gathering.chain.contract("FederationRegistry")
    for name, federation in played.federations.items():
        if federation.state == "finished":
            logs = contract.events.RoundFinalised().get_logs(from_block=0, argument_filters={"federation": federation.id})
            results = [log["args"] for log in logs]
            finished = [record for record in played.rounds[name] if record.state == "finished"]
            assert [result["model"] for result in results] == [record.model for record in finished]
            assert [result["baseModel"] for result in results[1:]] == [result["model"] for result in results[:-1]]
            assert results[-1]["model"] == federation.model == contract.functions.get(federation.id).call()[11]
            metrics = [bytes(32) if record.metrics is None else sha256(canonical_json(record.metrics)) for record in finished]
            assert [result["metrics"] for result in results] == metrics
            assert all(
                record.transactions["finalised"] == f"0x{log['transactionHash'].hex()}" for record, log in zip(finished, logs, strict=True)
            )


def test_metrics_are_of_the_sum(played: Played) -> None:
    first, second = played.rounds["masked"]
    assert (first.metrics, second.metrics) == (
        {"version": 1, "loss": "0.250000", "weight": 150 + 50 + 150},
        {"version": 1, "loss": "0.250000", "weight": 150 + 100 + 50 + 150},
    )


def test_a_strategys_state_stands_beside_the_model_and_training_ends_when_it_has_converged(played: Played) -> None:
    """Members who have the sums compute models, states and the end again, to the last bit."""
    federation, records, founder = played.federations["converging"], played.rounds["converging"], played.gathering.founder
    assert (federation.state, federation.round, federation.rounds_total) == ("finished", 2, 5)
    assert federation.reason == "converged after round 2: no improvement of the loss on held-out rows (patience 1)"
    config = federation.config
    assert config.training is not None
    assert config.training.stopping is not None
    state, tensors = initial_state(config.training), {"0.weight": START[None, :2].astype("f4"), "0.bias": START[2:].astype("f4")}
    for record in records:
        base = np.concatenate([tensors[name].ravel() for name in ("0.weight", "0.bias")]).astype(np.float64)
        total = sum((pull_vector(config, base, number) for number in range(4)), np.zeros(config.length, dtype=np.uint32))
        step = server_step(config, tensors, state, [total])
        assert (vector_record(total), step.metrics) == (record.aggregate, record.metrics)
        state, tensors = step.state, step.tensors
    assert founder.server_state(federation.id) == state
    np.testing.assert_array_equal(weights_in(founder.model(federation.id)), np.concatenate([tensors[name].ravel() for name in SPEC.shapes]))
    assert [record.metrics["holdout_loss"] for record in records if record.metrics is not None] == ["0.375000"] * 2
    for client, name in ((played.gathering.stranger, "converging"), (founder, "whole")):
        with pytest.raises(ServiceError) as refused:
            client.server_state(played.federations[name].id)
        assert refused.value.status == 404


def test_an_attempt_below_the_threshold_is_given_up_with_a_reason_and_tried_again(played: Played) -> None:
    aborted, finished = played.rounds["below"]
    assert (aborted.state, aborted.attempt, finished.state, finished.attempt) == ("aborted", 1, "finished", 2)
    assert "stage keys" in aborted.reason
    assert "2" in aborted.reason
    assert aborted.model is None
    assert aborted.transactions["abandoned"] is not None
    assert aborted.base_model == finished.base_model


def test_a_sum_that_is_fixed_and_can_not_be_opened_ends_the_federation(played: Played) -> None:
    """A second sum from the same model, over other survivors, could show a single update."""
    federation, (aborted,) = played.federations["unanswered"], played.rounds["unanswered"]
    assert federation.state == "failed"
    assert "stage unmask" in federation.reason
    assert aborted.transactions["fixed"] is not None
    assert aborted.transactions["abandoned"] is not None
    assert aborted.model is None


def test_a_statistic_is_the_one_of_all_tables(played: Played) -> None:
    federation = played.federations["statistic"]
    document = played.gathering.founder.result(federation.id)
    assert sha256(document) == federation.model
    moments, table = Moments.parse(parse_canonical_json(document, max_bytes=1 << 16)), np.concatenate(TABLES)
    assert moments.count == len(table)
    np.testing.assert_allclose(moments.mean, table.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments.sd, table.std(axis=0), rtol=1e-4)
    founder, chain = played.gathering.founder_signer, played.gathering.chain
    relays = RelayClient(played.gathering.founder.connection)
    relays.wait_until_mined(relays.hand_in(sign_call(founder, chain.deployment, "FederationRegistry", "close", federation.id)).id)
    wait_until(lambda: chain.contract("FederationRegistry").functions.get(federation.id).call()[1] == 4)
    assert played.gathering.founder.federation(federation.id).state == "finished"


def test_nothing_of_single_updates_is_left(played: Played) -> None:
    wait_until(lambda: not masked_uploads(played.gathering.settings))
    federation = played.federations["whole"]
    member = played.gathering.institutions[0]
    with pytest.raises(ServiceError) as over:
        member.client.messages(federation.id, 1, 1, Stage.UNMASK)
    assert (over.value.status, over.value.problem["type"]) == (409, "urn:rexis:problem:attempt-over")


def test_the_same_message_again_changes_nothing_and_another_one_is_equivocation(played: Played) -> None:
    member, federation = played.gathering.institutions[0], played.federations["whole"]
    participant = member.participants[federation.id, 1, 1]
    sent = {message.stage: message for message in participant.sent}
    member.client.send(federation.id, 1, 1, sent[Stage.KEYS])
    other = Envelope(Stage.KEYS, sent[Stage.KEYS].ctx, member.signer.address, {**sent[Stage.KEYS].payload, "mask": "0x" + 64 * "9"})
    registry = played.gathering.chain.deployment.contracts["FederationRegistry"].address
    signature = member.signer.sign_typed_data(other.typed_data(LOCAL_CHAIN_ID, registry))
    with pytest.raises(ServiceError) as refused:
        member.client.send(federation.id, 1, 1, Envelope(other.stage, other.ctx, other.sender, other.payload, signature))
    assert (refused.value.status, refused.value.problem["type"]) == (409, "urn:rexis:problem:equivocation")


def test_a_message_after_its_stage_is_refused(played: Played) -> None:
    """Of an institution that kept silent, so that it has not sent another one; whatever it says, it is not kept."""
    member, federation = played.gathering.institutions[1], played.federations["masked"]
    ctx = member.participants[federation.id, 1, 1].terms.ctx
    payload = {"upload": 32 * "a", "digest": "0x" + 64 * "a", "bits": 32, "length": 5}
    unsigned = Envelope(Stage.MASKED, ctx, member.signer.address, payload)
    registry = played.gathering.chain.deployment.contracts["FederationRegistry"].address
    late = Envelope(
        Stage.MASKED, ctx, unsigned.sender, payload, member.signer.sign_typed_data(unsigned.typed_data(LOCAL_CHAIN_ID, registry))
    )
    with pytest.raises(ServiceError) as refused:
        member.client.send(federation.id, 1, 1, late)
    assert (refused.value.status, refused.value.problem["type"]) == (409, "urn:rexis:problem:stage-closed")
    with pytest.raises(ServiceError) as foreign:
        played.gathering.institutions[0].client.send(federation.id, 1, 1, late)
    assert (foreign.value.status, foreign.value.problem["type"]) == (401, "urn:rexis:problem:signature")
    with pytest.raises(ServiceError) as strange:
        played.gathering.stranger.send(federation.id, 1, 1, late)
    assert strange.value.status == 404
