"""What a federation agrees on, the manifest of an attempt, features of a table, and what stands in a masked vector."""

import json
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rexis.encoding import canonical_json, checksum_address, sha256, to_hex
from rexis.errors import MalformedMessageError, UnexpectedMessageError
from rexis.models.features import FeatureSpec
from rexis.models.targets import Above
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.manifest import SLACK_S, Deadlines, Manifest
from rexis.secagg.payloads import decode_update, encode_update
from rexis.secagg.statistics.moments import Moments, decode_moments, encode_moments

MEMBERS = [checksum_address(f"0x{number:040x}") for number in (17, 34, 51, 68)]
FEATURES: dict[str, Any] = {
    "version": 1,
    "inputs": [{"column": "age", "kind": "number"}, {"column": "cp", "kind": "levels", "levels": ["typical", "none"]}],
    "target": {"column": "num", "above": "0"},
}
CONFIG: dict[str, Any] = {
    "version": 1,
    "name": "Heart disease, four hospitals",
    "kind": "training",
    "founder": checksum_address("0x" + 40 * "a"),
    "members": [{"address": address, "dataset": number} for number, address in enumerate(MEMBERS, start=1)],
    "aggregators": [checksum_address("0x" + 40 * "b")],
    "quorum": 1,
    "collusion_bound": 1,
    "threshold": 3,
    "min_survivors": 3,
    "purpose": 6,
    "features": FEATURES,
    "stage_s": 10,
    "training": {
        "model": {"version": 1, "family": "logistic", "config": {"inputs": 3, "outputs": 1}},
        "rounds": 10,
        "steps": 5,
        "learning_rate": "0.5",
        "batch_size": None,
        "proximal": "0",
        "clipping_norm": "10",
        "weight_cap": 200,
        "weight_band": 25,
        "standardisation": "0x" + 64 * "c",
    },
    "statistics": None,
}
STATISTICS = {**CONFIG, "kind": "statistics", "training": None, "statistics": {"identifier": "moments", "scale_bits": 16}}


VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "federation_config.json").read_text())


def test_an_independent_reference_computes_the_same() -> None:
    statistics, training = (FederationConfig.parse(VECTOR[kind]["config"]) for kind in ("statistics", "training"))
    for kind, config in (("statistics", statistics), ("training", training)):
        assert config.document() == VECTOR[kind]["config"]
        assert to_hex(config.digest) == VECTOR[kind]["configHash"]
    assert to_hex(statistics.statistic_digest) == VECTOR["statistics"]["statistic"]
    manifest = Manifest.parse(VECTOR["manifest"]["document"])
    assert to_hex(manifest.digest) == VECTOR["manifest"]["manifestHash"]
    manifest.check(training, federation=manifest.federation, base_model=manifest.base_model)
    rows = VECTOR["features"]
    prepared = training.features.encode(rows["columns"], rows["rows"])
    assert (prepared.inputs.tolist(), prepared.labels.tolist()) == (rows["inputs"], rows["labels"])
    update = VECTOR["update"]
    vector = encode_update(training, update["delta"], examples=update["examples"], loss=update["loss"])
    assert to_hex(vector.astype("<u4").tobytes()) == update["vector"]
    moments = encode_moments(statistics, prepared.inputs)
    assert to_hex(moments.astype("<u8").tobytes()) == VECTOR["moments"]["vector"]
    result = decode_moments(statistics, moments)
    assert (result.document(), to_hex(result.digest)) == (VECTOR["moments"]["result"], VECTOR["moments"]["resultHash"])


def changed(path: str, value: Any) -> dict[str, Any]:
    document = deepcopy(CONFIG)
    *folders, name = path.split(".")
    place: Any = document
    for folder in folders:
        place = place[int(folder) if folder.isdigit() else folder]
    place[name] = value
    return document


