"""A contingency table of all sites together: rows by the cells of one to three columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rexis.errors import MalformedMessageError
from rexis.protocol.document_members import members_of
from rexis.protocol.statistics_plans import REST, TABLE, TablePlan
from rexis.secagg.statistics.counts import read_counts
from rexis.secagg.statistics.result import VERSION, Result


@dataclass(frozen=True, eq=False)
class ContingencyTable(Result):
    """Counts of patients.

    Attributes:
        plan: what was counted.
        counts: i64 of the plan's shape; the last two cells of each axis are the other values, and no value.
    """

    plan: TablePlan
    counts: NDArray[np.int64]

    @property
    def named(self) -> NDArray[np.int64]:
        """Counts of the levels and bands that the plan names, without the other two cells of each axis."""
        return self.counts[tuple(slice(0, -len(REST)) for _ in self.plan.shape)]

    def labels(self, axis: int) -> tuple[str, ...]:
        """Names of the cells along an axis, for people."""
        return (*self.plan.dimensions[axis].labels, *REST)

    def document(self) -> dict[str, Any]:
        """`{"version": 1, "statistic": "table", "cells": [count, …]}`, in row-major order."""
        return {"version": VERSION, "statistic": TABLE, "cells": [int(count) for count in self.counts.ravel()]}

    @classmethod
    def parse(cls, plan: TablePlan, value: Any) -> "ContingencyTable":
        """Read a result document; compare its digest with the chain's.

        Raises:
            MalformedMessageError: no table of this plan, or one with a cell that its rule does not allow.
        """
        fields = members_of("table", value, "version statistic cells")
        size = int(np.prod(plan.shape))
        if type(fields["version"]) is not int or (fields["version"], fields["statistic"]) != (VERSION, TABLE):
            raise MalformedMessageError(f"table: expected version {VERSION} of a {TABLE}")
        return cls(plan, read_counts("cells", fields["cells"], size, plan.rule).reshape(plan.shape))


def rest_of_table(plan: TablePlan) -> NDArray[np.bool_]:
    """Which cells are of a value that the plan does not name, or of none; bool [length]."""
    rest = np.ones(plan.shape, dtype=np.bool_)
    rest[tuple(slice(0, -len(REST)) for _ in plan.shape)] = False
    return rest.ravel()
