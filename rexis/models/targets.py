"""What a model predicts, as a member of a feature spec: a class by a bound, a class by name, or the time to an event. Torch-free.

    {"column": "num", "above": "0"}                         # 1 above the bound, else 0
    {"column": "chapter", "levels": ["IX", "X"]}            # the level's place, from 0
    {"time": "days", "event": "died"}                       # follow-up, and whether it ended with the event (1) or was censored (0)

No message quotes a cell, which is a patient's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rexis.errors import MalformedMessageError
from rexis.models.cells import bound, levels, name, numbers

# Name of a column → its cells.
Cells = Callable[[str], Sequence[str]]
Labels = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Above:
    """The label is 1 where a column lies above a bound."""

    column: str
    above: Decimal

    @property
    def columns(self) -> tuple[str, ...]:
        """What the label is made from."""
        return (self.column,)

    def labels(self, cells: Cells) -> NDArray[np.int64]:
        """Labels i64 [n], 0 and 1.

        Raises:
            MalformedMessageError: a cell that is no number.
        """
        return (numbers(self.column, cells(self.column)) > float(self.above)).astype(np.int64)

    def document(self) -> dict[str, Any]:
        """What `parse_target` reads."""
        return {"column": self.column, "above": str(self.above)}


@dataclass(frozen=True)
class OneOf:
    """The label is the place of a column's level among these, from 0."""

    column: str
    levels: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """What the label is made from."""
        return (self.column,)

    def labels(self, cells: Cells) -> NDArray[np.int64]:
        """Labels i64 [n] from 0.

        Raises:
            MalformedMessageError: a cell that is none of the levels.
        """
        place = {level: number for number, level in enumerate(self.levels)}
        found = np.array([place.get(cell, -1) for cell in cells(self.column)], dtype=np.int64)
        if (found < 0).any():
            raise MalformedMessageError(f"column {self.column}: expected one of the target's {len(self.levels)} levels in every row")
        return found

    def document(self) -> dict[str, Any]:
        """What `parse_target` reads."""
        return {"column": self.column, "levels": list(self.levels)}


@dataclass(frozen=True)
class Survival:
    """The label is a follow-up time and whether it ended with the event, right-censored otherwise."""

    time: str
    event: str

    @property
    def columns(self) -> tuple[str, ...]:
        """What the label is made from."""
        return (self.time, self.event)

    def labels(self, cells: Cells) -> NDArray[np.float64]:
        """Labels f64 [n, 2]: time, and 1 for the event or 0 for a censored time.

        Raises:
            MalformedMessageError: a time that is missing or negative, or an event other than 0 or 1.
        """
        times, events = (numbers(column, cells(column)) for column in self.columns)
        if (times < 0).any():
            raise MalformedMessageError(f"column {self.time}: expected follow-up times of at least 0; leave such rows out")
        if not np.isin(events, (0.0, 1.0)).all():
            raise MalformedMessageError(f"column {self.event}: expected 1 where the event was seen and 0 where the time is censored")
        return np.column_stack([times, events])

    def document(self) -> dict[str, Any]:
        """What `parse_target` reads."""
        return {"time": self.time, "event": self.event}


Target = Above | OneOf | Survival


def parse_target(value: Any) -> Target:
    """Read the member `target` of a feature spec.

    Raises:
        MalformedMessageError: none of the three forms.
    """
    members = set(value) if isinstance(value, Mapping) else set()
    if members == {"column", "above"}:
        return Above(name("target", value["column"]), bound(value["above"]))
    if members == {"column", "levels"}:
        return OneOf(name("target", value["column"]), levels(value["levels"], least=2))
    if members == {"time", "event"}:
        return Survival(name("time", value["time"]), name("event", value["event"]))
    raise MalformedMessageError("features: expected a target with exactly column and above, column and levels, or time and event")