@pytest.mark.parametrize("document", [CONFIG, STATISTICS], ids=["training", "statistics"])
def test_a_config_has_one_document(document: dict[str, Any]) -> None:
    config = FederationConfig.parse(json.loads(json.dumps(document)))
    assert config.document() == document
    assert config.digest == sha256(canonical_json(document))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", True),
        ("kind", "statistics"),
        ("kind", ["training"]),
        ("name", "two\nlines"),
        ("name", " "),
        ("founder", "0x" + 40 * "0"),
        ("founder", "0x" + 40 * "a"),
        ("founder", None),
        ("members", CONFIG["members"][::-1]),
        ("members", CONFIG["members"][:2]),
        ("members.1.address", MEMBERS[0]),
        ("members.1.dataset", 1),
        ("members.1.dataset", 0),
        ("aggregators", []),
        ("stage_s", 0),
        ("purpose", "6"),
        ("training.model.config.inputs", 4),
        ("training.learning_rate", "0"),
        ("training.learning_rate", 0.5),
        ("training.learning_rate", "NaN"),
        ("training.learning_rate", "1e-9999"),
        ("training.weight_band", 201),
        ("training.standardisation", "0x12"),
        ("training.more", 1),
        ("features.inputs", []),
        ("features.inputs.1.levels", ["none", "none"]),
        ("features.target.column", "age"),
        ("features.target.above", "one"),
    ],
)
def test_what_is_out_of_bounds_is_refused(path: str, value: Any) -> None:
    with pytest.raises(MalformedMessageError):
        FederationConfig.parse(changed(path, value))


def test_a_statistic_is_the_same_whoever_asks_and_another_for_other_data() -> None:
    config = FederationConfig.parse(STATISTICS)
    again = replace(config, founder=MEMBERS[0], name="again", stage_s=99)
    assert again.statistic_digest == config.statistic_digest
    others = [replace(member, dataset=member.dataset + 10) for member in config.members]
    assert replace(config, members=tuple(others)).statistic_digest != config.statistic_digest


def test_a_manifest_follows_from_the_config_but_for_its_times() -> None:
    config, federation, model = FederationConfig.parse(CONFIG), b"\1" * 32, b"\2" * 32
    deadlines = Deadlines.after(1_000, config.stage_s)
    manifest = Manifest.of(config, federation=federation, round_number=3, attempt=1, base_model=model, deadlines=deadlines)
    assert Manifest.parse(json.loads(json.dumps(manifest.document()))) == manifest
    manifest.check(config, federation=federation, base_model=model)
    wrong = {
        "base_model": b"\3" * 32,
        "roster": manifest.roster[::-1],
        "threshold": 2,
        "min_survivors": 2,
        "collusion_bound": 0,
        "clipping_norm": "1",
        "weight_band": 1,
        "length": 7,
        "ring_bits": 64,
        "config": b"\4" * 32,
        "round": 11,
        "deadlines": replace(deadlines, unmask=deadlines.unmask - 1),
    }
    for name, value in wrong.items():
        with pytest.raises(UnexpectedMessageError):
            replace(manifest, **{name: value}).check(config, federation=federation, base_model=model)
    late = replace(deadlines, unmask=deadlines.masked + config.stage_s + SLACK_S + 1)
    with pytest.raises(UnexpectedMessageError, match="stages"):
        replace(manifest, deadlines=late).check(config, federation=federation, base_model=model)


