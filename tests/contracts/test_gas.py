"""The gas snapshot is a gate: what it lets through, what it stops, and what the contracts cost now."""

import json

import pytest

from contracts.gas.__main__ import SNAPSHOT, both_ways, compare, measure


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    return measure()


def test_no_call_is_dearer_than_the_snapshot_allows(measured: dict[str, int]) -> None:
    assert compare(json.loads(SNAPSHOT.read_text()), measured) == []


@pytest.mark.parametrize("kind", ["receipts", "staked receipts"])
@pytest.mark.parametrize(("order", "bound"), [(", first", 210_000), ("", 175_000)])
def test_a_thousand_inferences_are_anchored_within_what_issue_4_allows(measured: dict[str, int], kind: str, order: str, bound: int) -> None:
    batch = f"1,000 {kind}{order}"
    assert measured[f"commit {batch}, sent"] + measured[f"finalise {batch}, sent"] <= bound


def test_a_batch_is_committed_by_a_relayed_call_within_the_same_bounds(measured: dict[str, int]) -> None:
    """The Forwarder's share, a word for a random nonce above all, leaves no room for a stake under the lower one."""
    assert measured["commit 1,000 receipts, first, relayed"] <= 210_000
    assert measured["commit 1,000 receipts, relayed"] <= 175_000
    assert measured["commit 1,000 staked receipts, relayed"] <= 210_000


def test_a_relayed_call_costs_the_forwarders_share_more_than_the_same_call_sent(measured: dict[str, int]) -> None:
    # The first call of several may find other things written before it than its twin does.
    twins = [name for name in both_ways(measured) if not name.endswith(", first")]
    assert {"register", "grant", "authorise a model", "commit an update", "request a job with permit"} < set(twins)
    for name in twins:
        assert 42_000 < measured[f"{name}, relayed"] - measured[f"{name}, sent"] < 44_000, name


def test_weighing_again_gives_the_same_figures(measured: dict[str, int]) -> None:
    assert measure() == measured


def test_the_gate_lets_five_per_cent_through_and_no_more() -> None:
    assert compare({"grant": 100_000}, {"grant": 105_000}) == []
    assert compare({"grant": 100_000}, {"grant": 20_000}) == []
    (line,) = compare({"grant": 100_000}, {"grant": 105_001})
    assert "105,001 gas, the snapshot says 100,000" in line


def test_a_call_that_only_one_side_knows_is_named() -> None:
    assert compare({"grant": 1, "revoke": 1}, {"grant": 1}) == ["revoke: only in the snapshot"]
    assert compare({"grant": 1}, {"grant": 1, "revoke": 1}) == ["revoke: only in the scenarios"]
