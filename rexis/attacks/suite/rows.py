"""Attacks on keyed rows: feature rows, and embeddings that a client looked up."""

from typing import Final

import numpy as np

from rexis.attacks.cohort_alignment import cohort_reading
from rexis.attacks.exposure import Exposure, Floats
from rexis.attacks.geometry import geometry_reading
from rexis.attacks.independent_components import component_reading
from rexis.attacks.known_pairs import known_pair_curve
from rexis.attacks.suite.attack import Attack, Knows, Outcome, Reads
from rexis.ee import effective_rank

# Rows that the attacks work on: their costs grow with the square or the cube, their figures hardly.
COHORT_ROWS: Final = 300
GEOMETRY_ROWS: Final = 1_500
# Of d: where the key curve is looked at, beyond the points that the limits name.
SHARES: Final = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)


def _needs_rows(exposure: Exposure) -> str:
    return "" if exposure.rows is not None else "token ids go out, no rows"


def pair(exposure: Exposure) -> tuple[Floats, Floats]:
    """Plain rows and their keyed forms.

    Raises:
        ValueError: the job sends token ids.
    """
    if exposure.rows is None or exposure.keyed_rows is None:
        raise ValueError("expected rows, got token ids")
    return exposure.rows, exposure.keyed_rows


def above_chance(rate: float, chance: float) -> float:
    """A rate as it stands between chance (0) and certainty (1)."""
    return max(0.0, (rate - chance) / (1 - chance)) if chance < 1 else 0.0


def _record_budget(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    plain, _ = pair(exposure)
    rank = effective_rank(plain)
    figures = {
        "known_over_rank": exposure.known / rank,
        "known_records": exposure.known,
        "effective_rank": rank,
        "records_over_d": exposure.records / exposure.width,
    }
    return Outcome(figures)


def _known_pairs(exposure: Exposure, generator: np.random.Generator) -> Outcome:
    plain, seen = pair(exposure)
    most = len(plain) - 2
    asked = {min(exposure.known, most)} | {round(share * exposure.width) for share in SHARES}
    tried = tuple(sorted(number for number in asked if 0 < number <= most))
    found = known_pair_curve(seen, truth=plain, generator=generator, pairs=tried, noisy=exposure.noise > 0)
    figures = {name: max(0.0, value) for name, value in found.figures.items() if name.startswith("r2_")}
    figures["r2_known"] = max(0.0, found.curve[min(exposure.known, most)]) if exposure.known else 0.0
    return Outcome(figures, tuple((float(pairs), value) for pairs, value in sorted(found.curve.items())))


def _cohort_alignment(exposure: Exposure, generator: np.random.Generator) -> Outcome:
    plain, seen = (side[:COHORT_ROWS] for side in pair(exposure))
    cohort = exposure.cohort
    if cohort is None or len(cohort) < 2:
        raise ValueError("expected a cohort of at least 2 records")
    found = cohort_reading(seen, cohort[:COHORT_ROWS], truth=plain, noise=exposure.noise, generator=generator).figures
    # The better of both steps: on few records the second can lose what the first has.
    rate = max(found["covariance_reidentified"], found["reidentified"])
    figures = {
        "r2": max(0.0, found["covariance_r2"], found["r2"]),
        "reidentified": rate,
        "reidentified_above_chance": above_chance(rate, found["chance"]),
    }
    return Outcome(figures)


def _independent_components(exposure: Exposure, generator: np.random.Generator) -> Outcome:
    plain, seen = pair(exposure)
    return Outcome(component_reading(seen, truth=plain, generator=generator).figures)


def _geometry(exposure: Exposure, generator: np.random.Generator) -> Outcome:
    plain, seen = (side[:GEOMETRY_ROWS] for side in pair(exposure))
    labels = None if exposure.labels is None else exposure.labels[:GEOMETRY_ROWS]
    return Outcome(geometry_reading(seen, truth=plain, labels=labels, generator=generator).figures)


ATTACKS: tuple[Attack, ...] = (
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
        "known_pairs",
        1,
        "Known pairs give the key away",
        Knows.PAIRS,
        Reads.RECORDS,
        missing=_needs_rows,
        seconds=lambda exposure: 2e-8 * exposure.width**3 + (2 if exposure.noise else 0),
        run=_known_pairs,
        axes=("known pairs", "R² of the other records"),
    ),
    Attack(
        "cohort_alignment",
        1,
        "Alignment with a cohort of the same distribution",
        Knows.COHORT,
        Reads.RECORDS,
        missing=_needs_rows,
        seconds=lambda exposure: 3 + 1e-7 * exposure.width**3,
        run=_cohort_alignment,
    ),
    Attack(
        "geometry",
        1,
        "Distances, neighbours and clusters show",
        Knows.UPLOAD,
        Reads.STRUCTURE,
        missing=_needs_rows,
        seconds=lambda exposure: 2 + 4e-6 * exposure.width * GEOMETRY_ROWS,
        run=_geometry,
    ),
    Attack(
        "independent_components",
        1,
        "Independent component analysis",
        Knows.UPLOAD,
        Reads.RECORDS,
        missing=_needs_rows,
        # d components, 200 steps at the most.
        seconds=lambda exposure: 1 + 2e-7 * min(exposure.records, 4_000) * exposure.width**2,
        run=_independent_components,
    ),
)
