"""What a federation may sum of rows: moments of the features, a table of counts, or the counts that survival curves are made from.

    {"identifier": "moments", "scale_bits": 16}
    {"identifier": "table", "dimensions": [{"column": "age", "bands": ["50", "65"]}, {"column": "sex", "levels": ["F", "M"]}],
     "minimum_cell": 10}
    {"identifier": "survival", "time": "months", "event": {"column": "dead", "events": ["1"], "censored": ["0"]},
     "edges": ["12", "24", "60"], "group": {"column": "arm", "levels": ["A", "B"]},
     "privacy": {"mechanism": "skellam", "noise_multiplier": "4", "delta": "0.000001", "epsilon": "2"}}

The last two count rows by columns of the table as it was registered, with everything that a row can fall into fixed here: what is counted
does not depend on any site's data. Each row is in exactly one cell, and each row is one patient.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, ClassVar, Self

from rexis.disclosure.gate import MIN_CELL_SIZE_FLOOR
from rexis.errors import MalformedMessageError
from rexis.models.features import FeatureSpec
from rexis.protocol.document_members import decimal, integer, line, members_of
from rexis.protocol.plan_parts import PrivacyPlan
from rexis.protocol.queries import Dimension

SCALE_BITS = range(8, 33)
MOMENTS, TABLE, SURVIVAL = "moments", "table", "survival"
MAX_DIMENSIONS, MAX_CELLS = 3, 4096
MAX_EDGES = 120
MAX_LEVELS = 32
MAX_MINIMUM = 1_000_000
# Cells of each dimension beside the named ones: rows with another value, and rows without one.
REST = ("other", "missing")


@dataclass(frozen=True)
class CountRule:
    """What keeps the counts of a sum from showing a person (`rexis.secagg.statistics.counts` says what each rule is worth). One is given.

    Attributes:
        minimum_cell: k: a site takes part only if each of its own cells is empty or has at least k rows. The sum is exact.
        privacy: Skellam noise in each count, whose unit is a patient; cells of any size.
    """

    minimum_cell: int | None
    privacy: PrivacyPlan | None

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """Read the members `minimum_cell` and `privacy` of a plan.

        Raises:
            MalformedMessageError: both or none, or out of bounds. So do all `parse` here.
        """
        if ("minimum_cell" in fields) == ("privacy" in fields):
            raise MalformedMessageError("statistics: counts need the rule minimum_cell or the rule privacy, and not both")
        if "minimum_cell" in fields:
            return cls(integer("minimum_cell", fields["minimum_cell"], MIN_CELL_SIZE_FLOOR, MAX_MINIMUM), None)
        privacy = PrivacyPlan.parse(fields["privacy"])
        if privacy.mechanism != "skellam":
            raise MalformedMessageError(f"statistics: privacy of counts: expected the mechanism skellam, got {privacy.mechanism}")
        return cls(None, privacy)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"minimum_cell": self.minimum_cell} if self.privacy is None else {"privacy": self.privacy.document()}


@dataclass(frozen=True)
class MomentsPlan:
    """A secure sum of counts and moments of the features, in fixed point: n, Σx and Σx² of each feature.

    Attributes:
        scale_bits: binary places after the point.
    """

    scale_bits: int
    identifier: ClassVar[str] = MOMENTS

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the plan."""
        fields = members_of("statistics", value, "identifier scale_bits")
        return cls(integer("scale_bits", fields["scale_bits"], SCALE_BITS.start, SCALE_BITS.stop - 1))

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"identifier": MOMENTS, "scale_bits": self.scale_bits}

    def length(self, features: FeatureSpec) -> int:
        """Entries of a masked vector."""
        return 1 + 2 * len(features.names)


