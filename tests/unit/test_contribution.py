"""Contribution scores: the integers of a fixed case, quantiles beside SciPy's, refusals, bands and payouts."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from rexis.contribution.bands import bands_of, payouts
from rexis.contribution.effects import Effects, Score, ScoredRound, rounds_needed, site_effects
from rexis.contribution.formula import FORMULA_DIGEST, UNIT
from rexis.contribution.group_values import group_values
from rexis.contribution.intervals import student_quantile
from rexis.encoding import to_hex
from rexis.errors import BelowThresholdError
from tests.unit.contribution_worlds import drawn, rounds_of

CONFIDENCE = Decimal("0.95")
# Scores with their intervals, the mean of all values, and the formula's digest: another machine, library or version gives the same.
FIXED = (
    [
        (589605, 479247, 699962),
        (519506, 391064, 647948),
        (577889, 456471, 699306),
        (646115, 531649, 760581),
        (659170, 536900, 781441),
        (590772, 464050, 717495),
    ],
    597176,
    "0xa73747af5764300f4f6f63d350640cbd080595764d29477612ef5d6d5892cb50",
)


@pytest.mark.parametrize("freedom", [2, 4, 10, 30, 200, 1000])
@pytest.mark.parametrize("outside", ["0.5", "0.05", "0.0004"])
def test_quantiles_are_those_of_student_rounded_up(freedom: int, outside: str) -> None:
    found = student_quantile(freedom, Decimal(outside))
    expected = stats.t.ppf(1 - float(outside) / 2, freedom) * UNIT
    assert expected - 1e-3 * UNIT * 1e-3 <= found <= expected + 1 + 1e-6 * expected


def test_quantiles_of_odd_and_of_many_degrees_of_freedom_are_on_the_safe_side() -> None:
    assert student_quantile(11, Decimal("0.05")) == student_quantile(10, Decimal("0.05")) > stats.t.ppf(0.975, 11) * UNIT
    assert 0 < student_quantile(10**6, Decimal("0.05")) - stats.norm.ppf(0.975) * UNIT < 3_000


def test_the_value_of_a_group_is_what_its_mean_goes_along_the_others() -> None:
    straight, half, across = np.array([2.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]), np.array([0.0, 3.0, 0.0])
    assert group_values([straight, straight]) == (UNIT, UNIT)
    # 1·2 / 2²; and 2 is cut to 1, which is the length of the other: length counts, up to what is usual.
    assert group_values([half, straight]) == (UNIT // 2, UNIT)
    assert group_values([-half, straight]) == (-UNIT // 2, -UNIT)
    # (2, 0) along the sum of (0, 3), cut to the median 2.5, and (2, 0): 2 · 4 / (2² + 2.5²).
    assert group_values([across, straight, straight]) == (0, 780_488, 780_488)
    assert group_values([np.zeros(3), np.zeros(3), straight]) == (0, 0, 0)


def test_nobody_has_a_part_in_the_yardstick_that_measures_it() -> None:
    generator = np.random.default_rng(0)
    means = [generator.normal(size=7) + 1 for _ in range(4)]
    # Of an update that is not cut, half is worth half: whatever judges it does not move with it.
    whole, half = (group_values([factor * means[0], *means[1:]])[0] for factor in (0.25, 0.125))
    assert abs(whole - 2 * half) <= 1 < half
    with pytest.raises(ValueError, match="two groups"):
        group_values(means[:1])
    with pytest.raises(ValueError, match="finite"):
        group_values([means[0], np.array([np.nan] * 7)])


def exact_effects(members: int, rounds: list[ScoredRound]) -> list[Fraction]:
    """Least squares in rational numbers, by another way: dropping the last member's column and centring afterwards."""
    rows, values = [], []
    for each in rounds:
        count = len(each.groups)
        incidence = [[Fraction(int(i in group), len(group)) for i in range(members)] for group in each.groups]
        means = [sum(row[i] for row in incidence) / count for i in range(members)]
        rows += [[row[i] - means[i] for i in range(members - 1)] for row in incidence]
        values += [value - Fraction(sum(each.values), count) for value in each.values]
    system = [
        [sum(row[i] * row[j] for row in rows) for j in range(members - 1)]
        + [sum((row[i] * y for row, y in zip(rows, values, strict=True)), Fraction(0))]
        for i in range(members - 1)
    ]
    for k in range(members - 1):
        pivot = next(i for i in range(k, members - 1) if system[i][k])
        system[k], system[pivot] = system[pivot], system[k]
        system[k] = [entry / system[k][k] for entry in system[k]]
        for i in range(members - 1):
            if i != k:
                system[i] = [a - system[i][k] * b for a, b in zip(system[i], system[k], strict=True)]
    effects = [row[-1] for row in system] + [Fraction(0)]
    return [effect - sum(effects) / members for effect in effects]


def test_scores_are_the_exact_least_squares_to_the_last_integer() -> None:
    rounds = rounds_of(3, members=6, count=2, rounds=17)
    effects = site_effects(6, rounds, CONFIDENCE)
    values = [value for each in rounds for value in each.values]
    exact = [Fraction(sum(values), len(values)) + effect for effect in exact_effects(6, rounds)]
    assert [score.score for score in effects.scores if score is not None] == [round(score) for score in exact]
    assert effects.freedom == 17 - 5


