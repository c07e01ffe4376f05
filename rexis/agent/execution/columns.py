"""A table's columns as the executor counts with them: text as levels, and as numbers where it reads as such."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rexis.agent.profile import MISSING
from rexis.agent.table import Table
from rexis.errors import DisclosureError
from rexis.protocol.queries import Dimension, Filter

# A column with more values tells rows apart: codes, dates, free text. It is cut by numbers, or not at all.
MAX_LEVELS = 64
NO_CELL = -1


@dataclass(frozen=True, eq=False)
class CutColumn:
    """One column cut into cells.

    Attributes:
        cells: int64 [n], the cell of each row; `NO_CELL` for rows in none.
        others: bool [n], rows in none although they have a value.
    """

    cells: NDArray[np.int64]
    others: NDArray[np.bool_]


class Columns:
    """The columns of one table of n rows, each row one subject."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows = len(table.rows)
        self._columns: dict[str, _Column] = {}

    def cut(self, dimension: Dimension) -> CutColumn:
        """The cell that each row is in.

        Raises:
            DisclosureError: see `select`.
        """
        column = self._column(dimension.column)
        if dimension.levels is not None:
            places = {level: index for index, level in enumerate(dimension.levels)}
            of_level = np.array([places.get(level, NO_CELL) for level in column.levels], dtype=np.int64)
            cells = of_level[column.codes]
        else:
            edges = dimension.bands if dimension.above is None else (dimension.above,)
            # A band has its lower edge; "above" leaves it to the cell below.
            side: Literal["left", "right"] = "right" if dimension.above is None else "left"
            cells = np.searchsorted(np.array([float(edge) for edge in edges or ()]), column.numbers, side=side).astype(np.int64)
            cells[np.isnan(column.numbers)] = NO_CELL
        return CutColumn(cells, (cells == NO_CELL) & column.present)

    def select(self, condition: Filter) -> CutColumn:
        """Rows that a filter lets through, in cell 0.

        Raises:
            DisclosureError: no such column, values of one that has too many, or numbers of one that has none.
        """
        column = self._column(condition.column)
        if condition.among is not None:
            wanted = frozenset(condition.among)
            passing = np.array([level in wanted for level in column.levels], dtype=np.bool_)[column.codes]
        else:
            passing = ~np.isnan(column.numbers)
            if condition.least is not None:
                passing &= column.numbers >= float(condition.least)
            if condition.below is not None:
                passing &= column.numbers < float(condition.below)
        return CutColumn(np.where(passing, 0, NO_CELL).astype(np.int64), ~passing & column.present)

    def _column(self, name: str) -> "_Column":
        if name not in self.table.columns:
            raise DisclosureError(f"rule known columns: the data set has no column {name!r}; its metadata lists them")
        if name not in self._columns:
            self._columns[name] = _Column(name, self.table.column(name))
        return self._columns[name]


class _Column:
    def __init__(self, name: str, cells: list[str]) -> None:
        self._name = name
        self._cells = cells
        self.present: NDArray[np.bool_] = np.array([cell.strip().lower() not in MISSING for cell in cells], dtype=np.bool_)

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """f64 [n]; NaN where the cell is no finite number."""
        numbers = np.array([number(cell) for cell in self._cells])
        if np.isnan(numbers).all():
            raise DisclosureError(f"rule numbers: column {self._name!r} has no numbers to cut or compare; name its levels")
        return numbers

    @cached_property
    def _encoded(self) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        levels = tuple(sorted(set(self._cells)))
        if len(levels) > MAX_LEVELS:
            raise DisclosureError(f"rule levels: column {self._name!r} has more than {MAX_LEVELS} values, which tell rows apart")
        places = {level: index for index, level in enumerate(levels)}
        return levels, np.array([places[cell] for cell in self._cells], dtype=np.int64)

    @property
    def levels(self) -> tuple[str, ...]:
        return self._encoded[0]

    @property
    def codes(self) -> NDArray[np.int64]:
        return self._encoded[1]


def number(cell: str) -> float:
    """A cell as a number; NaN if it is no finite one."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
