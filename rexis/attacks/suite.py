"""The attacks of a privacy report: what each attacker knows, what he would read, when it applies, what it costs, and how it runs.

An attack gets the generator for what it leaves to chance, so that a report can be repeated from its seed. A new version of an attack has a
new number: a summary that names the old one says less.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from rexis.attacks import exactness, record_budget
from rexis.attacks.exposure import Exposure

# Of the suite as a whole: goes up when an attack is added or changed.
SUITE_VERSION = 1


class Knows(Enum):
    """What the attacker has besides the upload."""

    UPLOAD = "nothing: the upload alone"
    PUBLIC = "what is public: base models, vocabularies, texts of the same kind"
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
        figures: by name, of each of which less is better.
        curve: points for a plot.
    """

    figures: Mapping[str, float]
    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name, version: as they stand in reports and summaries.
        title: for people.
        knows, reads: see there.
        missing: what it lacks on this job ("does not apply", and is left out), or "".
        seconds: rough upper estimate on one core; an attack that would not fit into what is left of the budget is not begun.
        run: the attack itself.
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


def _needs_rows(exposure: Exposure) -> str:
    return "" if exposure.rows is not None else "token ids, no rows"


def _record_budget(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    assert exposure.rows is not None
    return Outcome(record_budget.figures(exposure.rows, exposure.records, exposure.known))


def _known_pairs(exposure: Exposure, generator: np.random.Generator) -> Outcome:
    assert exposure.rows is not None
    assert exposure.keyed_rows is not None
    curve = record_budget.known_pair_curve(exposure.rows, exposure.keyed_rows, exposure.known, generator)
    return Outcome(record_budget.judged(curve, exposure.rows, exposure.known), tuple(curve.items()))


def _exactness(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    return Outcome(exactness.figures(exposure.model, exposure.keyed, exposure.key, exposure.sample()))


# From the cheapest to the dearest: what the budget does not reach is what costs most.
SUITE: tuple[Attack, ...] = (
    Attack(
        "record_budget",
        1,
        "Records that one key carries",
        Knows.PAIRS,
        Reads.RECORDS,
        missing=_needs_rows,
        seconds=lambda exposure: 1e-9 * exposure.width**3,
        run=_record_budget,
    ),
    Attack(
        "exactness",
        1,
        "The keyed model answers what the plain one does",
        Knows.UPLOAD,
        Reads.NOTHING,
        missing=lambda _exposure: "",
        seconds=lambda _exposure: 0.0,
        run=_exactness,
    ),
    Attack(
        "known_pairs",
        1,
        "Known pairs give the key away",
        Knows.PAIRS,
        Reads.RECORDS,
        missing=_needs_rows,
        seconds=lambda exposure: 2e-8 * exposure.width**3,
        run=_known_pairs,
        axes=("known pairs", "R² of other records"),
    ),
)

BY_NAME: Mapping[str, Attack] = {attack.name: attack for attack in SUITE}
