"""The demo's split is FLamby's, and its experimenter finds what the literature found on it."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from examples.heart.experimenter import RESAMPLES, Experiment, bootstrap_interval, feature_spec
from examples.heart.federations import STEPS, training_config
from examples.heart.hospitals import COUNTS
from examples.heart.split import compute_split, read_split, split_rows
from examples.heart.training import LOGISTIC
from rexis.encoding import checksum_address
from rexis.models.builders import build
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.payloads import decode_update, encode_update
from rexis.training.evaluation import auc
from rexis.training.local import LocalSteps, apply_update, train_local

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


def test_ten_rounds_of_federated_averaging_reach_what_the_demo_promises(experiment: Experiment) -> None:
    """The demo's own recipe on the vectors that its agents would mask; nothing of the protocol, which has its own tests."""
    members = [checksum_address(f"0x{number:040x}") for number in range(1, 5)]
    terms = {
        **{"version": 1, "founder": members[0], "aggregators": [members[0]], "quorum": 1, "collusion_bound": 1, "threshold": 3},
        **{"min_survivors": 3, "purpose": 6, "features": feature_spec().document(), "stage_s": 1},
        "members": [{"address": address, "dataset": number} for number, address in enumerate(members, start=1)],
    }
    config = FederationConfig.parse(training_config(terms, LOGISTIC, rounds=10, standardisation="0x" + 64 * "0"))
    assert config.training is not None
    model = build(config.training.model, seed=0)
    for number in range(1, 11):
        total = np.zeros(config.length, dtype=np.uint32)
        for hospital, rows in experiment.train.items():
            if (number, hospital) == (5, "Switzerland"):
                continue  # drops out
            update = train_local(deepcopy(model), rows.inputs, rows.labels, LocalSteps(STEPS, 0.5), seed=0)
            total += encode_update(config, update.delta.numpy(), examples=update.examples, loss=update.loss)
        apply_update(model, torch.tensor(decode_update(config, total).delta, dtype=torch.float32))
    federated = experiment.score("federated", model, steps=50)
    assert federated.auc >= 0.87
    assert federated.accuracy >= 0.765
    assert all(federated.auc > score.auc for score in experiment.baselines() if score.name != "pooled")
