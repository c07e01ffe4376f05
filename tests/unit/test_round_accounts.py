"""The accounts of a federation's campaign: each way to lose, repeat or falsify a round is found, so that an empty list means something."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.campaign.round_accounts import Facts, Final, faults_of

INITIAL, SITES, LEAST = b"0" * 32, ("a", "b", "c", "d"), 3


def plain(number: int, survivors: Sequence[str]) -> tuple[bytes, bytes]:
    """A sum and a model that only these survivors give."""
    return f"sum of {','.join(survivors)} in {number}".encode(), f"model {number} of {','.join(survivors)}".encode()


def two_rounds() -> Facts:
    """Round 1 with everybody, round 2 in its second attempt and without d."""
    facts, model = Facts(abandoned=[(2, 1)], opened=[((2, 1), b"21")], committed=Counter({(b"21", "a"): 1})), INITIAL
    for place, present in (((1, 1), SITES), ((2, 2), SITES[:3])):
        ctx = f"{place[0]}{place[1]}".encode()
        aggregate, made = plain(place[0], present)
        facts.opened.append((place, ctx))
        facts.fixed.append((place, present))
        facts.finalised.append(Final(place, model, made, aggregate, len(present)))
        facts.committed.update((ctx, who) for who in SITES)
        model = made
    return facts


def told() -> dict[tuple[int, int], str]:
    return {(1, 1): "finished", (2, 1): "aborted", (2, 2): "finished"}


def faults(facts: Facts, ended: dict[tuple[int, int], str] | None = None) -> dict[str, list[str]]:
    return faults_of(facts, told() if ended is None else ended, rounds=2, initial=INITIAL, least=LEAST, plain=plain)


def test_two_rounds_as_they_should_be() -> None:
    assert faults(two_rounds()) == {}


def _final(facts: Facts, at: int, **changes: Any) -> None:
    facts.finalised[at] = replace(facts.finalised[at], **changes)


DAMAGE: dict[str, tuple[Callable[[Facts], object], set[str]]] = {
    "a round is missing": (lambda facts: facts.finalised.pop(), {"lost", "unsettled"}),
    "a round is final twice": (lambda facts: facts.finalised.append(facts.finalised[0]), {"duplicated", "wrong"}),
    "survivors are fixed twice": (lambda facts: facts.fixed.append(facts.fixed[0]), {"duplicated"}),
    "a site committed twice": (lambda facts: facts.committed.update([(b"11", "a")]), {"duplicated"}),
    "a survivor did not commit": (lambda facts: facts.committed.pop((b"11", "a")), {"lost"}),
    "another sum": (lambda facts: _final(facts, 0, aggregate=b"other"), {"wrong"}),
    "another base model": (lambda facts: _final(facts, 1, base_model=INITIAL), {"wrong"}),
    "fewer updates than survivors": (lambda facts: _final(facts, 1, updates=2), {"wrong"}),
    "one survivor too many": (lambda facts: facts.fixed.__setitem__(1, ((2, 2), SITES)), {"wrong"}),
    "an attempt that never ends": (lambda facts: facts.abandoned.clear(), {"unsettled"}),
}


@pytest.mark.parametrize(("damage", "kinds"), DAMAGE.values(), ids=DAMAGE)
def test_every_damage_is_found_and_called_by_its_name(damage: Callable[[Facts], object], kinds: set[str]) -> None:
    facts = two_rounds()
    damage(facts)
    assert set(faults(facts)) == kinds


def test_an_aggregator_that_says_otherwise_than_the_chain() -> None:
    assert set(faults(two_rounds(), told() | {(1, 1): "aborted"})) == {"untrue"}
    assert set(faults(two_rounds(), told() | {(2, 2): ""})) == {"unsettled"}
    assert set(faults(two_rounds(), told() | {(3, 1): "finished"})) == {"unsettled"}
