"""What contribution scores find out about sites that cheat, and what they do not: twelve sites, four groups, thirty rounds.

Scores and intervals are in units of the direction that the other groups agree on: an average honest site has about 0.85 here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pytest

from rexis.contribution.bands import bands_of, payouts
from rexis.contribution.effects import site_effects
from rexis.contribution.formula import UNIT
from tests.unit.contribution_worlds import Behaviour, Updates, rounds_of

MEMBERS, ROUNDS = 12, 30
Sent = Callable[[Updates, np.random.Generator], Updates]


@dataclass(frozen=True)
class Outcome:
    """Scores with both ends, bands, and shares of 1000 units."""

    scores: list[float]
    lower: list[float]
    upper: list[float]
    bands: tuple[int, ...]
    paid: tuple[int, ...]


def played(behaviour: Behaviour = lambda updates, _: updates, *, rounds: int = ROUNDS, floor: str = "0.25") -> Outcome:
    effects = site_effects(MEMBERS, rounds_of(1, MEMBERS, 4, rounds, behaviour=behaviour), Decimal("0.95"))
    scores = [score for score in effects.scores if score is not None]
    bands = bands_of(effects, most=8, floor=Decimal(floor))
    ends = [[getattr(score, name) / UNIT for score in scores] for name in ("score", "lower", "upper")]
    return Outcome(ends[0], ends[1], ends[2], bands, payouts(bands, 1000, Decimal(1)))


def first(sent: Sent) -> Behaviour:
    """Member 0 sends something else than it trained."""

    def behaviour(updates: Updates, generator: np.random.Generator) -> Updates:
        return np.vstack([sent(updates, generator), updates[1:]])

    return behaviour


def zeros(updates: Updates, _: np.random.Generator) -> Updates:
    return np.zeros(updates.shape[1])


def noise(updates: Updates, generator: np.random.Generator) -> Updates:
    drawn = generator.normal(size=updates.shape[1])
    return drawn * np.linalg.norm(updates[0]) / np.linalg.norm(drawn)


def backwards(updates: Updates, _: np.random.Generator) -> Updates:
    return -updates[0]


def magnified(updates: Updates, _: np.random.Generator) -> Updates:
    return 10 * updates[0]


def against_the_rest(updates: Updates, _: np.random.Generator) -> Updates:
    """An honest site whose patients are like nobody else's: what it learns has nothing in common with what the others learn."""
    difference: Updates = updates[0] - updates[1:].mean(axis=0)
    return difference


def coalition(size: int) -> Behaviour:
    """Members 0 to `size` send one direction that they made up, as long as the longest update."""

    def behaviour(updates: Updates, _: np.random.Generator) -> Updates:
        made_up = np.zeros_like(updates)
        made_up[:, 0] = np.linalg.norm(updates, axis=1).max()
        return np.vstack([made_up[:size], updates[size:]])

    return behaviour


@pytest.mark.parametrize("rounds", [8, ROUNDS])
@pytest.mark.parametrize("sent", [zeros, noise, backwards])
def test_who_sends_nothing_noise_or_the_opposite_is_told_apart_and_paid_nothing(sent: Sent, rounds: int) -> None:
    outcome = played(first(sent), rounds=rounds)
    assert outcome.scores[0] < 0.1 < min(outcome.scores[1:]) / 4
    assert outcome.bands == (0, *[1] * 11)
    assert outcome.paid == (0, *[90] * 11)
    # What sends nothing and what sends noise are not told from each other; what pulls back is.
    assert (outcome.upper[0] < -0.5) == (sent is backwards)


@pytest.mark.parametrize("idle", [2, 4, 6])
def test_up_to_half_of_the_sites_that_send_nothing_are_told_from_the_others(idle: int) -> None:
    """The more they are, the higher their scores, for they lower what is usual: a floor of a quarter pays them half of an honest share, and
    one of a half keeps only two of them from it."""

    def behaviour(updates: Updates, _: np.random.Generator) -> Updates:
        return np.vstack([np.zeros_like(updates[:idle]), updates[idle:]])

    outcome = played(behaviour)
    assert max(outcome.upper[:idle]) < min(outcome.lower[idle:])
    assert outcome.bands == (*[1] * idle, *[2] * (MEMBERS - idle))
    if idle == 2:
        assert played(behaviour, floor="0.5").bands == (*[0] * idle, *[1] * (MEMBERS - idle))


def test_ten_times_the_update_gains_nothing_and_takes_nothing_from_the_others() -> None:
    honest, cheated = played(), played(first(magnified))
    assert cheated.scores[0] < max(honest.scores) + 0.1
    assert np.mean(np.abs(np.array(cheated.scores[1:]) - honest.scores[1:])) < 0.05
    assert cheated.bands == honest.bands


def test_who_sends_the_last_mean_update_again_is_not_found_out() -> None:
    """Members see every round's model, and so its mean update. A site that sends the last one again contributes nothing new, and is
    scored as an average site: only that it commits to its update before the round's mean is known keeps it from sending this one."""
    last: list[Updates] = []

    def replays(updates: Updates, _: np.random.Generator) -> Updates:
        sent = np.vstack([last[-1] if last else np.zeros(updates.shape[1]), updates[1:]])
        last.append(sent.mean(axis=0))
        return sent

    outcome = played(replays)
    assert outcome.scores[0] > 0.9
    assert set(outcome.bands) == {1}


def test_one_site_under_three_names_is_paid_three_times() -> None:
    def split(updates: Updates, _: np.random.Generator) -> Updates:
        return np.vstack([updates[[0, 0, 0]], updates[3:]])

    outcome = played(split)
    assert set(outcome.bands) == {1}
    assert sum(outcome.paid[:3]) == 3 * outcome.paid[5]


@pytest.mark.parametrize(("size", "ahead"), [(1, False), (3, False), (5, True), (7, True)])
def test_a_coalition_that_agrees_on_a_direction_outvotes_the_honest_from_a_third_on(size: int, ahead: bool) -> None:
    """Alone a made-up direction costs; five of twelve score above all honest sites, seven of twelve are paid twice as much."""
    outcome = played(coalition(size))
    assert (np.mean(outcome.scores[:size]) > max(outcome.scores[size:])) == ahead
    if size == 1:
        assert outcome.upper[0] < 0.5 * min(outcome.lower[1:])
    if size == 7:
        assert outcome.bands == (*[2] * 7, *[1] * 5)


def test_a_site_with_rare_patients_is_scored_as_a_cheat() -> None:
    """Agreement is not worth: why bands are broad, a founder can leave the floor at 0, and a score is no proof of anything."""
    outcome = played(first(against_the_rest))
    assert abs(outcome.scores[0]) < 0.1
    assert outcome.bands[0] == 0


def test_sites_that_differ_by_less_than_their_intervals_are_paid_alike() -> None:
    outcome = played()
    assert max(outcome.scores) - min(outcome.scores) > 0.3
    assert set(outcome.bands) == {1}
    assert set(outcome.paid) == {83}
