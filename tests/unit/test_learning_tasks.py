"""Targets of feature specs, and which models and plans go with them: refused by rule, with no cell of a patient in the message."""

from typing import Any

import numpy as np
import pytest

from rexis.errors import MalformedMessageError
from rexis.models.features import FeatureSpec
from rexis.protocol.federation_config import FederationConfig
from tests.unit.test_federation_config import CONFIG, PARTS

SURVIVAL: dict[str, Any] = {**CONFIG["features"], "target": {"time": "days", "event": "died"}}
CHAPTERS: dict[str, Any] = {**CONFIG["features"], "target": {"column": "chapter", "levels": ["IX", "X", "XI"]}}
COX = {"version": 1, "family": "cox", "config": {"inputs": 3}}
SKELLAM = {"mechanism": "skellam", "noise_multiplier": "8", "delta": "0.00001", "epsilon": "50"}


def config(features: dict[str, Any], **plan: Any) -> FederationConfig:
    protection = {"protection": "secagg+dp"} if "privacy" in plan else {}
    return FederationConfig.parse({**CONFIG, "features": features, "training": {**CONFIG["training"], **plan}, **protection})


@pytest.mark.parametrize("document", [SURVIVAL, CHAPTERS], ids=["survival", "classes"])
def test_a_target_has_one_document_and_changes_the_digest(document: dict[str, Any]) -> None:
    spec = FeatureSpec.parse(document)
    assert spec.document() == document
    assert spec.digest() != FeatureSpec.parse(CONFIG["features"]).digest()


def test_times_and_events_are_read_and_what_is_none_is_refused_without_quoting_it() -> None:
    spec = FeatureSpec.parse(SURVIVAL)
    columns = ["age", "cp", "days", "died"]
    made = spec.encode(columns, [["63", "typical", "12.5", "1"], ["40", "none", "0", "0"]])
    assert made.labels.tolist() == [[12.5, 1], [0, 0]]
    assert made.labels.dtype == np.float64
    for days, died, rule in (
        ("", "1", "column days: expected a finite number"),
        ("nan", "1", "column days: expected a finite number"),
        ("-7.25", "1", "column days: expected follow-up times of at least 0"),
        ("7.25", "", "column died: expected a finite number"),
        ("7.25", "2", "column died: expected 1 where"),
        ("7.25", "0.5", "column died: expected 1 where"),
        ("7.25", "dead", "column died: expected a finite number"),
    ):
        with pytest.raises(MalformedMessageError, match=rule) as refused:
            spec.encode(columns, [["63", "typical", days, died]])
        assert "7.25" not in str(refused.value)
        assert "dead" not in str(refused.value)
    with pytest.raises(MalformedMessageError, match="lacks the columns died"):
        spec.encode(columns[:3], [["63", "typical", "1"]])


def test_levels_are_classes_and_another_level_is_refused_without_quoting_it() -> None:
    spec = FeatureSpec.parse(CHAPTERS)
    made = spec.encode(["age", "cp", "chapter"], [["1", "none", "XI"], ["2", "none", "IX"]])
    assert made.labels.tolist() == [2, 0]
    with pytest.raises(MalformedMessageError, match="column chapter: expected one of the target's 3 levels") as refused:
        spec.encode(["age", "cp", "chapter"], [["1", "none", "secret"]])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "target",
    [
        None,
        {},
        {"time": "days"},
        {"time": "days", "event": "days"},
        {"time": "age", "event": "died"},
        {"time": "days", "event": "died", "above": "0"},
        {"time": ["days"], "event": "died"},
        {"column": "chapter", "levels": ["IX"]},
        {"column": "chapter", "levels": ["IX", "IX"]},
        {"column": "chapter", "levels": "IX"},
        {"column": "chapter", "levels": [str(number) for number in range(257)]},
        {"column": "age", "levels": ["IX", "X"]},
    ],
)
def test_hostile_targets_are_refused(target: Any) -> None:
    with pytest.raises(MalformedMessageError, match="features:"):
        FeatureSpec.parse({**CONFIG["features"], "target": target})


def test_a_model_goes_with_its_target_only() -> None:
    assert config(SURVIVAL, model=COX).training is not None
    for outputs in (1, 2):
        logistic = {"version": 1, "family": "logistic", "config": {"inputs": 3, "outputs": outputs}}
        config({**CHAPTERS, "target": {"column": "chapter", "levels": ["IX", "X"]}}, model=logistic)
        with pytest.raises(MalformedMessageError, match="3 outputs"):
            config(CHAPTERS, model=logistic)
        with pytest.raises(MalformedMessageError, match="time and event with the family cox"):
            config(SURVIVAL, model=logistic)
    with pytest.raises(MalformedMessageError, match="time and event with the family cox"):
        config(CONFIG["features"], model=COX)
    with pytest.raises(MalformedMessageError, match="model of 3 inputs"):
        config(SURVIVAL, model={**COX, "config": {"inputs": 4}})


def test_what_takes_the_partial_likelihood_apart_by_patients_is_refused_with_the_reason() -> None:
    with pytest.raises(MalformedMessageError, match="cox: expected batch_size null"):
        config(SURVIVAL, model=COX, batch_size=16)
    with pytest.raises(MalformedMessageError, match="clipping gradients of single patients"):
        config(SURVIVAL, model=COX, batch_size=16, privacy=PARTS["privacy"])
    private = config(SURVIVAL, model=COX, privacy=SKELLAM)
    assert private.training is not None
    assert private.training.privacy is not None
