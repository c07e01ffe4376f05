"""Tables of counts: minimum cell size, complementary suppression, rounding (`specs/disclosure-and-compliance.md` C.2).

This stops one table from showing one person. It does not stop two overlapping answers from being subtracted
(`rexis.attacks.differencing` does that): `rexis.disclosure.populations` compares what is asked with what was answered.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.errors import DisclosureError

MIN_CELL_SIZE_FLOOR = 5


@dataclass(frozen=True)
class CellRules:
    """What the owner asks of every cell. An owner may raise the minimum; nobody goes below the floor.

    Attributes:
        min_cell_size: k, the least number of distinct subjects behind a released cell.
        rounding_base: released counts are the nearest multiples of it; odd, so that there are no ties.
        suppress_zeros: for sensitive columns, where "nobody" says as much about a group as "everybody".
    """

    min_cell_size: int = 10
    rounding_base: int = 5
    suppress_zeros: bool = False

    def __post_init__(self) -> None:
        if self.min_cell_size < MIN_CELL_SIZE_FLOOR:
            raise ValueError(f"the minimum cell size is at least {MIN_CELL_SIZE_FLOOR}, got {self.min_cell_size}")
        if self.rounding_base < 1 or self.rounding_base % 2 == 0:
            raise ValueError(f"the rounding base is an odd positive number, got {self.rounding_base}")


@dataclass(frozen=True, eq=False)
class ReleasedTable:
    """A table that may leave.

    Attributes:
        counts: int64 of the table's shape, rounded; 0 where suppressed.
        suppressed: bool of the table's shape.
    """

    counts: NDArray[np.int64]
    suppressed: NDArray[np.bool_]

    def margin(self, axis: int) -> NDArray[np.int64]:
        """Totals over an axis, from the released cells only: true totals would give suppressed cells back."""
        return np.asarray(self.counts.sum(axis=axis), dtype=np.int64)


def release_count(subjects: int, rules: CellRules) -> int:
    """One count of distinct subjects, rounded.

    Raises:
        DisclosureError: fewer than the minimum, zero included.
    """
    if subjects < rules.min_cell_size:
        # The count itself stays out of the message: the refusal must not be the answer.
        raise DisclosureError(f"rule minimum cell size: at least {rules.min_cell_size} distinct subjects must stand behind a count")
    return int(round_counts(np.asarray(subjects), rules))


def round_counts(counts: NDArray[np.integer], rules: CellRules) -> NDArray[np.int64]:
    """Counts as their nearest multiples of the rounding base; nothing is suppressed."""
    rounded = (counts.astype(np.int64) + rules.rounding_base // 2) // rules.rounding_base * rules.rounding_base
    return np.asarray(rounded, dtype=np.int64)


def release_table(counts: ArrayLike, rules: CellRules) -> ReleasedTable:
    """A table of counts with what must not be seen suppressed, and the rest rounded.

    Cells of 1 to k - 1 subjects are suppressed; then, in every line (row, column, …) that has a suppressed cell, the next smallest
    ones, until at least two cells with at least k subjects together are: a known total of the line then gives none of them back.

    Args:
        counts: whole numbers of distinct subjects, of one or more dimensions.

    Raises:
        ValueError: negative or fractional counts, or a single number (`release_count`).
        DisclosureError: nothing would be left.
    """
    cells = np.asarray(counts)
    if cells.ndim == 0 or cells.size == 0 or not np.issubdtype(cells.dtype, np.integer) or (cells < 0).any():
        raise ValueError(f"expected a table of whole counts, got {cells.dtype} of shape {cells.shape}")
    suppressed = (cells < rules.min_cell_size) & ((cells > 0) | rules.suppress_zeros)
    added = True
    while added:
        # A cell suppressed for one line may leave another line with a single one.
        added = _suppress_complements(cells, suppressed, rules.min_cell_size)
    if suppressed.all():
        raise DisclosureError(f"rule minimum cell size: no cell of the table may be released with at least {rules.min_cell_size} subjects")
    return ReleasedTable(np.where(suppressed, 0, round_counts(cells, rules)), suppressed)


def _suppress_complements(cells: NDArray[np.integer], suppressed: NDArray[np.bool_], minimum: int) -> bool:
    """Suppress, in place, what lines need beyond what is; whether anything was added."""
    added = False
    for axis in range(cells.ndim):
        lines, hidden = np.moveaxis(cells, axis, -1), np.moveaxis(suppressed, axis, -1)
        for index in np.ndindex(hidden.shape[:-1]):
            line, mask = lines[index], hidden[index]
            while mask.any() and not mask.all() and (mask.sum() < 2 or line[mask].sum() < minimum):
                candidates = np.flatnonzero(~mask & (line > 0))
                # Zeros add nothing to hide behind: without another cell the whole line goes.
                mask[candidates[np.argmin(line[candidates])] if len(candidates) else slice(None)] = True
                added = True
    return added