@dataclass(frozen=True)
class TablePlan:
    """A contingency table: rows by the cells of one to three columns.

    Attributes:
        dimensions: the columns with their levels or edges. Each has two cells more, `REST`.
        rule: for the counts.
    """

    dimensions: tuple[Dimension, ...]
    rule: CountRule
    identifier: ClassVar[str] = TABLE

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells of each dimension, the two of `REST` last."""
        return tuple(len(each.labels) + len(REST) for each in self.dimensions)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are counted."""
        return tuple(each.column for each in self.dimensions)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the plan."""
        fields = members_of("statistics", value, "identifier dimensions", optional="minimum_cell privacy")
        if not isinstance(fields["dimensions"], list) or not 0 < len(fields["dimensions"]) <= MAX_DIMENSIONS:
            raise MalformedMessageError(f"statistics: expected 1 to {MAX_DIMENSIONS} dimensions of a table")
        plan = cls(tuple(Dimension.parse(each) for each in fields["dimensions"]), CountRule.parse(fields))
        if len(set(plan.columns)) < len(plan.columns) or math.prod(plan.shape) > MAX_CELLS:
            raise MalformedMessageError(f"statistics: expected dimensions on different columns, and at most {MAX_CELLS} cells")
        return plan

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"identifier": TABLE, "dimensions": [each.document() for each in self.dimensions], **self.rule.document()}

    def length(self, _features: FeatureSpec) -> int:
        """Entries of a masked vector."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class EventColumn:
    """The column that says how a patient's follow-up ended: values that are the event, and values that are none (censored)."""

    column: str
    events: tuple[str, ...]
    censored: tuple[str, ...]

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the member `event`."""
        fields = members_of("event", value, "column events censored")
        events, censored = _values("events", fields["events"]), _values("censored", fields["censored"])
        if set(events) & set(censored):
            raise MalformedMessageError("event: expected no value both among events and among censored")
        return cls(line("event column", fields["column"]), events, censored)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"column": self.column, "events": list(self.events), "censored": list(self.censored)}


@dataclass(frozen=True)
class SurvivalPlan:
    """Events and censorings on a grid of times, in each group.

    A time in (e_(j-1), e_j] counts as e_j, with e_0 below every time; who is followed beyond the last edge leaves there. The curves are
    those of the rows themselves where their times are on the grid.

    Attributes:
        time: column of the follow-up time, in the unit of the edges.
        event: how it ended.
        edges: e_1 … e_K, ascending, from 0.
        group: column whose levels or bands have a curve each; None for one curve.
        rule: for the counts.
    """

    time: str
    event: EventColumn
    edges: tuple[Decimal, ...]
    group: Dimension | None
    rule: CountRule
    identifier: ClassVar[str] = SURVIVAL

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups; one that is called `all` without a grouping column."""
        return ("all",) if self.group is None else self.group.labels

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are counted."""
        return (self.time, self.event.column, *(() if self.group is None else (self.group.column,)))

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the plan."""
        fields = members_of("statistics", value, "identifier time event edges", optional="group minimum_cell privacy")
        edges = fields["edges"]
        if not isinstance(edges, list) or not 0 < len(edges) <= MAX_EDGES:
            raise MalformedMessageError(f"statistics: expected 1 to {MAX_EDGES} edges of time")
        times = tuple(decimal("edges", edge, least=Decimal(0)) for edge in edges)
        if any(float(low) >= float(high) for low, high in pairwise(times)):
            raise MalformedMessageError("statistics: expected ascending edges of time")
        group = Dimension.parse(fields["group"]) if "group" in fields else None
        plan = cls(line("time", fields["time"]), EventColumn.parse(fields["event"]), times, group, CountRule.parse(fields))
        if len(set(plan.columns)) < len(plan.columns) or plan._cells > MAX_CELLS:
            raise MalformedMessageError(f"statistics: expected time, event and group in different columns, and at most {MAX_CELLS} cells")
        return plan

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "identifier": SURVIVAL,
            "time": self.time,
            "event": self.event.document(),
            "edges": [str(edge) for edge in self.edges],
            **({} if self.group is None else {"group": self.group.document()}),
            **self.rule.document(),
        }

    def length(self, _features: FeatureSpec) -> int:
        """Entries of a masked vector."""
        return self._cells

    @property
    def _cells(self) -> int:
        # Events and censorings at each edge and who is followed beyond the last, by group; rows of no group, or without time or event.
        return len(self.groups) * (2 * len(self.edges) + 1) + 1


CountsPlan = TablePlan | SurvivalPlan
StatisticsPlan = MomentsPlan | CountsPlan


def parse_statistics(value: Any) -> StatisticsPlan:
    """Read the member `statistics` of a config.

    Raises:
        MalformedMessageError: an identifier that is not known, or not a plan of it.
    """
    identifier = value.get("identifier") if isinstance(value, Mapping) else None
    plans: Mapping[Any, type[MomentsPlan] | type[TablePlan] | type[SurvivalPlan]]
    plans = {MOMENTS: MomentsPlan, TABLE: TablePlan, SURVIVAL: SurvivalPlan}
    if not isinstance(identifier, str) or identifier not in plans:
        raise MalformedMessageError(f"statistics: expected the identifier {', '.join(plans)}, got {str(identifier)[:40]!r}")
    return plans[identifier].parse(value)


def _values(what: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not 0 < len(values) <= MAX_LEVELS or len({str(value) for value in values}) < len(values):
        raise MalformedMessageError(f"event: expected 1 to {MAX_LEVELS} different values as {what}")
    return tuple(line(what, value) for value in values)
