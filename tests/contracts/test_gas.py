"""The gas snapshot is a gate: what it lets through, what it stops, and what the contracts cost now."""

import json

import pytest

from contracts.gas.__main__ import SNAPSHOT, compare, measure


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    return measure()


def test_no_call_is_dearer_than_the_snapshot_allows(measured: dict[str, int]) -> None:
    assert compare(json.loads(SNAPSHOT.read_text()), measured) == []


def test_a_thousand_answers_are_anchored_within_the_bounds_that_were_promised(measured: dict[str, int]) -> None:
    """Issue 4: 210,000 for the first batch, 175,000 for later ones; with a stake, the call that frees the bond included."""
    for more, bound in ((", first", 210_000), ("", 175_000)):
        plain = measured[f"commit 1,000 receipts{more}, sent"]
        staked = measured[f"commit 1,000 receipts, staked{more}, sent"] + measured[f"finalise a staked batch{more}, sent"]
        assert max(plain, staked) <= bound


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
