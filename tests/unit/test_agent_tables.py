"""Tables of counts from worked rows: what is counted, what is hidden, what is held for a person, and which population is answered about."""

from typing import Any

import numpy as np
import pytest

from rexis.agent.execution.columns import Columns
from rexis.agent.execution.query_rules import QueryRules
from rexis.agent.execution.tables import NO_CELL_LEFT, NOT_AUTOMATIC, TOO_FEW, Answer, answer
from rexis.agent.table import Table
from rexis.disclosure.gate import CellRules
from rexis.disclosure.populations import KnownPopulations
from rexis.errors import DisclosureError
from rexis.protocol.queries import TableQuery, TableResult

RULES = QueryRules(frozenset({"num"}))
SICK = {"column": "num", "above": "0"}
SEX = {"column": "sex", "levels": ["f", "m"]}


def table_of(*groups: tuple[int, str, str, str]) -> Columns:
    """Rows of sex, age and num, so many of each."""
    rows = [(sex, age, num) for count, sex, age, num in groups for _ in range(count)]
    return Columns(Table(("sex", "age", "num"), tuple(rows)))


# 100 patients: women 30 healthy and 20 ill (12 of degree 1, 8 of degree 2), men 35 healthy and 15 ill.
COLUMNS = table_of((30, "f", "45", "0"), (12, "f", "45", "1"), (8, "f", "52", "2"), (35, "m", "45", "0"), (15, "m", "61", "1"))


def ask(
    *dimensions: dict[str, Any],
    filters: tuple[dict[str, Any], ...] = (),
    columns: Columns = COLUMNS,
    rules: QueryRules = RULES,
    known: KnownPopulations | None = None,
) -> Answer:
    query = TableQuery.parse({"version": 1, "kind": "table", "dimensions": list(dimensions), "filters": list(filters)})
    found = answer(query, columns, rules, known or KnownPopulations(columns.rows, rules.cells.min_cell_size))
    # Whatever is answered is a result that its readers accept.
    TableResult.parse(found.result.document()).check(query)
    return found


def test_counts_are_rounded_and_in_the_order_of_the_query() -> None:
    assert ask(SEX, SICK).result.cells == (30, 20, 35, 15)
    assert ask(SICK, SEX).result.cells == (30, 35, 20, 15)
    assert ask(SICK).result.cells == (65, 35)
    assert ask(SEX, filters=({"column": "num", "from": "1"},)).result.cells == (20, 15)
    assert ask({"column": "age", "bands": ["46"]}, SICK, filters=({"column": "sex", "in": ["f", "x"]},)).held == NO_CELL_LEFT


def test_bands_have_their_lower_edge_and_above_does_not() -> None:
    columns = table_of((20, "f", "40", "0"), (30, "f", "50", "0"), (40, "f", "50.5", "1"), (10, "f", "", "1"))
    assert ask({"column": "age", "bands": ["50"]}, columns=columns).result.cells == (20, 70)
    assert ask({"column": "age", "above": "50"}, columns=columns).result.cells == (50, 40)
    selected = ask({"column": "sex", "levels": ["f"]}, filters=({"column": "age", "from": "50", "below": "50.5"},), columns=columns)
    assert selected.result.cells == (30,)


def test_a_small_cell_is_hidden_with_what_would_give_it_back() -> None:
    # 8 of degree 2 are hidden, and the next smallest of the line with them.
    found = ask({"column": "num", "levels": ["0", "1", "2"]}, filters=({"column": "sex", "in": ["f"]},))
    assert found.result.cells == (30, None, None)
    assert found.result.margin(0) == (30, 0, 0)
    assert found.held is None


def test_values_that_the_query_does_not_name_are_hidden_values_too() -> None:
    # Of 50 men 35 are healthy; of 26 women 22: that says of four that they are ill.
    columns = table_of((35, "m", "45", "0"), (15, "m", "45", "1"), (22, "f", "45", "0"), (4, "f", "45", "1"))
    healthy = {"column": "num", "levels": ["0"]}
    assert ask(healthy, filters=({"column": "sex", "in": ["m"]},), columns=columns).result.cells == (35,)
    assert ask(healthy, filters=({"column": "sex", "in": ["f"]},), columns=columns).held == NO_CELL_LEFT
    as_filter = ask({"column": "sex", "levels": ["f"]}, filters=({"column": "num", "in": ["0"]},), columns=columns)
    assert as_filter.held == NO_CELL_LEFT


