"""Events and censorings of all sites together, on a grid of times and by group: what survival curves are made from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rexis.errors import MalformedMessageError
from rexis.protocol.document_members import members_of
from rexis.protocol.statistics_plans import SURVIVAL, SurvivalPlan
from rexis.secagg.statistics.counts import read_counts
from rexis.secagg.statistics.result import VERSION, Result


@dataclass(frozen=True, eq=False)
class SurvivalCounts(Result):
    """Counts of patients, G groups by K edges.

    Attributes:
        plan: what was counted.
        events: i64 [G, K], whose event was at edge j, or since the edge before it.
        censored: i64 [G, K], who was last seen there without one.
        after: i64 [G], who was followed beyond the last edge.
        left_out: patients of no named group, or without a time or a named ending.
    """

    plan: SurvivalPlan
    events: NDArray[np.int64]
    censored: NDArray[np.int64]
    after: NDArray[np.int64]
    left_out: int

    @property
    def at_risk(self) -> NDArray[np.int64]:
        """i64 [G, K]: patients whose event or censoring is at edge j or later. Events come before censorings at the same edge."""
        leaving = self.events + self.censored
        return np.cumsum(leaving[:, ::-1], axis=1)[:, ::-1] + self.after[:, np.newaxis]

    @classmethod
    def of(cls, plan: SurvivalPlan, counts: NDArray[np.int64]) -> "SurvivalCounts":
        """Read a vector of counts, i64 [length]: of each group its events, its censorings and who stayed; then who was left out."""
        edges = len(plan.edges)
        by_group = counts[:-1].reshape(len(plan.groups), 2 * edges + 1)
        return cls(plan, by_group[:, :edges], by_group[:, edges:-1], by_group[:, -1], int(counts[-1]))

    def document(self) -> dict[str, Any]:
        """`{"version": 1, "statistic": "survival", "groups": [{"events": […], "censored": […], "after": n}], "left_out": n}`."""
        groups = [
            {"events": [int(count) for count in events], "censored": [int(count) for count in censored], "after": int(after)}
            for events, censored, after in zip(self.events, self.censored, self.after, strict=True)
        ]
        return {"version": VERSION, "statistic": SURVIVAL, "groups": groups, "left_out": self.left_out}

    @classmethod
    def parse(cls, plan: SurvivalPlan, value: Any) -> "SurvivalCounts":
        """Read a result document; compare its digest with the chain's.

        Raises:
            MalformedMessageError: no counts of this plan, or some that its rule does not allow.
        """
        fields = members_of("survival", value, "version statistic groups left_out")
        if type(fields["version"]) is not int or (fields["version"], fields["statistic"]) != (VERSION, SURVIVAL):
            raise MalformedMessageError(f"survival: expected version {VERSION} of {SURVIVAL} counts")
        if not isinstance(fields["groups"], list) or len(fields["groups"]) != len(plan.groups):
            raise MalformedMessageError(f"survival: expected {len(plan.groups)} groups")
        values: list[NDArray[np.int64]] = []
        for group in fields["groups"]:
            members = members_of("group", group, "events censored after")
            values += [read_counts(name, members[name], len(plan.edges), plan.rule) for name in ("events", "censored")]
            values.append(read_counts("after", [members["after"]], 1, plan.rule))
        values.append(read_counts("left_out", [fields["left_out"]], 1, plan.rule))
        return cls.of(plan, np.concatenate(values))


def rest_of_survival(plan: SurvivalPlan) -> NDArray[np.bool_]:
    """Which entries are of patients that no curve counts: the last one; bool [length]."""
    rest = np.zeros(len(plan.groups) * (2 * len(plan.edges) + 1) + 1, dtype=np.bool_)
    rest[-1] = True
    return rest
