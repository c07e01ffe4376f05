"""Whatever is asked, in whatever order: two answers are about one population, or about two that differ by at least k subjects."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rexis.disclosure.populations import KnownPopulations

SUBJECTS = 40


@given(
    minimum=st.integers(min_value=1, max_value=12),
    asked=st.lists(st.lists(st.booleans(), min_size=SUBJECTS, max_size=SUBJECTS), max_size=12),
    restart=st.integers(min_value=0, max_value=12),
)
def test_no_two_answers_are_about_populations_that_differ_by_fewer_than_k(minimum: int, asked: list[list[bool]], restart: int) -> None:
    known, saved, settled = KnownPopulations(SUBJECTS, minimum), list[bytes](), []
    for index, population in enumerate(np.array(each, dtype=bool) for each in asked):
        if index == restart:
            known = KnownPopulations(SUBJECTS, minimum, saved)
        found = known.settle(population)
        saved += known.unsaved
        known.mark_saved()
        distance = int((found.population ^ population).sum())
        assert distance < minimum
        assert found.snapped == (distance > 0)
        settled.append(found.population)
    for one, other in combinations(settled, 2):
        assert (one == other).all() or int((one ^ other).sum()) >= minimum
    # Asked again, each is answered as before.
    assert all((known.settle(each).population == each).all() for each in settled)
