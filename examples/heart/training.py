"""The training step of the story: the shared moments, two models at once, how good they are, and what must not be found of the updates."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from examples.heart import checks, federations
from examples.heart.drop_out import DropOut
from examples.heart.experimenter import Experiment, Score
from examples.heart.federations import STEPS
from examples.heart.parties import Hospital, Party
from examples.heart.split import split_rows
from examples.heart.steps import Steps
from rexis.agent.federation.contribution import prepare_rows, read_model, training_vector
from rexis.agent.federation.membership import fetch_model, fetch_result
from rexis.agent.federation.registry import Registry
from rexis.agent.table import Table
from rexis.chain.connection import Chain
from rexis.client.aggregator import AggregatorClient
from rexis.encoding import from_hex
from rexis.errors import VerificationError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Deadlines, Manifest
from rexis.secagg.payloads import vector_record
from rexis.secagg.statistics import Moments

LOGISTIC, NETWORK = federations.MODELS
FEDERATED = "federated: "


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of the step.

    Attributes:
        ids: of the federations, by name.
        moments: of the inputs.
        scores: federated models first, then the baselines.
        trainings, statistics, dropped: as the report shows them.
        vectors: the unmasked update vectors of round 1 of the logistic regression, one for each hospital.
        findings: sentences for the summary.
    """

    ids: dict[str, str]
    moments: Moments
    scores: list[Score]
    test_rows: int
    trainings: list[dict[str, Any]]
    statistics: dict[str, Any]
    dropped: dict[str, Any] | None
    vectors: list[bytes]
    findings: list[str]


@dataclass(frozen=True)
class Plan:
    """How large the trainings are; see `story.Setting`."""

    rounds: int
    stage_s: int
    drop_in: int | None
    timeout_s: float


def train(
    steps: Steps, group: Party, hospitals: Sequence[Hospital], client: AggregatorClient, chain: Chain, plan: Plan, *, dropping: Hospital
) -> Trained:
    """Found the federations, wait for them, and test what they made.

    Raises:
        RexisError: a federation failed, or something differs from what stands on chain.
    """
    registry = Registry(chain)
    terms = federations.shared_terms(group, hospitals, client.account(), stage_s=plan.stage_s)
    with steps.step("mean and standard deviation, by one secure sum") as step:
        config = federations.statistics_config(terms)
        statistic = federations.found(group, client, config)
        federations.join(hospitals, statistic)
        federations.watch(client, {config["name"]: statistic}, hospitals, timeout_s=plan.timeout_s, on_round=step.show)
        moments = Moments.parse(fetch_result(registry, client, from_hex(statistic, 32), FederationConfig.parse(config)).document())
    with steps.step(f"two models, {plan.rounds} rounds each, at the same time") as step:
        configs = {
            name: federations.training_config(terms, name, rounds=plan.rounds, standardisation=statistic) for name in federations.MODELS
        }
        ids = {name: federations.found(group, client, config) for name, config in configs.items()}
        initial = client.model(from_hex(ids[LOGISTIC], 32))
        federations.join(hospitals, *ids.values())
        with ExitStack() as stack:
            drop_out = None if plan.drop_in is None else stack.enter_context(DropOut(dropping, ids[LOGISTIC], plan.drop_in))
            seconds = federations.watch(client, ids, hospitals, timeout_s=plan.timeout_s, on_round=step.show, drop_out=drop_out)
    findings = []
    dropped = None
    if drop_out is not None:
        if drop_out.round is None:
            raise VerificationError(f"expected {dropping.name} to drop out of a round from {plan.drop_in} on, it was killed too late")
        findings.append(checks.require_survivors(chain, ids[LOGISTIC], drop_out.round, len(hospitals) - 1))
        dropped = {"hospital": dropping.name, "round": drop_out.round, "survivors": len(hospitals) - 1}
    parsed = {name: FederationConfig.parse(config) for name, config in configs.items()}
    models = {name: fetch_model(registry, client, from_hex(federation, 32), parsed[name])[0] for name, federation in ids.items()}
    with steps.step("test every way of training on patients nobody trained on"):
        experiment = Experiment(list(moments.mean), list(moments.sd))
        scores = [
            experiment.score(f"{FEDERATED}{name}", federations.plain_model(name, content), steps=STEPS * plan.rounds)
            for name, content in models.items()
        ]
        scores += experiment.baselines()
    vectors = first_updates(client, ids[LOGISTIC], parsed[LOGISTIC], hospitals, moments, initial)
    findings.append(
        "the experimenter's own copies of the first updates add up to the sum on chain, so these are what is searched for below"
    )
    return Trained(
        ids=ids,
        moments=moments,
        scores=scores,
        test_rows=len(experiment.pooled_test.labels),
        trainings=[federations.training_report(client, name, federation, seconds[name]) for name, federation in ids.items()],
        statistics=moments.document(),
        dropped=dropped,
        vectors=vectors,
        findings=findings,
    )


def first_updates(
    client: AggregatorClient, federation: str, config: FederationConfig, hospitals: Sequence[Hospital], moments: Moments, initial: bytes
) -> list[bytes]:
    """The hospitals' unmasked vectors of round 1, computed again from the vendored file, as the bytes that would lie somewhere.

    Raises:
        VerificationError: they do not add up to the sum whose digest stands on chain, so they are not the real ones.
    """
    first = next(record for record in client.rounds(from_hex(federation, 32)) if record.round == 1 and record.state == "finished")
    if config.training is None:
        raise ValueError("expected a federation for training")
    model = read_model(config.training, initial, first.base_model)
    # Without mini-batches the manifest, which seeds their order, changes nothing.
    manifest = Manifest.of(
        config,
        federation=from_hex(federation, 32),
        round_number=1,
        attempt=first.attempt,
        base_model=first.base_model,
        deadlines=Deadlines.after(0, config.stage_s),
    )
    vectors = []
    for hospital in hospitals:
        if hospital.address in first.survivors:
            columns, rows, _ = split_rows(hospital.name, {hospital.name: hospital.split})
            table = Table(tuple(columns), tuple(tuple(row) for row in rows))
            vectors.append(training_vector(config, manifest, model, prepare_rows(config, table, moments)))
    total: Any = np.sum(vectors, axis=0, dtype=vectors[0].dtype)
    if vector_record(total) != first.aggregate:
        raise VerificationError("the updates computed again do not add up to the sum on chain: a search for them would prove nothing")
    return [vector.tobytes() for vector in vectors]
