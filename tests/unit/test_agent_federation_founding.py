"""From the file that a person writes to the config that everybody agrees on, and the model that it starts from."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rexis.agent.federation.contribution import model_file_spec, read_model
from rexis.agent.federation.founding import FederationPlan
from rexis.contribution.formula import FORMULA_DIGEST
from rexis.encoding import checksum_address, to_hex
from rexis.errors import BelowThresholdError, MalformedMessageError, RexisError, UnexpectedMessageError
from rexis.protocol.batch import digest_file

FOUNDER, AGGREGATOR = (checksum_address("0x" + 20 * byte) for byte in ("a1", "b2"))
MEMBERS = [checksum_address("0x" + 20 * byte) for byte in ("dd", "0c", "e1", "5b")]
STATISTIC = to_hex(bytes(31) + b"\x07")
SPEC: dict[str, Any] = {
    "name": "Heart disease",
    "kind": "training",
    "members": [{"address": address, "dataset": number} for number, address in enumerate(MEMBERS, start=1)],
    "purpose": "HMB",
    "features": {"version": 1, "inputs": [{"column": "age", "kind": "number"}], "target": {"column": "num", "above": "0"}},
    "stage_s": 20,
    "training": {
        "model": {"version": 1, "family": "logistic", "config": {"inputs": 1, "outputs": 1}},
        "rounds": 10,
        "steps": 5,
        "learning_rate": 0.5,
        "clipping_norm": 8,
        "weight_cap": 200,
        "weight_band": 10,
        "standardisation": STATISTIC,
    },
}
NETWORK = {"version": 1, "family": "mlp", "config": {"inputs": 1, "hidden": [3], "outputs": 1, "activation": "relu"}}


def read(folder: Path, spec: dict[str, Any]) -> FederationPlan:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    return FederationPlan.read(path, founder=FOUNDER, aggregator=AGGREGATOR)


def test_what_follows_from_the_rest_may_be_left_out(tmp_path: Path) -> None:
    config = read(tmp_path, SPEC).config
    assert list(config.roster) == sorted(MEMBERS, key=str.lower)
    assert config.dataset(MEMBERS[1]) == 2
    assert (config.founder, config.aggregators, config.quorum) == (FOUNDER, (AGGREGATOR,), 1)
    assert (config.collusion_bound, config.threshold, config.min_survivors, config.purpose) == (1, 3, 3, 6)
    assert config.training is not None
    assert config.training.document()["learning_rate"] == "0.5"
    assert config.training.document()["standardisation"] == STATISTIC
    written_out = read(tmp_path, config.document())
    assert written_out.config.digest == config.digest


def test_a_file_may_ask_for_groups_and_gets_no_sparse_graph_with_them(tmp_path: Path) -> None:
    members = [{"address": checksum_address(f"0x{number:040x}"), "dataset": number} for number in range(1, 71)]
    groups = {"count": 7, "rule": "trimmed-mean", "trim": 2}
    config = read(tmp_path, {**SPEC, "members": members, "groups": groups}).config
    assert config.groups is not None
    assert (config.groups.document(), config.degree) == (groups, None)
    assert read(tmp_path, {**SPEC, "members": members}).config.degree is not None
    with pytest.raises(MalformedMessageError, match="9 for 3 groups and collusion_bound 1, got 8"):
        read(tmp_path, {**SPEC, "members": members[:8], "groups": {"count": 3, "rule": "median"}})


def test_a_model_that_sixteen_bits_have_no_steps_for_is_not_founded(tmp_path: Path) -> None:
    large = {**NETWORK, "config": {**NETWORK["config"], "hidden": [65_536, 64]}}
    with pytest.raises(UnexpectedMessageError, match="ring_bits 16: expected"):
        read(tmp_path, {**SPEC, "training": {**SPEC["training"], "model": large, "ring_bits": 16}})


def test_parts_of_a_plan_are_read_with_numbers_as_people_write_them(tmp_path: Path) -> None:
    parts: dict[str, Any] = {
        "model": NETWORK,
        "optimizer": "adam",
        "strategy": {"name": "fedadam", "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
        "personal": ["2.", "0.bias"],
        "stopping": {"holdout": 0.2, "patience": 3, "improvement": 0.001},
    }
    plan = read(tmp_path, {**SPEC, "training": {**SPEC["training"], **parts}}).config.training
    assert plan is not None
    document = plan.document()
    assert document["strategy"] == {"name": "fedadam", "learning_rate": "0.1", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"}
    assert document["stopping"] == {"holdout": "0.2", "patience": 3, "improvement": "0.001"}
    assert (document["optimizer"], document["personal"], list(plan.shared)) == ("adam", ["0.bias", "2."], ["0.weight"])


def test_scores_take_the_formula_of_this_version_and_numbers_as_people_write_them(tmp_path: Path) -> None:
    members = [{"address": checksum_address("0x" + bytes([n] * 20).hex()), "dataset": n} for n in range(1, 10)]
    privacy = {"mechanism": "dp-sgd", "noise_multiplier": 1.5, "clipping_norm": 1, "sampling_rate": 0.05, "delta": 1e-5, "epsilon": 20}
    plan = {**SPEC["training"], "batch_size": 16, "privacy": privacy}
    spec = {**SPEC, "members": members, "training": plan, "groups": {"count": 3, "rule": "median", "redrawn": True}}
    scores = read(tmp_path, {**spec, "scores": {"confidence": 0.9, "floor": 0.25}}).config.scores
    assert scores is not None
    assert scores.document() == {"formula": to_hex(FORMULA_DIGEST), "bands": 4, "confidence": "0.9", "floor": "0.25", "cap": "1"}
    config = read(tmp_path, {**spec, "scores": {}}).config
    assert read(tmp_path, config.document()).config.digest == config.digest
    with pytest.raises(MalformedMessageError, match="the only one here"):
        read(tmp_path, {**spec, "scores": {"formula": 17}})


def test_an_aggregator_that_is_no_member_never_has_the_model_unless_the_file_says_so_or_something_goes_without_the_pad(
    tmp_path: Path,
) -> None:
    assert read(tmp_path, SPEC).config.group_pad
    assert not read(tmp_path, {**SPEC, "group_pad": False}).config.group_pad
    assert not read(tmp_path, {**SPEC, "aggregators": [SPEC["members"][0]["address"], AGGREGATOR]}).config.group_pad
    stopping = {"holdout": 0.2, "patience": 3, "improvement": 0.001}
    assert not read(tmp_path, {**SPEC, "training": {**SPEC["training"], "stopping": stopping}}).config.group_pad
    assert not read(tmp_path, {**SPEC, "aggregators": [AGGREGATOR, FOUNDER]}).config.group_pad
    with pytest.raises(MalformedMessageError, match="group_pad and stopping"):
        read(tmp_path, {**SPEC, "group_pad": True, "training": {**SPEC["training"], "stopping": stopping}})


def test_a_large_federation_has_few_neighbours_for_each_unless_its_file_says_otherwise(tmp_path: Path) -> None:
    members = [{"address": checksum_address("0x" + bytes([n] * 20).hex()), "dataset": n} for n in range(1, 71)]
    config = read(tmp_path, {**SPEC, "members": members}).config
    assert config.degree is not None
    assert config.degree < 30
    assert read(tmp_path, config.document()).config.digest == config.digest
    assert read(tmp_path, {**SPEC, "members": members[:64]}).config.degree is None
    assert read(tmp_path, {**SPEC, "members": members, "degree": None}).config.degree is None
    wary = read(tmp_path, {**SPEC, "members": members, "collusion_bound": 20}).config.degree
    assert wary is None or wary > config.degree
    with pytest.raises(BelowThresholdError, match="larger degree"):
        read(tmp_path, {**SPEC, "members": members, "collusion_bound": 5, "degree": 2})


def test_several_aggregators_stand_in_order_with_a_quorum_above_half(tmp_path: Path) -> None:
    others = [checksum_address("0x" + 20 * byte) for byte in ("e5", "0b")]
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, "aggregators": [AGGREGATOR, *others]}).replace("'", "").replace("above: 0", 'above: "0"'))
    config = FederationPlan.read(path, founder=FOUNDER, aggregator=AGGREGATOR).config
    assert (config.aggregators, config.quorum) == ((others[1], AGGREGATOR, others[0]), 2)


def test_numbers_that_yaml_makes_of_addresses_are_addresses_again(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    text = yaml.safe_dump(SPEC).replace("'", "")
    assert f"address: {MEMBERS[0]}" in text
    path.write_text(text.replace("above: 0", 'above: "0"'))
    assert FederationPlan.read(path, founder=FOUNDER, aggregator=AGGREGATOR).config.digest == read(tmp_path, SPEC).config.digest


def test_the_first_model_is_a_function_of_its_seed_and_its_record_is_that_of_the_file(tmp_path: Path) -> None:
    spec = {**SPEC, "training": {**SPEC["training"], "model": NETWORK}}
    first, same, other = (read(tmp_path, {**spec, "initial": {"seed": seed}}) for seed in (7, 7, 8))
    assert (first.initial, first.model) == (same.initial, same.model)
    assert first.model != other.model
    plan = first.config.training
    assert plan is not None
    assert digest_file(BytesIO(first.initial), model_file_spec(plan), len(first.initial)).record == first.model
    zeros = read(tmp_path, {**SPEC, "initial": "zeros"})
    assert zeros.config.training is not None
    assert not any(np.any(tensor) for tensor in read_model(zeros.config.training, zeros.initial, zeros.model).values())


def test_without_masks_no_neighbours_and_no_colluders_are_planned_for_and_under_a_key_the_record_begins_with_zeros(tmp_path: Path) -> None:
    members = [{"address": checksum_address("0x" + bytes([n] * 20).hex()), "dataset": n} for n in range(1, 71)]
    plain = read(tmp_path, {**SPEC, "members": members, "protection": "none", "initial": {"seed": 5}}).config
    assert (plain.degree, plain.collusion_bound, plain.min_survivors) == (None, 0, 36)
    keyed = [read(tmp_path, {**SPEC, "name": name, "protection": "ee"}) for name in ("one", "another")]
    assert [plan.config.collusion_bound for plan in keyed] == [0, 0]
    assert keyed[0].model == keyed[1].model
    assert keyed[0].config.training is not None
    assert not any(np.any(tensor) for tensor in read_model(keyed[0].config.training, keyed[0].initial, keyed[0].model).values())
    # What members train from is another model in each, for the rule that nobody trains twice on one.
    assert len({plan.config.trained_base(bytes([n]) * 32, plan.model) for n, plan in enumerate(keyed)} | {keyed[0].model}) == 3


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"protection": "ee", "initial": {"seed": 3}}, MalformedMessageError, "members draw the first model"),
        ({"protection": "ee", "collusion_bound": 1}, MalformedMessageError, "reads every update"),
        ({"protection": "none", "degree": 2}, MalformedMessageError, "without group_pad, degree"),
        ({"initial": "zeros", "training": {**SPEC["training"], "model": NETWORK}}, UnexpectedMessageError, "does not learn"),
        ({"initial": {"seed": -1}}, MalformedMessageError, "initial"),
        ({"members": SPEC["members"][:2]}, BelowThresholdError, "participants"),
        ({"threshold": 2, "min_survivors": 4}, UnexpectedMessageError, "could be exposed"),
        ({"colour": "blue"}, MalformedMessageError, "exactly the fields"),
        ({"members": "all"}, MalformedMessageError, "exactly the fields"),
        ({"training": {**SPEC["training"], "learning_rate": "fast"}}, MalformedMessageError, "learning_rate"),
        ({"training": {**SPEC["training"], "strategy": {"name": "fedavgm", "learning_rate": 1}}}, MalformedMessageError, "momentum"),
        ({"training": {**SPEC["training"], "stopping": "soon"}}, MalformedMessageError, "stopping"),
        ({"training": {**SPEC["training"], "personal": [0]}}, MalformedMessageError, "personal"),
    ],
)
def test_a_file_that_says_something_unsafe_or_unknown_is_refused(
    tmp_path: Path, change: dict[str, Any], error: type[RexisError], words: str
) -> None:
    with pytest.raises(error, match=words):
        read(tmp_path, SPEC | change)


def test_a_statistic_that_counts_is_read_with_numbers_as_people_write_them(tmp_path: Path) -> None:
    event = {"column": "dead", "events": ["1"], "censored": ["0"]}
    dimensions = [{"column": "age", "bands": [50, 62.5]}, {"column": "num", "above": 0}, {"column": "sex", "levels": ["F", "M"]}]
    privacy = {"mechanism": "skellam", "noise_multiplier": 4, "delta": 0.00001, "epsilon": 2}
    counted = {**{name: value for name, value in SPEC.items() if name != "training"}, "kind": "statistics"}
    table = read(tmp_path, {**counted, "statistics": {"identifier": "table", "dimensions": dimensions, "minimum_cell": 12}})
    assert table.config.statistics is not None
    assert table.config.statistics.document() == {
        "identifier": "table",
        "dimensions": [{"column": "age", "bands": ["50", "62.5"]}, {"column": "num", "above": "0"}, dimensions[2]],
        "minimum_cell": 12,
    }
    assert (table.initial, table.model, table.config.protection) == (b"", table.config.statistic_digest, "secagg")
    survival = {"identifier": "survival", "time": "months", "event": event, "edges": [6, 12.5], "privacy": privacy}
    noisy = read(tmp_path, {**counted, "statistics": {**survival, "group": {"column": "age", "bands": [50]}}}).config
    assert noisy.statistics is not None
    assert (noisy.protection, noisy.statistics.document()) == (
        "secagg+dp",
        {
            **survival,
            "edges": ["6", "12.5"],
            "group": {"column": "age", "bands": ["50"]},
            "privacy": {**privacy, "noise_multiplier": "4", "delta": "0.00001", "epsilon": "2"},
        },
    )
    with pytest.raises(UnexpectedMessageError, match="expected more noise"):
        read(tmp_path, {**counted, "statistics": {**survival, "privacy": {**privacy, "epsilon": 0.5}}})
    for wrong in (
        {**survival, "edges": "6"},
        {**survival, "group": "arm"},
        {**survival, "privacy": 1},
        {"identifier": "table", "dimensions": 1},
    ):
        with pytest.raises(MalformedMessageError, match=r"spec\.yaml"):
            read(tmp_path, {**counted, "statistics": wrong})


def test_the_families_of_survival_and_texts_are_founded_from_a_file(tmp_path: Path) -> None:
    base = "0x" + 64 * "1"
    text = {
        "version": 1,
        "inputs": [{"column": "report", "kind": "text", "length": 32}],
        "target": {"column": "x", "levels": ["a", "b", "c"]},
    }
    survival = {**SPEC["features"], "target": {"time": "weeks", "event": "died"}}
    head: dict[str, Any] = {"base": base, "hidden": 8, "outputs": 3, "pooling": "mean"}
    lora = {**head, "layers": 2, "projections": ["query", "value"], "rank": 2, "alpha": 4}
    for features, family, config, plan in (
        (survival, "cox", {"inputs": 1}, {}),
        (text, "bert-head", head, {"standardisation": None}),
        (text, "bert-lora", lora, {"standardisation": None, "batch_size": 16}),
    ):
        model = {"version": 1, "family": family, "config": config}
        spec = {**SPEC, "features": features, "training": {**SPEC["training"], "model": model, **plan}}
        path = tmp_path / "spec.yaml"
        # As people write it: without quotes YAML reads the digest as a number.
        path.write_text(yaml.safe_dump(spec).replace(f"'{base}'", base))
        found = FederationPlan.read(path, founder=FOUNDER, aggregator=AGGREGATOR)
        assert found.config.training is not None
        assert found.config.training.model.document() == model
        tensors = read_model(found.config.training, found.initial, found.model)
        assert all(np.any(tensor) != name.endswith(".B") for name, tensor in tensors.items())
        if family == "cox":
            zeros = read(tmp_path, {**spec, "initial": "zeros"})
            assert not any(np.any(tensor) for tensor in read_model(found.config.training, zeros.initial, zeros.model).values())
        else:
            with pytest.raises(UnexpectedMessageError, match="does not learn"):
                read(tmp_path, {**spec, "initial": "zeros"})