def test_without_masks_a_round_has_one_stage_of_sending_and_its_vectors_a_salt() -> None:
    config, federation, model = FederationConfig.parse({**CONFIG, "protection": "none"}), b"\1" * 32, b"\2" * 32
    assert config.document()["protection"] == "none"
    assert config.upload_length == config.length + 8
    assert FederationConfig.parse(CONFIG).upload_length == config.length
    deadlines = Deadlines.after(1_000, config.stage_s, masked=False)
    assert (deadlines.keys, deadlines.shares, deadlines.masked, deadlines.unmask) == (
        1_000,
        1_000,
        *(1_000 + n * config.stage_s for n in (1, 2)),
    )
    manifest = Manifest.of(config, federation=federation, round_number=1, attempt=1, base_model=model, deadlines=deadlines)
    manifest.check(config, federation=federation, base_model=model)
    for wrong in (replace(deadlines, keys=999), replace(deadlines, masked=deadlines.masked - 1)):
        with pytest.raises(UnexpectedMessageError, match="stages"):
            replace(manifest, deadlines=wrong).check(config, federation=federation, base_model=model)
    with pytest.raises(MalformedMessageError, match="ring_bits 16 without masks"):
        FederationConfig.parse({**CONFIG, "protection": "none", "training": {**CONFIG["training"], "ring_bits": 16}})
    with pytest.raises(MalformedMessageError, match="several aggregators and protection none"):
        FederationConfig.parse({**CONFIG, "protection": "none", "aggregators": sorted(MEMBERS[:2], key=str.lower), "quorum": 2})


@pytest.mark.parametrize(
    "change", [{"round": True}, {"length": -1}, {"roster": [1]}, {"deadlines": {"keys": 1}}, {"federation": 1}, {"x": 1}]
)
def test_a_manifest_of_another_form_is_refused(change: dict[str, Any]) -> None:
    config = FederationConfig.parse(CONFIG)
    deadlines = Deadlines.after(1, 1)
    manifest = Manifest.of(config, federation=bytes(32), round_number=1, attempt=1, base_model=bytes(32), deadlines=deadlines)
    with pytest.raises(MalformedMessageError):
        Manifest.parse({**manifest.document(), **change})


def test_features_of_rows() -> None:
    spec = FeatureSpec.parse(FEATURES)
    made = spec.encode(["num", "cp", "age"], [["0", "typical", "63"], ["3", "other", "40.5"]])
    assert spec.names == ("age", "cp=typical", "cp=none")
    assert made.inputs.tolist() == [[63, 1, 0], [40.5, 0, 0]]
    assert made.labels.tolist() == [0, 1]
    for row in (["0", "typical", "secret"], ["0", "typical", "nan"], ["0", "typical", ""]):
        with pytest.raises(MalformedMessageError, match="column age") as refused:
            spec.encode(["num", "cp", "age"], [row])
        assert "secret" not in str(refused.value)
    with pytest.raises(MalformedMessageError, match="lacks the columns age"):
        spec.encode(["num", "cp"], [["0", "typical"]])
    assert replace(spec, target=Above("num", Decimal(1))).digest() != spec.digest()


def test_the_sum_decodes_to_the_weighted_mean() -> None:
    config = FederationConfig.parse(CONFIG)
    generator = np.random.default_rng(5)
    examples, losses = [10, 30, 199, 1000], [0.5, 0.7, 0.25, 1.0]
    deltas = generator.normal(0, 1, (4, 4))
    plan = config.training
    assert plan is not None
    weights = np.array([plan.weight(count) for count in examples])
    assert weights.tolist() == [25, 50, 200, 200]
    total = np.zeros(config.length, dtype=np.uint32)
    for delta, count, loss in zip(deltas, examples, losses, strict=True):
        total += encode_update(config, delta, examples=count, loss=loss)
    mean = decode_update(config, total)
    assert mean.weight == weights.sum()
    assert mean.loss == pytest.approx(np.average(losses, weights=weights), abs=1e-3)
    assert mean.delta == pytest.approx(np.average(deltas, axis=0, weights=weights), abs=1e-6)


def test_every_site_at_its_bounds_wraps_nothing() -> None:
    config = FederationConfig.parse(CONFIG)
    far = np.full(4, 1e6)
    total = sum((encode_update(config, far, examples=10**6, loss=1e9) for _ in MEMBERS), np.zeros(config.length, dtype=np.uint32))
    mean = decode_update(config, total)
    assert mean.delta == pytest.approx(np.full(4, 5.0), abs=1e-6)  # norm 10 over four equal entries
    assert mean.loss == 100.0


