"""Compute-to-data queries: a table of counts over one or two columns, and the answer that passed the owner's output gate.

    {"version": 1, "kind": "table",
     "dimensions": [{"column": "age", "bands": ["40", "50", "60"]}, {"column": "num", "above": "0"}],
     "filters": [{"column": "sex", "in": ["Male"]}, {"column": "age", "from": "30", "below": "80"}]}

A closed grammar instead of a language: what is not in it can not be asked. Numbers travel as decimal strings, as everywhere that is hashed;
whole numbers are read too, and `document` writes every query in one normal form, so that one question has one digest.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Self, TypeVar

from rexis.encoding import canonical_json, from_hex, require_text, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError, UnexpectedMessageError

VERSION = 1
TABLE = "table"
MAX_DIMENSIONS = 2
MAX_FILTERS = 4
MAX_CELLS = 32
MAX_LISTED = 256
MAX_TEXT = 200
MAX_NUMBER_LENGTH = 64
# Fewer than decimal's own precision, so that the normal form has every digit.
MAX_DIGITS = 24
MAX_COUNT = 1 << 40


@dataclass(frozen=True)
class Dimension:
    """One column of the table, cut into cells. Exactly one of the three is given.

    Attributes:
        column: name in the data set.
        bands: ascending edges of numbers; m edges make m + 1 cells, a cell has its lower edge and not its upper one.
        levels: values, one cell each; rows with another value are in none.
        above: a number; two cells, up to and with it, and above it.
    """

    column: str
    bands: tuple[Decimal, ...] | None = None
    levels: tuple[str, ...] | None = None
    above: Decimal | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What the cells are, in order, for people."""
        if self.levels is not None:
            return self.levels
        if self.above is not None:
            return (f"up to {_text_of(self.above)}", f"above {_text_of(self.above)}")
        edges = [_text_of(edge) for edge in self.bands or ()]
        return (f"below {edges[0]}", *(f"{low} to below {high}" for low, high in pairwise(edges)), f"from {edges[-1]}")

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read one dimension."""
        if not isinstance(value, Mapping) or len(value) != 2 or "column" not in value or not set(value) <= {"column", *_CUTS}:
            raise MalformedMessageError(f"query: a dimension has a column and one of {', '.join(_CUTS)}")
        column = _text("column", value["column"])
        if "above" in value:
            return cls(column, above=_number("above", value["above"]))
        if "levels" in value:
            return cls(column, levels=_texts("levels", value["levels"], MAX_CELLS))
        edges = value["bands"]
        if not isinstance(edges, list | tuple) or not 0 < len(edges) < MAX_CELLS:
            raise MalformedMessageError(f"query: expected 1 to {MAX_CELLS - 1} edges as bands")
        bands = tuple(_number("bands", edge) for edge in edges)
        if any(low >= high for low, high in pairwise(bands)):
            raise MalformedMessageError("query: expected ascending edges as bands")
        return cls(column, bands=bands)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        if self.levels is not None:
            return {"column": self.column, "levels": list(self.levels)}
        if self.above is not None:
            return {"column": self.column, "above": _text_of(self.above)}
        return {"column": self.column, "bands": [_text_of(edge) for edge in self.bands or ()]}


@dataclass(frozen=True)
class Filter:
    """One condition on a row: a value among `among`, or a number from `least` on and below `below`, where None is no bound."""

    column: str
    among: tuple[str, ...] | None = None
    least: Decimal | None = None
    below: Decimal | None = None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read one filter."""
        fields = set(value) if isinstance(value, Mapping) else set()
        if fields == {"column", "in"}:
            return cls(_text("column", value["column"]), among=tuple(sorted(_texts("in", value["in"], MAX_LISTED))))
        if not {"column"} < fields <= {"column", "from", "below"}:
            raise MalformedMessageError("query: a filter has a column, and in, or from and below, or one of these two")
        least, below = (_number(name, value[name]) if name in fields else None for name in ("from", "below"))
        if least is not None and below is not None and least >= below:
            raise MalformedMessageError("query: expected a filter's from before its below")
        return cls(_text("column", value["column"]), least=least, below=below)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        if self.among is not None:
            return {"column": self.column, "in": list(self.among)}
        bounds = {"from": self.least, "below": self.below}
        return {"column": self.column} | {name: _text_of(bound) for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class TableQuery:
    """How many rows there are for each combination of cells, among the rows that pass all filters."""

    dimensions: tuple[Dimension, ...]
    filters: tuple[Filter, ...] = ()

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Read a query from someone else, in any order and notation.

        Raises:
            MalformedMessageError: unknown, missing or ill-formed fields, a bound exceeded, or two dimensions or two filters on one column.
        """
        fields = {"version", "kind", "dimensions", "filters"}
        if not isinstance(document, Mapping) or not fields - {"filters"} <= set(document) <= fields:
            raise MalformedMessageError("a query has the fields version, kind, dimensions, and where needed filters")
        _check_kind("query", document)
        dimensions = _list("dimensions", document["dimensions"], 1, MAX_DIMENSIONS, Dimension.parse)
        filters = _list("filters", document.get("filters", []), 0, MAX_FILTERS, Filter.parse)
        if len({each.column for each in dimensions}) < len(dimensions) or len({each.column for each in filters}) < len(filters):
            raise MalformedMessageError("query: expected dimensions on different columns, and filters on different columns")
        return cls(tuple(dimensions), tuple(sorted(filters, key=lambda each: each.column)))

    def document(self) -> dict[str, Any]:
        """The one normal form: filters by column, their values sorted, numbers in their shortest decimal form."""
        return {
            "version": VERSION,
            "kind": TABLE,
            "dimensions": [each.document() for each in self.dimensions],
            "filters": [each.document() for each in self.filters],
        }

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical document, 32 bytes."""
        return sha256(canonical_json(self.document()))

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells of each dimension."""
        return tuple(len(each.labels) for each in self.dimensions)

    @property
    def columns(self) -> frozenset[str]:
        """Every column that the query names."""
        return frozenset(each.column for each in self.dimensions) | frozenset(each.column for each in self.filters)


@dataclass(frozen=True)
class AppliedRules:
    """What the owner's gate did to the counts.

    Attributes:
        minimum_cell: cells of fewer subjects, and those that would give them back, are suppressed; None if a person of the institution
            released the table without it.
        rounding: counts are multiples of this.
    """

    minimum_cell: int | None
    rounding: int


@dataclass(frozen=True)
class TableResult:
    """The answer to a table query.

    Attributes:
        query: digest of the query, 32 bytes.
        dimensions: as in the query.
        cells: counts of subjects in row-major order, None where suppressed.
        rules: what was done to them.
    """

    query: bytes
    dimensions: tuple[Dimension, ...]
    cells: tuple[int | None, ...]
    rules: AppliedRules

    def margin(self, axis: int) -> tuple[int, ...]:
        """Totals for each cell of dimension `axis`, of the kept cells only: true totals would give suppressed ones back."""
        totals = [0] * len(self.dimensions[axis].labels)
        stride = math.prod(len(each.labels) for each in self.dimensions[axis + 1 :])
        for index, count in enumerate(self.cells):
            totals[index // stride % len(totals)] += count or 0
        return tuple(totals)

    @property
    def total(self) -> int:
        """Sum of the kept cells."""
        return sum(count or 0 for count in self.cells)

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Read a result.

        Raises:
            MalformedMessageError: unknown, missing or ill-formed fields, counts that are no multiples of the rounding, or margins that are
                not the sums of the kept cells.
        """
        if not isinstance(document, Mapping) or set(document) != _RESULT_FIELDS:
            raise MalformedMessageError(f"a result has exactly the fields {', '.join(sorted(_RESULT_FIELDS))}")
        _check_kind("result", document)
        dimensions = tuple(_list("dimensions", document["dimensions"], 1, MAX_DIMENSIONS, Dimension.parse))
        rules = _rules(document["rules"])
        expected = math.prod(len(each.labels) for each in dimensions)
        cells = _list("cells", document["cells"], expected, expected, lambda count: _count(count, rules))
        try:
            query = from_hex(document["query"], 32)
        except EncodingError as error:
            raise MalformedMessageError(f"result: query: {error}") from error
        result = cls(query, dimensions, tuple(cells), rules)
        if result.document() != document:
            raise MalformedMessageError("result: expected margins and total that are the sums of the kept cells, in the normal form")
        return result

    def check(self, query: TableQuery) -> None:
        """Raise unless this answers `query`.

        Raises:
            UnexpectedMessageError: it answers another query.
        """
        if self.query != query.digest or self.dimensions != query.dimensions:
            raise UnexpectedMessageError(f"expected the answer to query {to_hex(query.digest)}, got that to {to_hex(self.query)}")

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "version": VERSION,
            "kind": TABLE,
            "query": to_hex(self.query),
            "dimensions": [each.document() for each in self.dimensions],
            "cells": list(self.cells),
            "margins": [list(self.margin(axis)) for axis in range(len(self.dimensions))],
            "total": self.total,
            "rules": {"minimum_cell": self.rules.minimum_cell, "rounding": self.rules.rounding},
        }

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical document, 32 bytes."""
        return sha256(canonical_json(self.document()))


Item = TypeVar("Item")
_CUTS = ("bands", "levels", "above")
_RESULT_FIELDS = {"version", "kind", "query", "dimensions", "cells", "margins", "total", "rules"}


def _check_kind(what: str, document: Mapping[str, Any]) -> None:
    if type(document["version"]) is not int or document["version"] != VERSION or document["kind"] != TABLE:
        raise MalformedMessageError(f"{what}: expected version {VERSION} and kind {TABLE!r}")


def _list(what: str, value: Any, least: int, most: int, read: Callable[[Any], Item]) -> list[Item]:
    if not isinstance(value, list | tuple) or not least <= len(value) <= most:
        raise MalformedMessageError(f"query: expected a list of {least} to {most} items as {what}")
    return [read(item) for item in value]


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise MalformedMessageError(f"query: expected a text of 1 to {MAX_TEXT} characters as {what}")
    try:
        require_text(what, value)
    except EncodingError as error:
        raise MalformedMessageError(f"query: {error}") from error
    return value


def _texts(what: str, values: Any, limit: int) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not 0 < len(values) <= limit:
        raise MalformedMessageError(f"query: expected 1 to {limit} values as {what}")
    texts: Sequence[str] = [_text(what, value) for value in values]
    if len(set(texts)) < len(texts):
        raise MalformedMessageError(f"query: expected different values as {what}")
    return tuple(texts)


def _number(what: str, value: Any) -> Decimal:
    text = str(value) if type(value) is int and abs(value) < MAX_COUNT else value
    try:
        number = Decimal(text) if isinstance(text, str) and len(text) <= MAX_NUMBER_LENGTH else None
    except InvalidOperation:
        number = None
    # Exponents are bounded, or the normal form of a short text would be a long one.
    if number is None or not number.is_finite() or len(number.as_tuple().digits) > MAX_DIGITS or abs(number.adjusted()) > MAX_DIGITS:
        raise MalformedMessageError(f"query: expected a whole number, or a decimal number as text, as {what}")
    return number


def _text_of(number: Decimal) -> str:
    text = f"{number.normalize():f}"
    return "0" if text == "-0" else text


def _rules(value: Any) -> AppliedRules:
    if not isinstance(value, Mapping) or set(value) != {"minimum_cell", "rounding"}:
        raise MalformedMessageError("result: expected the rules minimum_cell and rounding")
    minimum, rounding = value["minimum_cell"], value["rounding"]
    if (minimum is not None and (type(minimum) is not int or minimum < 1)) or type(rounding) is not int or rounding < 1:
        raise MalformedMessageError("result: expected positive whole numbers as rules")
    return AppliedRules(minimum, rounding)


def _count(value: Any, rules: AppliedRules) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < MAX_COUNT or value % rules.rounding:
        raise MalformedMessageError(f"result: expected counts that are multiples of {rules.rounding}, or null")
    return value
