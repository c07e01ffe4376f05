"""Differencing through the agent's own executor: `specs/disclosure-and-compliance.md` G and its first correction, in the spec's world.

5,000 patients, a yes/no diagnosis with even prior, an attacker who can single one patient out (`weight` has a different value for each) and
knows random sub-groups (`group0`, …). Everything that the attacker asks is a query that any consumer may send. Where the
bound is kept there is a test that shows what keeps it.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rexis.agent.execution.columns import Columns
from rexis.agent.execution.query_rules import DEFAULT_BUDGET, QueryRules
from rexis.agent.execution.tables import answer
from rexis.agent.table import Table
from rexis.attacks.differencing import Population, pair_attack
from rexis.disclosure.populations import KnownPopulations
from rexis.errors import DisclosureError
from rexis.protocol.queries import TableQuery

PATIENTS, TARGETS = 5000, 200
# A target is in every second group, so that there are 20 pairs about each.
GROUPS = 40
# The spec's bound. The standard error of a share of 200 guesses is 0.035.
BOUND = 0.60
RULES = QueryRules(frozenset({"diagnosis"}))
ILL = {"column": "diagnosis", "in": ["yes"]}
ILL_CELL = {"column": "diagnosis", "levels": ["yes"]}
EVERYBODY = {"column": "site", "levels": ["here"]}


class World:
    """The table, and what the attacker knows of it: all but the diagnosis of the target."""

    def __init__(self) -> None:
        generator = np.random.default_rng(7)
        self.diagnosis: NDArray[np.bool_] = generator.random(PATIENTS) < 0.5
        self.weight = generator.permutation(PATIENTS)
        self.groups: NDArray[np.bool_] = generator.random((GROUPS, PATIENTS)) < 0.5
        names = ("weight", "diagnosis", "site", *(f"group{index}" for index in range(GROUPS)))
        rows = [
            (str(weight), "yes" if ill else "no", "here", *("in" if member else "out" for member in groups))
            for weight, ill, groups in zip(self.weight, self.diagnosis, self.groups.T, strict=True)
        ]
        self.columns = Columns(Table(names, tuple(rows)))
        # Somewhere in the middle, so that every group below has enough patients.
        candidates = np.flatnonzero((self.weight > 500) & (self.weight < 4500))
        self.targets = [int(index) for index in generator.choice(candidates, TARGETS, replace=False)]

    def groups_of(self, target: int) -> list[int]:
        """Groups that a patient is in."""
        return [int(index) for index in np.flatnonzero(self.groups[:, target])]


WORLD = World()


class Consumer:
    """Asks one agent, and gets what leaves the premises at once; what is held or refused raises."""

    def __init__(self, minimum: int, rules: QueryRules) -> None:
        self._known, self._rules = KnownPopulations(PATIENTS, minimum), rules

    def count(self, filters: list[dict[str, Any]], *dimensions: dict[str, Any]) -> int:
        """Sum of the released cells."""
        query = TableQuery.parse({"version": 1, "kind": "table", "dimensions": list(dimensions), "filters": filters})
        found = answer(query, WORLD.columns, self._rules, self._known)
        if found.held is not None:
            raise DisclosureError(found.held)
        return found.result.total


Guess = Callable[[int, Consumer], bool]


def success_rate(guess: Guess, *, minimum: int = RULES.cells.min_cell_size, rules: QueryRules = RULES) -> float:
    """Share of targets about whom the attacker is right, each attacked on a ledger of its own; `minimum` is the k of snapping."""
    return sum(guess(target, Consumer(minimum, rules)) == WORLD.diagnosis[target] for target in WORLD.targets) / TARGETS


def below(weight: int) -> dict[str, Any]:
    return {"column": "weight", "below": int(weight)}


def in_group(index: int) -> dict[str, Any]:
    return {"column": f"group{index}", "in": ["in"]}


def by_pairs(ask: Callable[[Consumer, int, int, bool], int]) -> Guess:
    """`pair_attack` with populations that queries can express: group i below the target's weight, without and with the target."""

    def guess(target: int, consumer: Consumer) -> bool:
        masks = [WORLD.groups[index] & (WORLD.weight <= WORLD.weight[target]) for index in WORLD.groups_of(target)]
        names = {mask.tobytes(): index for mask, index in zip(masks, WORLD.groups_of(target), strict=True)}

        def count_cases(population: Population) -> int:
            includes, whole = bool(population[target]), population.copy()
            whole[target] = True
            return ask(consumer, names[whole.tobytes()], int(WORLD.weight[target]) + includes, includes)

        return pair_attack(count_cases, masks, target)

    return guess


def plainly(consumer: Consumer, group: int, bound: int, _: bool) -> int:
    return consumer.count([in_group(group), below(bound)], ILL_CELL)


def in_two_wordings(consumer: Consumer, group: int, bound: int, includes: bool) -> int:
    """The diagnosis once as a cell and once as a filter, the group once as a filter and once as a cell."""
    if includes:
        return consumer.count([ILL, below(bound)], {"column": f"group{group}", "levels": ["in"]})
    return consumer.count([in_group(group), below(bound)], ILL_CELL)


@pytest.mark.parametrize("ask", [plainly, in_two_wordings])
def test_twenty_pairs_do_not_tell_the_diagnosis(ask: Callable[[Consumer, int, int, bool], int]) -> None:
    assert success_rate(by_pairs(ask)) < BOUND


def test_without_snapping_they_do() -> None:
    assert success_rate(by_pairs(plainly), minimum=1) > 0.95


def threshold_oracle(target: int, consumer: Consumer) -> bool:
    """Correction 1: add k - 1 people known to be ill, and the target if ill; if whether an answer is fresh depends on k, it tells."""
    ill_below = np.sort(WORLD.weight[WORLD.diagnosis & (WORLD.weight < WORLD.weight[target])])
    without = consumer.count([ILL, below(ill_below[1 - RULES.cells.min_cell_size])], EVERYBODY)
    return consumer.count([ILL, below(WORLD.weight[target] + 1)], EVERYBODY) != without


def test_whether_an_answer_is_an_earlier_one_does_not_depend_on_the_diagnosis() -> None:
    assert success_rate(threshold_oracle) < BOUND


def test_it_would_if_the_diagnosis_were_not_named_sensitive() -> None:
    assert success_rate(threshold_oracle, rules=QueryRules(frozenset({"group1"}))) == 1.0


def by_lines(equations: int) -> Guess:
    """n(A) - n(B) - n(C), where B and C are two halves of A without the target; two queries to an equation."""

    def guess(target: int, consumer: Consumer) -> bool:
        weight, differences = WORLD.weight[target], []
        for index, other in list(pairwise(WORLD.groups_of(target)))[:equations]:
            whole = consumer.count([in_group(index), below(weight + 1)], ILL_CELL)
            halves = consumer.count([ILL, in_group(index), below(weight)], {"column": f"group{other}", "levels": ["in", "out"]})
            differences.append(whole - halves)
        return float(np.mean(differences)) > 0.5

    return guess


def test_one_linear_combination_tells_little() -> None:
    assert success_rate(by_lines(1)) < 0.65


def test_what_the_default_budget_leaves_of_linear_combinations() -> None:
    """Not the spec's bound: an ideal attacker who may spend a data set's whole budget on one patient is right three times in four."""
    assert 0.6 < success_rate(by_lines(DEFAULT_BUDGET // 2)) < 0.85
