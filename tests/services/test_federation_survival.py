"""Cox's model at the agents: survival tables on the premises, a hospital where nobody had the event, and what becomes of the model.

Agent, journal and chain are real; the aggregator is the stand-in.
"""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rexis import ee
from rexis.agent.federation.contribution import read_model
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.linear_form import linear_form
from rexis.agent.table import Table
from rexis.encoding import to_hex
from rexis.errors import UnexpectedMessageError, UnsupportedLayerError
from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import read_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.file_spec import FileSpec
from rexis.training.local import LocalSteps, clip_update, train_local
from rexis.training.survival import cox_loss
from tests.services.federation_stand_in import COUNTS, HOSPITALS, Hospital, Line, StandIn, config_of, play

FEATURES = {
    "version": 1,
    "inputs": [{"column": "age", "kind": "number"}, {"column": "stage", "kind": "levels", "levels": ["III"]}],
    "target": {"time": "weeks", "event": "died"},
}
PLAN: dict[str, Any] = {
    "features": FEATURES,
    "model": {"version": 1, "family": "cox", "config": {"inputs": 2}},
    "learning_rate": "0.01",
    "stopping": {"holdout": "0.1", "patience": 3, "improvement": "0"},
}


def rows_of(number: int, count: int, *, is_event: bool) -> Table:
    generator = np.random.default_rng(number)
    rows = []
    for _ in range(count):
        age, third = generator.normal(0, 1), bool(generator.integers(2))
        weeks = generator.exponential(30 * np.exp(-0.8 * age - 0.5 * third))
        rows.append((f"{age:.3f}", "III" if third else "II", f"{weeks:.0f}", str(int(is_event and generator.integers(4) > 0))))
    return Table(("age", "stage", "weeks", "died"), tuple(rows))


@pytest.fixture
def survivors(stand_in: StandIn, tmp_path: Path) -> Iterator[list[Hospital]]:
    """Four hospitals with survival tables; at the last one everybody is censored."""
    made = [
        Hospital(stand_in.chain, signer, rows_of(i, COUNTS[i], is_event=i < 3), tmp_path / f"{i}.sqlite", Line(stand_in, signer.address))
        for i, signer in enumerate(HOSPITALS)
    ]
    for hospital in made:
        hospital.register()
        hospital.grant()
    yield made
    for hospital in made:
        hospital.stop()


def plain_round(config: FederationConfig, hospitals: list[Hospital], base: dict[str, Any]) -> Any:
    """The weight after a round of FedAvg on all rows, without masks."""
    plan = config.training
    assert plan is not None
    updates, weights = [], []
    for hospital in hospitals:
        features = config.features.encode(hospital.table.columns, hospital.table.rows)
        module = build(plan.model, seed=0)
        module.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in base.items()})
        rows, labels = torch.from_numpy(features.inputs.astype(np.float32)), torch.from_numpy(features.labels)
        update = train_local(module, rows, labels, LocalSteps(plan.steps, float(plan.learning_rate)), seed=0, loss=cox_loss)
        updates.append(clip_update(update.delta.double(), float(plan.clipping_norm)).numpy())
        weights.append(plan.weight(update.examples))
    assert not updates[3].any()
    return base["0.weight"][0] + np.average(updates, axis=0, weights=weights)


def test_hospitals_fit_a_cox_model_and_one_without_events_adds_nothing_but_its_weight(stand_in: StandIn, survivors: list[Hospital]) -> None:
    changes = {name: value for name, value in PLAN.items() if name != "stopping"}
    federation = stand_in.found(FederationPlan(FederationConfig.parse(config_of(survivors, "training", **changes)), seed=None))
    kept = stand_in.kept[federation]
    plan = kept.config.training
    assert plan is not None
    for hospital in survivors:
        hospital.join(federation)
    for number in (1, 2):
        base = read_model(plan, kept.content, kept.model)
        assert number > 1 or not base["0.weight"].any()
        stand_in.open_round(federation)
        play(stand_in, federation, survivors)
        found = read_model(plan, kept.content, kept.model)["0.weight"][0]
        assert found == pytest.approx(plain_round(kept.config, survivors, base), abs=1e-6)
    assert float(kept.rounds[1]["metrics"]["loss"]) < float(kept.rounds[0]["metrics"]["loss"])

    # Encrypted inference takes it as a linear layer with a bias, and the answer is the log-hazard.
    with pytest.raises(UnsupportedLayerError, match="--with-bias"):
        ee.keygen(plan.model, knowledge="private")
    spec = ModelSpec(LogisticConfig(2))
    content = linear_form(plan, kept.content, kept.model)
    tensors = read_file(BytesIO(content), FileSpec.of_model("model", spec.digest(), spec.shapes, "f32"), len(content))
    linear, rows = build(spec, seed=0), torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    linear.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()})
    key = ee.keygen(spec, knowledge="private")
    answers = ee.decrypt_outputs(ee.encrypt_model(linear, key)(ee.encrypt_inputs(rows, key)), key)
    weight = read_model(plan, kept.content, kept.model)["0.weight"]
    torch.testing.assert_close(answers, rows @ torch.from_numpy(weight.copy()).T, rtol=1e-4, atol=1e-5)
    with pytest.raises(UnexpectedMessageError, match="family cox"):
        linear_form(replace(plan, model=spec), content, bytes(32))


def test_early_stopping_and_institution_level_noise_go_with_it(stand_in: StandIn, survivors: list[Hospital]) -> None:
    stopping = FederationPlan(FederationConfig.parse(config_of(survivors, "training", **PLAN)), seed=None)
    skellam = {"mechanism": "skellam", "noise_multiplier": "8", "delta": "0.00001", "epsilon": "50"}
    noisy = {**PLAN, "privacy": skellam, "protection": "secagg+dp", "rounds": 1, "min_survivors": 4}
    del noisy["stopping"]
    private = FederationPlan(FederationConfig.parse(config_of(survivors, "training", **noisy)), seed=3)
    for plan in (stopping, private):
        federation = stand_in.found(plan)
        for hospital in survivors:
            hospital.join(federation)
        stand_in.open_round(federation)
        play(stand_in, federation, survivors)
        (done,) = stand_in.kept[federation].rounds
        assert done["survivors"] == [hospital.signer.address for hospital in survivors]
        if plan is stopping:
            assert float(done["metrics"]["holdout_loss"]) > 0
        else:
            assert "loss" not in done["metrics"]
            assert to_hex(stand_in.kept[federation].model) != to_hex(private.model)
