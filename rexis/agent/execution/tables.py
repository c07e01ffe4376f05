"""A table query on the rows of one data set: populations settled, subjects counted, the output gate passed or a person asked.

Each row is one subject; tables with a subject's identifier are not registered. The counts of a query are lines: one line for each
combination of cells of its columns that are not sensitive, about one population, with one entry for each cell of the sensitive column.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rexis.agent.execution.columns import NO_CELL, Columns, CutColumn
from rexis.agent.execution.query_rules import QueryRules
from rexis.disclosure.gate import CellRules, release_table, round_counts
from rexis.disclosure.populations import KnownPopulations
from rexis.errors import DisclosureError
from rexis.protocol.queries import AppliedRules, TableQuery, TableResult

TOO_FEW = "rule minimum number of subjects: the filters select fewer than the minimum, so the answer would be about single patients"
NO_CELL_LEFT = "rule minimum cell size: no cell may be released without giving a smaller one away"
NOT_AUTOMATIC = "rule of this site: a person decides about every answer"


@dataclass(frozen=True)
class Answer:
    """What the gate says.

    Attributes:
        result: what leaves at once, or what would leave if a person released it: with the minimum cell where that leaves something,
            else rounded only, and with `minimum_cell` None.
        held: the rule by which a person decides; None if the result leaves at once.
        snapped: lines that are about an earlier population instead of the one that was asked about. For the owner only.
    """

    result: TableResult
    held: str | None
    snapped: int


def answer(query: TableQuery, columns: Columns, rules: QueryRules, known: KnownPopulations) -> Answer:
    """Run a query.

    Args:
        query: the query.
        columns: of the data set.
        rules: the institution's.
        known: populations that were answered about before; new ones are added.

    Raises:
        DisclosureError: the query may not be put to this data set at all, whatever the counts; the message names the rule.
    """
    rules.check(query)
    cuts = [columns.cut(dimension) for dimension in query.dimensions]
    selected = np.ones(columns.rows, dtype=np.bool_)
    sensitive: list[tuple[CutColumn, int]] = []
    for condition in query.filters:
        passing = columns.select(condition)
        if condition.column in rules.sensitive:
            sensitive.append((passing, 1))
        else:
            selected &= passing.cells != NO_CELL
    open_axes = [axis for axis, dimension in enumerate(query.dimensions) if dimension.column not in rules.sensitive]
    closed_axes = [axis for axis in range(len(cuts)) if axis not in open_axes]
    sensitive += [(cuts[axis], query.shape[axis]) for axis in closed_axes]
    measure = _measure(sensitive, columns.rows)
    shape = tuple(query.shape[axis] for axis in open_axes)
    lines, asked_lines = (np.zeros((*shape, measure.entries), dtype=np.int64) for _ in range(2))
    snapped = 0
    for index in np.ndindex(shape):
        population = selected.copy()
        for axis, cell in zip(open_axes, index, strict=True):
            population &= cuts[axis].cells == cell
        settled = known.settle(population)
        snapped += settled.snapped
        lines[index] = measure.count(settled.population)
        # Nothing is answered about fewer than k subjects; a person who decides to is told what they are.
        asked_lines[index] = lines[index] if settled.population.any() else measure.count(population)
    place = _Place(query, (*open_axes, *closed_axes), rules.cells)
    named, asked = lines[..., : measure.asked], asked_lines[..., : measure.asked]
    try:
        released = release_table(lines, rules.cells)
    except DisclosureError:
        released = None
    if released is not None and not (hidden := released.suppressed[..., : measure.asked]).all():
        result = place.result(released.counts[..., : measure.asked], hidden, rules.cells.min_cell_size)
        return Answer(result, None if rules.automatic else NOT_AUTOMATIC, snapped)
    nothing_hidden = np.zeros(asked.shape, dtype=np.bool_)
    reason = TOO_FEW if named.sum() < rules.cells.min_cell_size else NO_CELL_LEFT
    return Answer(place.result(round_counts(asked, rules.cells), nothing_hidden, None), reason, snapped)


@dataclass(frozen=True)
class _Place:
    """How the axes of the lines become those of the query's table."""

    query: TableQuery
    order: tuple[int, ...]
    rules: CellRules

    def result(self, counts: NDArray[np.int64], suppressed: NDArray[np.bool_], minimum: int | None) -> TableResult:
        shown = np.where(suppressed, NO_CELL, counts).reshape([self.query.shape[axis] for axis in self.order])
        cells = tuple(None if count == NO_CELL else int(count) for count in shown.transpose(np.argsort(self.order)).ravel())
        return TableResult(self.query.digest, self.query.dimensions, cells, AppliedRules(minimum, self.rules.rounding_base))


@dataclass(frozen=True, eq=False)
class _Measure:
    """What is counted in each population.

    Attributes:
        entry_of: int64 [n], the entry that a row counts in, `NO_CELL` for none.
        entries: how many there are. One more than `asked` where rows have a value that the query does not name: the gate must see
            them, or "30 of 34 are ill" would pass as a cell of 30.
        asked: entries that the query names; the first ones.
    """

    entry_of: NDArray[np.int64]
    entries: int
    asked: int

    def count(self, population: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Subjects of a population in each entry."""
        entries = self.entry_of[population]
        return np.bincount(entries[entries != NO_CELL], minlength=self.entries)


def _measure(sensitive: list[tuple[CutColumn, int]], rows: int) -> _Measure:
    if not sensitive:
        return _Measure(np.zeros(rows, dtype=np.int64), 1, 1)
    (cut, asked), *_ = sensitive
    if not cut.others.any():
        return _Measure(cut.cells, asked, asked)
    return _Measure(np.where(cut.others, asked, cut.cells), asked + 1, asked)
