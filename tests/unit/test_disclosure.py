"""The gate on worked tables."""

import numpy as np
import pytest

from rexis.disclosure.gate import CellRules, release_count, release_table
from rexis.errors import DisclosureError

RULES = CellRules()


@pytest.mark.parametrize(("subjects", "released"), [(10, 10), (11, 10), (12, 10), (13, 15), (14, 15), (740, 740), (742, 740), (743, 745)])
def test_counts_are_rounded_to_the_nearest_base(subjects: int, released: int) -> None:
    assert release_count(subjects, RULES) == released


@pytest.mark.parametrize("subjects", [0, 1, 9])
def test_small_counts_are_refused_without_saying_how_small(subjects: int) -> None:
    with pytest.raises(DisclosureError, match="minimum cell size") as caught:
        release_count(subjects, RULES)
    with pytest.raises(DisclosureError) as other:
        release_count(5, RULES)
    assert str(caught.value) == str(other.value)


def test_a_table_without_small_cells_is_only_rounded() -> None:
    released = release_table([[12, 33], [48, 0]], RULES)
    assert released.counts.tolist() == [[10, 35], [50, 0]]
    assert not released.suppressed.any()
    assert released.margin(0).tolist() == [60, 35]
    assert released.margin(1).tolist() == [45, 50]


def test_a_small_cell_takes_the_next_smallest_of_its_row_and_column_along() -> None:
    # 3 is small; 14 hides it in its row, 20 in its column, and 30 closes the square.
    released = release_table([[3, 14, 90], [20, 30, 80], [50, 60, 70]], RULES)
    assert released.suppressed.tolist() == [[True, True, False], [True, True, False], [False, False, False]]
    assert released.counts.tolist() == [[0, 0, 90], [0, 0, 80], [50, 60, 70]]
    assert released.margin(0).tolist() == [50, 60, 240]


def test_two_tiny_cells_are_not_enough_to_hide_behind() -> None:
    # 2 + 3 = 5 < 10: whoever knows the total of the line would know that five people are in these cells.
    released = release_table([2, 3, 40, 50], RULES)
    assert released.suppressed.tolist() == [True, True, True, False]


def test_zeros_hide_nothing_and_are_sensitive_on_request() -> None:
    assert release_table([4, 0, 40, 50], RULES).suppressed.tolist() == [True, False, True, False]
    sensitive = CellRules(suppress_zeros=True)
    assert release_table([0, 30, 40, 50], sensitive).suppressed.tolist() == [True, True, False, False]
    assert not release_table([0, 30, 40, 50], RULES).suppressed.any()


@pytest.mark.parametrize("table", [[3, 4], [[1, 50], [60, 2]], [9]])
def test_a_table_of_which_nothing_is_left_is_refused(table: list[int]) -> None:
    with pytest.raises(DisclosureError, match="minimum cell size"):
        release_table(table, RULES)


def test_an_owner_may_raise_the_minimum_and_nobody_lower_it_below_the_floor() -> None:
    assert release_table([12, 300, 400], CellRules(min_cell_size=20)).suppressed.tolist() == [True, True, False]
    with pytest.raises(ValueError, match="at least 5"):
        CellRules(min_cell_size=4)
    for base in (0, 4, -5):
        with pytest.raises(ValueError, match="odd"):
            CellRules(rounding_base=base)


@pytest.mark.parametrize("table", [7, [], [1.5, 20.0], [-1, 20], [True, False]])
def test_what_is_no_table_of_counts_is_refused(table: object) -> None:
    with pytest.raises(ValueError, match="whole counts"):
        release_table(table, RULES)


def test_the_callers_table_is_left_alone() -> None:
    table = np.array([3, 30, 40])
    release_table(table, RULES)
    assert table.tolist() == [3, 30, 40]
