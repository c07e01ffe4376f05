"""Text classifiers at the agents: reports and encoder stay on the premises, only the head travels; another encoder is refused.

Agent, journal and chain are real; the aggregator is the stand-in, the encoder a small one with random weights.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rexis.agent.federation.contribution import batch_seed, read_model
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.text_bases import TextBases
from rexis.agent.table import Table
from rexis.encoding import to_hex
from rexis.errors import ConfigurationError
from rexis.models.builders import build
from rexis.models.modules.bert_lora import LoraClassifier
from rexis.protocol.federation_config import FederationConfig
from rexis.training.evaluation import evaluate
from rexis.training.local import LocalSteps, clip_update, train_local
from rexis.training.text_base import read_base
from tests.services.federation_stand_in import COUNTS, HOSPITALS, Hospital, Line, StandIn, config_of, play
from tests.unit.text_folders import save_text_folder

FINDINGS = {"severe": "severe stenosis left artery", "none": "no stenosis normal artery"}
FEATURES = {
    "version": 1,
    "inputs": [{"column": "report", "kind": "text", "length": 12}],
    "target": {"column": "finding", "levels": list(FINDINGS)},
}


def reports_of(number: int, count: int) -> Table:
    generator = np.random.default_rng(number)
    rows = []
    for _ in range(count):
        finding = list(FINDINGS)[int(generator.integers(2))]
        words = ["the patient has chest pain", "after rest", "left", "right", "clear"][: int(generator.integers(1, 5))]
        rows.append((f"{' '.join(words)} {FINDINGS[finding]}", finding))
    return Table(("report", "finding"), tuple(rows))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The encoder that everybody has."""
    return save_text_folder(tmp_path / "base")


@pytest.fixture
def readers(stand_in: StandIn, base: Path, tmp_path: Path) -> Iterator[list[Hospital]]:
    """Four hospitals with reports."""
    made = []
    for i, signer in enumerate(HOSPITALS):
        line, bases = Line(stand_in, signer.address), TextBases([base])
        made.append(Hospital(stand_in.chain, signer, reports_of(i, COUNTS[i]), tmp_path / f"{i}.sqlite", line, bases=bases))
    for hospital in made:
        hospital.register()
        hospital.grant()
    yield made
    for hospital in made:
        hospital.stop()


def head_config(hospitals: list[Hospital], base: Path, **changes: Any) -> FederationConfig:
    spec = {"base": to_hex(read_base(base).digest), "hidden": 24, "outputs": 1, "pooling": "mean"}
    model = {"version": 1, "family": "bert-head", "config": spec}
    plan = {"features": FEATURES, "model": model, "learning_rate": "5", "steps": 25, "clipping_norm": "50"}
    return FederationConfig.parse(config_of(hospitals, "training", **{**plan, **changes}))


def test_hospitals_train_a_head_on_reports_that_nobody_sees(stand_in: StandIn, readers: list[Hospital], base: Path) -> None:
    federation = stand_in.found(FederationPlan(head_config(readers, base), seed=3))
    kept, encoder = stand_in.kept[federation], read_base(base)
    plan = kept.config.training
    assert plan is not None
    for hospital in readers:
        hospital.join(federation)
    tables = [kept.config.features.encode(hospital.table.columns, hospital.table.rows) for hospital in readers]
    rows = [encoder.embed(encoder.tokens(table.texts or (), 12), "mean") for table in tables]
    labels = [torch.from_numpy(table.labels) for table in tables]
    for _ in (1, 2):
        start = read_model(plan, kept.content, kept.model)
        updates, weights = [], []
        for x, y in zip(rows, labels, strict=True):
            module = build(plan.model, seed=0)
            module.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in start.items()})
            updates.append(clip_update(train_local(module, x, y, LocalSteps(plan.steps, 5.0), seed=0).delta.double(), 50.0).numpy())
            weights.append(plan.weight(len(y)))
        stand_in.open_round(federation)
        play(stand_in, federation, readers)
        found = read_model(plan, kept.content, kept.model)
        expected = np.concatenate([start["0.weight"].ravel(), start["0.bias"]]) + np.average(updates, axis=0, weights=weights)
        assert np.concatenate([found["0.weight"].ravel(), found["0.bias"]]) == pytest.approx(expected, abs=1e-4)
    head = build(plan.model, seed=0)
    head.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in found.items()})
    before, after = (evaluate(each, torch.cat(rows), torch.cat(labels)) for each in (build(plan.model, seed=3), head))
    assert before.auc is not None
    assert after.auc is not None
    assert after.auc > max(0.9, before.auc + 0.1)
    # 24 weights, a bias and two slots travel, and no word of a report.
    assert kept.config.length == 27
    assert not any(word in content for _, _, content in stand_in.received for word in (b"stenosis", b"chest"))


