"""The demo's split is FLamby's, and its experimenter finds what the literature found on it."""

from typing import Any

import numpy as np
import pytest
import torch

from examples.heart.experimenter import RESAMPLES, Experiment, Score, bootstrap_interval, feature_spec
from examples.heart.federations import training_config
from examples.heart.hospitals import COUNTS
from examples.heart.split import compute_split, read_split, split_rows
from examples.heart.training import LOGISTIC
from rexis.agent.federation.contribution import local_contribution
from rexis.agent.federation.site_states import SiteState
from rexis.encoding import checksum_address, sha256
from rexis.models.builders import build
from rexis.models.features import Features
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Deadlines, Manifest
from rexis.secagg.masks import ring_dtype
from rexis.secagg.server_steps import initial_state, read_state, server_step
from rexis.training.evaluation import auc
from rexis.training.strategies import control_variate

# FLamby's data card: training and test rows of each hospital.
FLAMBY = {"Cleveland": (199, 104), "Hungary": (172, 89), "Switzerland": (30, 16), "VA Long Beach": (85, 45)}


def test_the_split_has_flambys_counts_and_keeps_the_share_of_disease() -> None:
    split = read_split()
    assert {name: (len(part.train), len(part.test)) for name, part in split.items()} == FLAMBY
    for hospital in ("Cleveland", "Hungary", "VA Long Beach"):
        columns, train, test = split_rows(hospital, split)
        diseased = [np.mean([int(row[columns.index("num")]) > 0 for row in rows]) for rows in (train, test)]
        assert diseased[0] == pytest.approx(diseased[1], abs=0.01)


def test_scikit_learn_makes_the_same_split() -> None:
    assert compute_split() == read_split()


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    spec, split = feature_spec(), read_split()
    inputs = []
    for hospital in COUNTS:
        columns, train, _ = split_rows(hospital, split)
        inputs.append(spec.encode(columns, train).inputs)
    pooled = np.concatenate(inputs)
    return Experiment(list(pooled.mean(axis=0)), list(pooled.std(axis=0)))


def test_pooled_and_single_hospitals_rank_as_published(experiment: Experiment) -> None:
    scores = {score.name: score for score in experiment.baselines()}
    assert len(experiment.pooled_test.labels) == 254
    assert scores["pooled"].auc == pytest.approx(0.881, abs=0.002)
    assert scores["Cleveland"].auc == pytest.approx(0.844, abs=0.01)
    assert all(scores["pooled"].auc > scores[hospital].auc for hospital in COUNTS)
    assert all(score.low < score.auc < score.high for score in scores.values())
    assert scores["Switzerland"].own_auc is None
    assert scores["Hungary"].own_auc is not None


def test_the_interval_narrows_with_patients() -> None:
    generator = np.random.default_rng(5)
    labels = np.tile([0, 1], 2000)
    margins = labels + generator.normal(size=len(labels))
    few, many = bootstrap_interval(margins[:100], labels[:100]), bootstrap_interval(margins, labels)
    assert few[1] - few[0] > 4 * (many[1] - many[0])


def test_the_interval_is_that_of_the_auc_of_each_resample() -> None:
    generator = np.random.default_rng(6)
    labels = generator.integers(0, 2, 60)
    margins = np.round(labels + generator.normal(size=60), 1)  # with ties
    draws = np.random.default_rng(0).integers(0, 60, size=(RESAMPLES, 60))
    values = [value for draw in draws if (value := auc(margins[draw], labels[draw])) is not None]
    assert bootstrap_interval(margins, labels) == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))), abs=1e-12)


def federated(experiment: Experiment, *, without: tuple[int, str] | None = None, **parts: Any) -> Score:
    """The demo's own recipe on the vectors that its agents would mask; nothing of the protocol, which has its own tests.

    Args:
        without: round and hospital that drops out of it.
        parts: changes of the training plan.
    """
    members = [checksum_address(f"0x{number:040x}") for number in range(1, 5)]
    terms = {
        **{"version": 1, "founder": members[0], "aggregators": [members[0]], "quorum": 1, "collusion_bound": 1, "threshold": 3},
        **{"min_survivors": 3, "purpose": 6, "features": feature_spec().document(), "stage_s": 1},
        "members": [{"address": address, "dataset": number} for number, address in enumerate(members, start=1)],
    }
    document = training_config(terms, LOGISTIC, rounds=10, standardisation="0x" + 64 * "0")
    config = FederationConfig.parse({**document, "training": {**document["training"], **parts}})
    plan = config.training
    assert plan is not None
    module = build(plan.model, seed=0)
    model, state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}, initial_state(plan)
    sites: dict[str, SiteState] = {}
    for number in range(1, 11):
        manifest = Manifest.of(
            config, federation=bytes(32), round_number=number, attempt=1, base_model=bytes(32), deadlines=Deadlines.after(0, 1)
        )
        control = control_variate(read_state(plan, state, sha256(state))) if plan.strategy.name == "scaffold" else None
        total = np.zeros(config.length, dtype=ring_dtype(config.ring_bits))
        for hospital, rows in experiment.train.items():
            if (number, hospital) == without:
                continue
            features = Features(rows.inputs.double().numpy(), rows.labels.numpy())
            made = local_contribution(config, manifest, model, features, state=sites.get(hospital), control=control)
            total += made.vector
            sites[hospital] = made.state
        step = server_step(config, model, state, [total])
        model, state = step.tensors, step.state
    module.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in model.items()})
    return experiment.score("federated", module, steps=50)


def test_ten_rounds_of_federated_averaging_reach_what_the_demo_promises(experiment: Experiment) -> None:
    score = federated(experiment, without=(5, "Switzerland"))
    assert score.auc >= 0.87
    assert score.accuracy >= 0.765
    assert all(score.auc > baseline.auc for baseline in experiment.baselines() if baseline.name != "pooled")


def test_other_strategies_and_compression_lose_nothing_against_federated_averaging(experiment: Experiment) -> None:
    adaptive = {"learning_rate": "0.1", "beta1": "0.9", "beta2": "0.99", "tau": "0.01"}
    plain = federated(experiment).auc
    for parts in (
        {"strategy": {"name": "fedadam", **adaptive}},
        {"strategy": {"name": "fedyogi", **adaptive}},
        {"strategy": {"name": "scaffold", "learning_rate": "1"}},
        {"proximal": "0.1"},
        # Lossy compression to two bytes a parameter.
        {"ring_bits": 16},
    ):
        assert federated(experiment, **parts).auc >= plain - 0.01, parts
