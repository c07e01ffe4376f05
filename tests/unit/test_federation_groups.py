"""What a federation may say about its groups, and the robust rules over their means."""

from typing import Any

import numpy as np
import pytest

from rexis.encoding import checksum_address
from rexis.errors import BelowThresholdError, MalformedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.plan_parts import GroupPlan
from rexis.secagg.payloads import Holdout, encode_update, sums_record, vector_record
from rexis.secagg.robust import combined, group_means, robust_mean
from rexis.secagg.server_steps import server_step
from tests.unit.test_federation_config import CONFIG
from tests.unit.test_federation_privacy import DP_SGD, SKELLAM

MEDIAN, TRIMMED = GroupPlan(5, "median"), GroupPlan(5, "trimmed-mean", 1)
STOPPING = {"holdout": "0.2", "patience": 3, "improvement": "0.001"}
MODEL = {"0.weight": np.zeros((1, 3), dtype=np.float32), "0.bias": np.zeros(1, dtype=np.float32)}


def config_of(members: int, groups: Any, **changes: Any) -> FederationConfig:
    """A federation of that many members; `training` changes its plan."""
    listed = [{"address": checksum_address(f"0x{number:040x}"), "dataset": number} for number in range(1, members + 1)]
    given = {"members": listed, "threshold": members // 2 + 1, "min_survivors": members // 2 + 1, "groups": groups}
    training = CONFIG["training"] | changes.pop("training", {})
    return FederationConfig.parse(CONFIG | given | {"training": training} | changes)


@pytest.mark.parametrize(
    "groups",
    [{"count": 3, "rule": "median"}, {"count": 4, "rule": "trimmed-mean", "trim": 1}, {"count": 3, "rule": "median", "redrawn": True}],
)
def test_a_config_with_groups_has_one_document(groups: dict[str, Any]) -> None:
    private = {"protection": "secagg+dp", "training": {"privacy": DP_SGD, "batch_size": 16}} if "redrawn" in groups else {}
    config = config_of(12, groups, **private)
    assert config.document()["groups"] == groups
    assert FederationConfig.parse(config.document()) == config
    assert config.most_summed == 12 // groups["count"]


@pytest.mark.parametrize(
    ("members", "groups", "changes", "reason"),
    [
        (8, {"count": 3, "rule": "median"}, {}, "9 for 3 groups and collusion_bound 1, got 8"),
        (11, {"count": 3, "rule": "median"}, {"collusion_bound": 2}, "12 for 3 groups and collusion_bound 2, got 11"),
        (12, {"count": 2, "rule": "median"}, {}, "count"),
        (12, {"count": 4, "rule": "trimmed-mean", "trim": 2}, {}, "trim"),
        (12, {"count": 4, "rule": "median", "redrawn": 1}, {}, "true or false"),
        (12, {"count": 4, "rule": "median"}, {"degree": 4}, "no degree"),
        (12, {"count": 4, "rule": "median"}, {"training": {"strategy": {"name": "scaffold", "learning_rate": "1"}}}, "scaffold"),
        (12, {"count": 4, "rule": "median", "redrawn": True}, {}, "can show a single update"),
        (12, {"count": 4, "rule": "median"}, {"protection": "none"}, "without group_pad, degree or groups"),
        (12, {"count": 4, "rule": "median"}, {"group_pad": True}, "groups and group_pad"),
        (
            12,
            {"count": 4, "rule": "median"},
            {"protection": "secagg+dp", "training": {"privacy": SKELLAM}},
            "less noise than the sum over all",
        ),
    ],
)
def test_groups_that_would_expose_an_update_or_bear_nothing_are_refused(
    members: int, groups: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(MalformedMessageError, match=reason):
        config_of(members, groups, **changes)


@pytest.mark.parametrize(("rule", "expected"), [(MEDIAN, [2.0, 5.0]), (TRIMMED, [2.0, 4.0])])
def test_rules_are_taken_entry_by_entry(rule: GroupPlan, expected: list[float]) -> None:
    means = [[1.0, 0.0], [2.0, 2.0], [3.0, 5.0], [-1e9, 5.0], [1e9, 1e9]]
    assert robust_mean(rule, means).tolist() == expected
    assert robust_mean(rule, means[::-1]).tolist() == expected


def test_an_even_number_of_groups_has_the_median_of_the_two_in_the_middle() -> None:
    assert robust_mean(MEDIAN, [[1.0], [9.0], [3.0], [-50.0]]).tolist() == [2.0]


@pytest.mark.parametrize("rule", [MEDIAN, TRIMMED])
def test_what_fewer_groups_than_the_rule_bears_say_stays_within_the_honest_ones(rule: GroupPlan) -> None:
    """Property of both rules, over random means of which one (trimmed) or two (median) are anything."""
    generator, spoiled = np.random.default_rng(1), 2 if rule is MEDIAN else 1
    for _ in range(200):
        honest = generator.normal(size=(5 - spoiled, 4))
        found = robust_mean(rule, [*honest, *generator.normal(0, 10.0 ** generator.integers(0, 9), size=(spoiled, 4))])
        assert (found >= honest.min(axis=0)).all()
        assert (found <= honest.max(axis=0)).all()


def test_losses_are_combined_by_the_same_rule_and_weights_are_summed() -> None:
    config = config_of(9, {"count": 3, "rule": "median"}, training={"stopping": STOPPING})
    assert config.groups is not None
    losses = ((0.25, 1.0), (0.5, 0.75), (100.0, 0.0))
    totals = []
    for loss, held in losses:
        parts = [encode_update(config, np.ones(4), examples=50, loss=loss, holdout=Holdout(25, held)) for _ in range(3)]
        totals.append(sum(parts, np.zeros(config.length, dtype=np.uint32)))
    mean = combined(config.groups, group_means(config, totals))
    assert (mean.loss, mean.weight, mean.holdout_loss, mean.holdout_weight, mean.groups) == (0.5, 450, 0.75, 225, 3)
    assert mean.metrics() == {
        "version": 1,
        "loss": "0.500000",
        "weight": 450,
        "holdout_loss": "0.750000",
        "holdout_weight": 225,
        "groups": 3,
    }


def test_fewer_sums_than_the_rule_takes_are_no_round() -> None:
    config = config_of(9, {"count": 3, "rule": "median"})
    totals = [sum([encode_update(config, np.ones(4), examples=9, loss=0.1)] * 3, np.zeros(6, dtype=np.uint32)) for _ in range(3)]
    # Heavier than three sites can be.
    totals[1][4] = 3 * 200 + 1
    with pytest.raises(BelowThresholdError, match="groups with a sum that honest sites can have made"):
        server_step(config, MODEL, b"", totals)
    assert server_step(config, MODEL, b"", [totals[0]] * 3).metrics["groups"] == 3
    larger = config_of(12, {"count": 4, "rule": "median"})
    step = server_step(larger, MODEL, b"", [totals[0], None, totals[2], totals[2]])
    assert (step.metrics["groups"], [mean is None for mean in step.groups]) == (3, [False, True, False, False])
    with pytest.raises(BelowThresholdError):
        server_step(larger, MODEL, b"", [totals[0], None, None, totals[2]])


def test_the_aggregate_is_over_the_sums_one_after_the_other() -> None:
    first, second = np.arange(4, dtype=np.uint32), np.arange(2**32 - 4, 2**32, dtype=np.uint32)
    assert sums_record([first, second]) == vector_record(np.concatenate([first, second]))
    assert sums_record([first]) == vector_record(first) != sums_record([first, first])
    assert sums_record([first, second]) != sums_record([second, first])


def test_several_sums_of_a_federation_without_groups_are_refused() -> None:
    config = FederationConfig.parse(CONFIG)
    total = encode_update(config, np.ones(4), examples=9, loss=0.1)
    with pytest.raises(ValueError, match="too many values"):
        server_step(config, MODEL, b"", [total, total])