def test_a_site_with_another_encoder_does_not_join_and_one_that_lost_it_drops_out(
    stand_in: StandIn, readers: list[Hospital], base: Path, tmp_path: Path
) -> None:
    federation = stand_in.found(FederationPlan(head_config(readers, base), seed=4))
    other = save_text_folder(tmp_path / "other", seed=2)
    readers[3].bases = TextBases([other])
    with pytest.raises(ConfigurationError, match=r"under \[models\]"):
        readers[3].join(federation)
    readers[3].bases = TextBases([base])
    for hospital in readers:
        hospital.join(federation)
    readers[3].bases = TextBases([other])
    readers[3].restart()
    stand_in.open_round(federation)
    play(stand_in, federation, readers)
    (done,) = stand_in.kept[federation].rounds
    assert done["survivors"] == [hospital.signer.address for hospital in readers[:3]]
    entries = readers[3].journal.entries(subject=f"federation {to_hex(federation)}", limit=1000)
    assert any("[models]" in str(entry.detail.get("reason")) for entry in entries)


def test_a_head_is_trained_with_noise_at_the_site(stand_in: StandIn, readers: list[Hospital], base: Path) -> None:
    privacy = {
        "mechanism": "dp-sgd",
        "noise_multiplier": "2",
        "clipping_norm": "1",
        "sampling_rate": "0.5",
        "delta": "0.001",
        "epsilon": "9",
    }
    config = head_config(readers, base, privacy=privacy, protection="secagg+dp", batch_size=10, rounds=1)
    federation = stand_in.found(FederationPlan(config, seed=5))
    before = stand_in.kept[federation].model
    for hospital in readers:
        hospital.join(federation)
    stand_in.open_round(federation)
    play(stand_in, federation, readers)
    kept = stand_in.kept[federation]
    assert (len(kept.rounds[0]["survivors"]), kept.rounds[0]["metrics"]) == (4, {"version": 1, "weight": 4})
    assert kept.model != before


def test_hospitals_train_factors_on_reports_and_those_that_are_frozen_stay_at_home(
    stand_in: StandIn, readers: list[Hospital], base: Path
) -> None:
    spec: dict[str, Any] = {"base": to_hex(read_base(base).digest), "hidden": 24, "layers": 2, "outputs": 1, "pooling": "mean"}
    spec |= {"projections": ["query", "value"], "rank": 2, "alpha": 4, "freeze_a": True}
    model = {"version": 1, "family": "bert-lora", "config": spec}
    changes = {"model": model, "batch_size": 8, "learning_rate": "0.5", "steps": 3, "rounds": 1}
    federation = stand_in.found(FederationPlan(head_config(readers, base, **changes), seed=6))
    kept, encoder = stand_in.kept[federation], read_base(base)
    plan = kept.config.training
    assert plan is not None
    for hospital in readers:
        hospital.join(federation)
    start = read_model(plan, kept.content, kept.model)
    manifest = stand_in.open_round(federation).manifest
    play(stand_in, federation, readers)
    found = read_model(plan, kept.content, kept.model)
    updates, weights = [], []
    for hospital in readers:
        rows = kept.config.features.encode(hospital.table.columns, hospital.table.rows)
        module = build(plan.model, seed=0)
        assert isinstance(module, LoraClassifier)
        module.attach(encoder.encoder)
        module.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in start.items()})
        steps = LocalSteps(plan.steps, float(plan.learning_rate), plan.batch_size)
        train_local(module, encoder.tokens(rows.texts or (), 12), torch.from_numpy(rows.labels), steps, seed=batch_seed(manifest))
        updates.append({name: tensor.numpy() - start[name] for name, tensor in module.state_dict().items()})
        weights.append(plan.weight(len(rows.labels)))
    for name, tensor in found.items():
        expected = start[name] + np.average([update[name] for update in updates], axis=0, weights=weights)
        assert tensor == pytest.approx(expected, abs=1e-5), name
        assert (tensor == start[name]).all() == name.endswith(".A"), name
    # Of 8 factors of 2 x 24 half, a classifier of 25 and two slots.
    assert kept.config.length == 4 * 48 + 27