def test_a_weight_cap_without_room_is_refused_whatever_the_loss() -> None:
    """Else whether a site takes part would tell its loss, and the federation would fail half way."""
    largest = (2**31 - 1) // 4 // 100_000
    full = FederationConfig.parse(changed("training.weight_cap", largest))
    total = sum((encode_update(full, np.ones(4), examples=10**6, loss=1e9) for _ in MEMBERS), np.zeros(full.length, dtype=np.uint32))
    assert (decode_update(full, total).weight, decode_update(full, total).loss) == (4 * largest, 100.0)
    with pytest.raises(ValueError, match=f"weight cap of at most {largest} for 4 members"):
        encode_update(FederationConfig.parse(changed("training.weight_cap", largest + 1)), np.ones(4), examples=1, loss=0.0)


@pytest.mark.parametrize(("delta", "loss"), [([np.nan] * 4, 1.0), ([np.inf] * 4, 1.0), ([0.0] * 4, np.nan), ([0.0] * 3, 1.0)])
def test_a_diverged_update_is_not_encoded(delta: list[float], loss: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        encode_update(FederationConfig.parse(CONFIG), delta, examples=1, loss=loss)


def test_a_sum_without_weight_is_refused() -> None:
    config = FederationConfig.parse(CONFIG)
    with pytest.raises(MalformedMessageError, match="weights"):
        decode_update(config, np.zeros(config.length, dtype=np.uint32))


def test_moments_are_those_of_all_rows_together() -> None:
    config = FederationConfig.parse(STATISTICS)
    generator = np.random.default_rng(6)
    sites = [np.column_stack([generator.normal(50, 10, n), generator.integers(0, 2, n), np.ones(n)]) for n in (3, 40, 200, 17)]
    total = sum((encode_moments(config, site) for site in sites), np.zeros(config.length, dtype=np.uint64))
    moments, rows = decode_moments(config, total), np.concatenate(sites)
    assert moments.count == len(rows)
    assert moments.mean == pytest.approx(rows.mean(axis=0), rel=1e-5)
    assert moments.sd[:2] == pytest.approx(rows.std(axis=0)[:2], rel=1e-4)
    assert moments.sd[2] == 1.0  # constant
    read = Moments.parse(json.loads(json.dumps(moments.document())))
    assert read.digest == moments.digest
    assert np.array_equal(read.standardise(rows), moments.standardise(rows))


def test_moments_that_do_not_fit_are_refused() -> None:
    config = FederationConfig.parse(STATISTICS)
    with pytest.raises(ValueError, match="fit the ring"):
        encode_moments(config, np.full((2, 3), 1e12))
    with pytest.raises(ValueError, match="at least one row"):
        encode_moments(config, np.empty((0, 3)))
    document = decode_moments(config, encode_moments(config, np.ones((2, 3)))).document()
    for change in (
        {"count": 0},
        {"sd": ["1", "1", "0"]},
        {"mean": ["1"]},
        {"mean": [1.0, 1.0, 1.0]},
        {"mean": ["inf", "1", "1"]},
        {"x": 1},
    ):
        with pytest.raises(MalformedMessageError):
            Moments.parse({**document, **change})


def test_a_clipping_norm_that_leaves_no_finite_scale_is_refused() -> None:
    config = FederationConfig.parse(changed("training.clipping_norm", "1e-310"))
    with pytest.raises(ValueError, match="finite scale"):
        encode_update(config, np.zeros(4), examples=1, loss=0.0)


PARTS: dict[str, Any] = {
    "optimizer": "adam",
    "strategy": {"name": "fedadam", "learning_rate": "0.01", "beta1": "0.9", "beta2": "0.999", "tau": "0.001"},
    "personal": ["0.b"],
    "privacy": {
        "mechanism": "dp-sgd",
        "noise_multiplier": "1.1",
        "clipping_norm": "1",
        "sampling_rate": "0.1",
        "delta": "0.00001",
        "epsilon": "3",
    },
    "stopping": {"holdout": "0.2", "patience": 3, "improvement": "0.001"},
    "ring_bits": 16,
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_plan_that_may_be_left_out_is_read_as_it_is_written_and_changes_the_digest(part: str) -> None:
    document = {**CONFIG["training"], part: PARTS[part]}
    plan = TrainingPlan.parse(document)
    assert plan.document() == document
    assert plan != TrainingPlan.parse(CONFIG["training"])
    with pytest.raises(MalformedMessageError):
        TrainingPlan.parse({**document, part: {"name": "fedavg"}})


def test_a_vector_holds_what_is_averaged_its_control_variate_and_its_slots() -> None:
    plan = TrainingPlan.parse(CONFIG["training"])
    assert plan.length == 4 + 2
    variates = {"name": "scaffold", "learning_rate": "1"}
    full = TrainingPlan.parse({**CONFIG["training"], "strategy": variates, "stopping": PARTS["stopping"]})
    assert full.length == 2 * 4 + 4
    assert TrainingPlan.parse({**CONFIG["training"], "personal": ["0.b"]}).length == 3 + 2


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("strategy", {"name": "fedadam", "learning_rate": "0.01"}),
        ("strategy", {"name": "fedavgm", "learning_rate": "1", "momentum": "1"}),
        ("strategy", {"name": "krum", "learning_rate": "1"}),
        ("privacy", {**PARTS["privacy"], "sampling_rate": "1.1"}),
        ("privacy", {**PARTS["privacy"], "mechanism": "skellam"}),
        ("privacy", {**PARTS["privacy"], "delta": "1"}),
        ("stopping", {**PARTS["stopping"], "holdout": "0.6"}),
        ("personal", ["nothing"]),
        ("personal", ["0.bias", "0.weight"]),
        ("personal", []),
        ("ring_bits", True),
        ("optimizer", "adamw"),
    ],
)
def test_a_part_out_of_bounds_is_refused(part: str, value: Any) -> None:
    with pytest.raises(MalformedMessageError):
        TrainingPlan.parse({**CONFIG["training"], part: value})


