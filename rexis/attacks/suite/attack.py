"""What an attack of the suite is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from rexis.attacks.exposure import Exposure


class Knows(Enum):
    """What the attacker has besides the upload."""

    UPLOAD = "nothing but the upload"
    PUBLIC = "what is public: texts of the same kind"
    WEIGHTS = "plain weights that the job's came from, or the plain model itself"
    COHORT = "a cohort of the same distribution"
    PAIRS = "some records in plain beside their keyed forms"
    RESULT = "the trained model, or what it answers"


class Reads(Enum):
    """What is lost if the attack gets through."""

    RECORDS = "records, tokens or the key"
    STRUCTURE = "groups, distances, membership or links"
    NOTHING = "nothing: the job would give wrong numbers"


@dataclass(frozen=True)
class Outcome:
    """What an attack measured.

    Attributes:
        figures: by name; those that are judged stand in `rexis.attacks.limits`.
        curve: points for a plot.
        note: what was found beside the figures, for people.
    """

    figures: Mapping[str, float]
    curve: tuple[tuple[float, float], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name, version: as they stand in reports and summaries.
        title: for people.
        knows, reads: see there.
        missing: why it does not apply to this job, or "": it is then left out of the report.
        seconds: rough upper estimate on one core; an attack that would not fit into what is left of the budget is not begun.
        run: the attack itself, with the generator for what it leaves to chance.
        axes: names of the curve's axes.
    """

    name: str
    version: int
    title: str
    knows: Knows
    reads: Reads
    missing: Callable[[Exposure], str]
    seconds: Callable[[Exposure], float]
    run: Callable[[Exposure, np.random.Generator], Outcome]
    axes: tuple[str, str] = ("", "")
