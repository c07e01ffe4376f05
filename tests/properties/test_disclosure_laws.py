"""What holds for every released table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rexis.disclosure.gate import CellRules, release_table
from rexis.errors import DisclosureError

tables = arrays(
    np.int64, array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5), elements=st.one_of(st.integers(0, 30), st.integers(0, 2000))
)
rules = st.builds(CellRules, st.integers(5, 20), st.sampled_from([1, 3, 5, 11]), st.booleans())


@settings(max_examples=200, deadline=None)
@given(counts=tables, rule=rules)
def test_no_small_cell_leaves_and_no_line_gives_one_back(counts: np.ndarray, rule: CellRules) -> None:
    small = (counts < rule.min_cell_size) & ((counts > 0) | rule.suppress_zeros)
    try:
        released = release_table(counts, rule)
    except DisclosureError:
        assert small.any()
        return
    assert released.suppressed[small].all()
    assert not released.counts[released.suppressed].any()
    kept = ~released.suppressed
    assert (abs(released.counts - counts)[kept] * 2 < rule.rounding_base).all()
    assert not (released.counts % rule.rounding_base).any()
    for axis in range(counts.ndim):
        lines = np.moveaxis(counts, axis, -1).reshape(-1, counts.shape[axis])
        masks = np.moveaxis(released.suppressed, axis, -1).reshape(-1, counts.shape[axis])
        for line, mask in zip(lines, masks, strict=True):
            if mask.any() and not mask.all():
                assert mask.sum() >= 2
                assert line[mask].sum() >= rule.min_cell_size


@settings(max_examples=50, deadline=None)
@given(counts=tables)
def test_tables_of_large_cells_lose_nothing(counts: np.ndarray) -> None:
    assert not release_table(counts + 10, CellRules()).suppressed.any()


@settings(max_examples=50, deadline=None)
@given(shape=array_shapes(max_dims=3, max_side=5), generator=st.integers(0, 2**32 - 1).map(np.random.default_rng))
def test_a_refusal_does_not_say_how_small_the_cells_are(shape: tuple[int, ...], generator: np.random.Generator) -> None:
    messages = set()
    for counts in (np.full(shape, 1), np.full(shape, 9), generator.integers(1, 10, shape)):
        with pytest.raises(DisclosureError) as caught:
            release_table(counts, CellRules())
        messages.add(str(caught.value))
    assert len(messages) == 1
