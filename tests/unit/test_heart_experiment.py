"""The demo's split is FLamby's, and its experimenter finds what the literature found on it."""

import numpy as np
import pytest

from examples.heart.experimenter import Experiment, bootstrap_interval, feature_spec
from examples.heart.hospitals import COUNTS
from examples.heart.split import compute_split, read_split, split_rows

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
    pytest.importorskip("sklearn", reason="scikit-learn is no dependency; examples/heart/split.py says how to install it")
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