def test_the_intervals_are_those_of_numpy_and_scipy() -> None:
    rounds, n = rounds_of(5, members=9, count=3, rounds=20), 9
    design, values = [], []
    for each in rounds:
        incidence = np.array([[float(i in group) / len(group) for i in range(n)] for group in each.groups])
        design.append(incidence - incidence.mean(axis=0))
        values.append(np.array(each.values) - np.mean(each.values))
    x, y = np.vstack(design), np.concatenate(values)
    beta = np.linalg.pinv(x) @ y
    freedom = len(rounds) * 2 - (n - 1)
    deviation = np.sqrt(np.sum((y - x @ beta) ** 2) / freedom * np.diag(np.linalg.pinv(x.T @ x)))
    half = stats.t.ppf(1 - 0.05 / n / 2, freedom) * deviation
    found = site_effects(n, rounds, CONFIDENCE)
    for i, score in enumerate(found.scores):
        assert score is not None
        assert score.score == pytest.approx(found.level + beta[i], abs=1.5)
        assert ((score.upper - score.lower) / 2) == pytest.approx(half[i], abs=1.5)


def test_a_fixed_case_gives_these_integers_whatever_the_callers_decimal_context() -> None:
    rounds = [ScoredRound(((0, 1, 2), (3, 4, 5)), (500_000, 700_000)), ScoredRound(((0, 3, 4), (1, 2, 5)), (650_001, 549_999))]
    rounds += [ScoredRound(drawn(np.random.default_rng(seed), 6, 2), (600_000 + 7 * seed, 600_000 - 1000 * seed)) for seed in range(14)]
    found = site_effects(6, rounds, CONFIDENCE)
    with localcontext() as context:
        context.prec = 5
        assert site_effects(6, rounds, CONFIDENCE) == found
    assert site_effects(6, list(reversed(rounds)), CONFIDENCE) == found
    scores = [(each.score, each.lower, each.upper) for each in found.scores if each is not None]
    assert (scores, found.level, to_hex(FORMULA_DIGEST)) == FIXED


def test_too_few_rounds_and_groups_that_set_nobody_apart_give_no_scores() -> None:
    rounds = rounds_of(1, members=12, count=4, rounds=rounds_needed(12, 4) - 1)
    assert rounds_needed(12, 4) == 7
    with pytest.raises(BelowThresholdError, match="at least 10 are required, got 7"):
        site_effects(12, rounds, CONFIDENCE)
    always = [ScoredRound(((0, 1, 2), (3, 4, 5)), (number, 2 * number)) for number in range(40)]
    with pytest.raises(BelowThresholdError, match="tell apart: more rounds: at least 5 are required, got 1"):
        site_effects(6, always, CONFIDENCE)
    with pytest.raises(ValueError, match="disjoint"):
        ScoredRound(((0, 1, 2), (2, 3, 4)), (1, 1))


def test_a_member_that_stood_in_no_group_has_no_score_and_the_lowest_band() -> None:
    rounds = rounds_of(2, members=9, count=3, rounds=14)
    found = site_effects(10, rounds, CONFIDENCE)
    assert found.scores[9] is None
    assert found.scores[:9] == site_effects(9, rounds, CONFIDENCE).scores
    assert bands_of(found, most=4, floor=Decimal(0))[9] == 0


def effects(*intervals: tuple[int, int], level: int = 100) -> Effects:
    return Effects(level, 10, tuple(Score((lower + upper) // 2, lower, upper) for lower, upper in intervals))


def test_sites_that_can_not_be_told_apart_share_a_band() -> None:
    assert bands_of(effects((0, 10), (9, 20), (19, 30), (31, 40)), most=9, floor=Decimal(0)) == (1, 1, 1, 2)
    assert bands_of(effects((0, 10), (10, 20), (50, 60), (40, 45)), most=9, floor=Decimal(0)) == (1, 1, 3, 2)
    assert bands_of(effects((0, 10), (20, 30), (35, 40), (45, 50)), most=2, floor=Decimal(0)) == (1, 2, 2, 2)
    assert bands_of(effects((0, 10), (20, 30), (35, 40), (45, 50)), most=1, floor=Decimal(0)) == (1, 1, 1, 1)


def test_a_band_below_the_floor_is_paid_nothing_and_only_if_all_of_it_lies_there() -> None:
    assert bands_of(effects((-5, 24), (40, 50), (60, 70)), most=9, floor=Decimal("0.25")) == (0, 1, 2)
    assert bands_of(effects((-5, 25), (40, 50), (60, 70)), most=9, floor=Decimal("0.25")) == (1, 2, 3)
    assert bands_of(effects((-5, 24), (24, 50), (60, 70)), most=9, floor=Decimal("0.25")) == (1, 1, 2)
    # Where groups agree on nothing, nothing says who is below.
    assert bands_of(effects((-50, -20), (-10, 5), level=-10), most=9, floor=Decimal("0.25")) == (1, 2)


def test_payouts_are_whole_alike_within_a_band_and_never_more_than_there_is() -> None:
    assert payouts((1, 2, 2, 0), 101, Decimal(1)) == (20, 40, 40, 0)
    assert payouts((1, 2, 2, 0), 101, Decimal("0.3")) == (20, 30, 30, 0)
    assert payouts((0, 0), 101, Decimal(1)) == (0, 0)
    assert payouts((3,), 10**30, Decimal("0.3333")) == (3333 * 10**26,)
    with pytest.raises(ValueError, match="cap"):
        payouts((1,), 1, Decimal("1.1"))