@pytest.mark.parametrize("part", ["optimizer", "personal", "stopping", "strategy"])
def test_what_a_privacy_budget_does_not_cover_is_refused_beside_it(part: str) -> None:
    beside = {"name": "scaffold", "learning_rate": "1"} if part == "strategy" else PARTS[part]
    training = {**CONFIG["training"], "privacy": PARTS["privacy"], part: beside}
    with pytest.raises(MalformedMessageError, match="privacy does not go with"):
        FederationConfig.parse({**CONFIG, "protection": "secagg+dp", "training": training})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protection": "secagg+dp"}, "plan for privacy"),
        ({"protection": "ee"}, "collusion_bound 0"),
        ({"protection": "masked"}, "protection among"),
        ({"group_pad": 1}, "group_pad"),
        ({"groups": {"count": 3, "rule": "median"}}, "members to each, two of them honest"),
        ({"groups": {"count": 4, "rule": "trimmed-mean", "trim": 2}}, "trim"),
        ({"protection": "none", "degree": 2}, "without group_pad"),
        ({"degree": 3}, "even number of neighbours"),
        ({"group_pad": True, "aggregators": sorted(MEMBERS[:2], key=str.lower), "quorum": 2}, "group_pad and several aggregators"),
        ({"group_pad": True, "training": {**CONFIG["training"], "stopping": PARTS["stopping"]}}, "group_pad and stopping"),
        ({"group_pad": True, "training": {**CONFIG["training"], "ring_bits": 16}}, "ring_bits 16 and group_pad"),
        ({"group_pad": True, **{name: STATISTICS[name] for name in ("kind", "training", "statistics")}}, "group_pad and statistics"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedMessageError, match=reason):
        FederationConfig.parse({**CONFIG, **changes})