def test_nobody_and_everybody_are_no_answers() -> None:
    columns = table_of((40, "f", "45", "1"), (30, "m", "45", "0"), (30, "m", "45", "1"))
    found = ask(SEX, SICK, columns=columns)
    # All women are ill: neither that, nor that none is healthy, may be seen or worked out from the totals.
    assert found.held == NO_CELL_LEFT


def test_what_isolates_a_patient_is_held_for_a_person() -> None:
    columns = table_of((40, "f", "45", "1"), (40, "f", "45", "0"), (1, "f", "77", "1"))
    found = ask(SICK, filters=({"column": "age", "from": "77"},), columns=columns)
    assert found.held == TOO_FEW
    # What the person decides about is rounded, and says that no minimum stands behind it.
    assert found.result.rules.minimum_cell is None
    assert found.result.cells == (0, 0)


def test_a_site_may_hold_everything() -> None:
    found = ask(SEX, SICK, rules=QueryRules(frozenset({"num"}), automatic=False))
    assert found.held == NOT_AUTOMATIC
    assert found.result.cells == (30, 20, 35, 15)
    assert found.result.rules.minimum_cell == 10


def test_a_population_that_differs_by_fewer_than_k_is_answered_about_the_earlier_one() -> None:
    known = KnownPopulations(COLUMNS.rows, 10)
    first = ask(SICK, filters=({"column": "age", "below": "61"},), known=known)
    # Without the eight of 52 years, who are all ill: the same answer as with them.
    second = ask(SICK, filters=({"column": "age", "below": "50"},), known=known)
    assert (first.snapped, second.snapped) == (0, 1)
    assert first.result.cells == second.result.cells == (65, 20)
    # The other way round, the other answer.
    other_order = KnownPopulations(COLUMNS.rows, 10)
    assert ask(SICK, filters=({"column": "age", "below": "50"},), known=other_order).result.cells == (65, 10)
    assert ask(SICK, filters=({"column": "age", "below": "61"},), known=other_order).result.cells == (65, 10)


def test_near_copies_of_near_copies_lead_back_to_the_first() -> None:
    known = KnownPopulations(100, 10)
    first = np.zeros(100, dtype=bool)
    first[:50] = True
    assert not known.settle(first).snapped
    for more in (5, 9):
        near = first.copy()
        near[50 : 50 + more] = True
        settled = known.settle(near)
        assert settled.snapped
        assert (settled.population == first).all()
    far = first.copy()
    far[50:60] = True
    assert not known.settle(far).snapped
    assert len(known.unsaved) == 2
    known.mark_saved()
    assert known.unsaved == []


def test_few_people_are_nobody_and_are_not_remembered() -> None:
    known = KnownPopulations(100, 10)
    few = np.zeros(100, dtype=bool)
    few[:9] = True
    settled = known.settle(few)
    assert settled.snapped
    assert not settled.population.any()
    assert known.unsaved == []
    with pytest.raises(ValueError, match="100 subjects"):
        known.settle(np.zeros(99, dtype=bool))
    with pytest.raises(ValueError, match="100 subjects"):
        KnownPopulations(100, 10, [b"too short"])


@pytest.mark.parametrize(
    ("dimensions", "filters", "rule"),
    [
        ([{"column": "name", "levels": ["x"]}], [], "known columns"),
        ([SICK], [{"column": "num", "in": ["1"]}], "one sensitive column"),
        ([SICK, {"column": "age", "above": "50"}], [{"column": "sex", "from": "1"}], "numbers"),
        ([{"column": "sex", "bands": ["1"]}], [], "numbers"),
        ([{"column": "code", "levels": ["c1"]}], [], "levels"),
        ([SICK], [{"column": "code", "in": ["c1"]}], "levels"),
    ],
)
def test_questions_that_no_answer_is_safe_to_are_refused(dimensions: list[Any], filters: list[Any], rule: str) -> None:
    rows = tuple(("f", str(index), str(index % 2), f"c{index}") for index in range(100))
    columns = Columns(Table(("sex", "age", "num", "code"), rows))
    known = KnownPopulations(100, 10)
    with pytest.raises(DisclosureError, match=f"rule {rule}"):
        ask(*dimensions, filters=tuple(filters), columns=columns, known=known)
    assert known.unsaved == []


def test_rules_that_protect_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="got none"):
        QueryRules(frozenset())
    with pytest.raises(ValueError, match="zeros"):
        QueryRules(frozenset({"num"}), CellRules())
