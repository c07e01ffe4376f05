"""Laws of contribution scores, and how often their intervals hold, by simulation."""

from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.contribution.bands import bands_of, payouts
from rexis.contribution.effects import Effects, Score, ScoredRound, site_effects
from rexis.contribution.formula import UNIT
from tests.unit.contribution_worlds import drawn, rounds_of

CONFIDENCE = Decimal("0.9")


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), shift=st.integers(-UNIT, UNIT))
def test_what_a_round_gives_to_all_its_groups_changes_no_difference(seed: int, shift: int) -> None:
    rounds = rounds_of(seed, members=6, count=2, rounds=16)
    moved = [ScoredRound(rounds[0].groups, tuple(value + shift for value in rounds[0].values)), *rounds[1:]]
    one, other = site_effects(6, rounds, CONFIDENCE), site_effects(6, moved, CONFIDENCE)
    for before, after in zip(one.scores, other.scores, strict=True):
        assert before is not None
        assert after is not None
        assert abs((after.score - other.level) - (before.score - one.level)) <= 2
        assert abs((after.upper - after.lower) - (before.upper - before.lower)) <= 2


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_scores_do_not_depend_on_the_order_of_members(seed: int, data: st.DataObject) -> None:
    rounds = rounds_of(seed, members=6, count=2, rounds=16)
    order = data.draw(st.permutations(range(6)))
    renamed = [ScoredRound(tuple(tuple(order[i] for i in group) for group in each.groups), each.values) for each in rounds]
    one, other = site_effects(6, rounds, CONFIDENCE), site_effects(6, renamed, CONFIDENCE)
    assert [other.scores[order[i]] for i in range(6)] == list(one.scores)


intervals = st.lists(st.tuples(st.integers(-100, 100), st.integers(0, 40)), min_size=1, max_size=9)


@given(given_intervals=intervals, most=st.integers(1, 5), floor=st.sampled_from(["0", "0.25", "0.9"]), level=st.integers(-50, 100))
def test_overlapping_intervals_share_a_band_and_a_higher_one_never_has_less(
    given_intervals: list[tuple[int, int]], most: int, floor: str, level: int
) -> None:
    scores = [Score(low + width // 2, low, low + width) for low, width in given_intervals]
    bands = bands_of(Effects(level, 10, tuple(scores)), most=most, floor=Decimal(floor))
    assert set(bands) - {0} == set(range(1, max(bands, default=0) + 1)), "from 1 on without gaps"
    assert max(bands) <= most
    for one, band in zip(scores, bands, strict=True):
        for other, others in zip(scores, bands, strict=True):
            if one.lower <= other.upper and other.lower <= one.upper:
                assert band == others
            elif one.upper < other.lower:
                assert band <= others


@given(
    bands=st.lists(st.integers(0, 16), min_size=1, max_size=128),
    amount=st.integers(0, 2**256 - 1),
    cap=st.decimals("0.001", "1", places=3, allow_nan=False),
)
def test_payouts_never_exceed_amount_or_cap_and_one_band_is_paid_alike(bands: list[int], amount: int, cap: Decimal) -> None:
    paid = payouts(bands, amount, cap)
    assert sum(paid) <= amount
    assert all(each * 1000 <= amount * int(cap * 1000) for each in paid)
    by_band = dict(zip(bands, paid, strict=True))
    assert [by_band[band] for band in bands] == list(paid)
    assert by_band.get(0, 0) == 0
    assert sorted(by_band.values()) == [by_band[band] for band in sorted(by_band)]
    if cap == 1 and sum(bands):
        assert amount - sum(paid) < len(bands), "rounding leaves less than a unit for each"


def test_all_intervals_hold_together_as_often_as_they_say() -> None:
    """Additive values with errors of one variance: 200 federations at 0.9, where 10 standard errors of the count are 0.2."""
    generator, members, held = np.random.default_rng(0), 9, 0
    effects = 0.2 * generator.normal(size=members)
    effects -= effects.mean()
    for _ in range(200):
        rounds = []
        for _ in range(14):
            groups, common = drawn(generator, members, 3), 0.3 * generator.normal()
            values = [common + effects[list(group)].mean() + 0.1 * generator.normal() for group in groups]
            rounds.append(ScoredRound(groups, tuple(round(value * UNIT) for value in values)))
        found = site_effects(members, rounds, CONFIDENCE)
        true = [found.level + effect * UNIT for effect in effects]
        held += all(score is not None and score.lower <= value <= score.upper for score, value in zip(found.scores, true, strict=True))
    assert 0.85 <= held / 200 <= 0.97


def test_intervals_of_scores_from_updates_hold_for_what_many_rounds_say() -> None:
    """No additive model: the values are those of vectors. What 200 rounds of the same sites say stands for the truth."""
    held = 0
    for seed in range(8):
        long = site_effects(9, rounds_of(seed, members=9, count=3, rounds=200, decay=1.0), CONFIDENCE)
        short = site_effects(9, rounds_of(seed, members=9, count=3, rounds=15, decay=1.0, draws=1), CONFIDENCE)
        true = [score.score - long.level for score in long.scores if score is not None]
        found = [score for score in short.scores if score is not None]
        held += all(each.lower <= short.level + value <= each.upper for each, value in zip(found, true, strict=True))
    assert held >= 6
