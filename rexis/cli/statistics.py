"""`rexis federation result`: a statistic's result and the figures that follow from it, computed here from counts that were compared with
the chain."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.text import Text

from rexis.cli.home import write_private
from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.encoding import to_hex
from rexis.errors import UnexpectedMessageError
from rexis.pages.charts import COLOURS, Curve, curves, standalone
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.statistics_plans import REST
from rexis.secagg.privacy import noise_deviation
from rexis.secagg.statistics import ContingencyTable, Moments, Result, SurvivalCounts
from rexis.secagg.statistics.association import odds_ratio, pearson
from rexis.secagg.statistics.chi_squared import ChiSquaredTest
from rexis.secagg.statistics.survival_curves import SurvivalCurve, log_rank
from rexis.secagg.statistics.survival_curves import curves as survival_curves

WITH_NOISE = "Noise is in every count, of a standard deviation of at most {:.1f}. Intervals and tests would not know of it: there are none."


def print_result(federation: str, config: FederationConfig, result: Result, *, plot: Path | None, as_json: bool) -> None:
    """Print a result, and draw survival curves to a file if asked for.

    Raises:
        UnexpectedMessageError: there are no curves to draw, or too many.
    """
    if plot is not None:
        if not isinstance(result, SurvivalCounts):
            raise UnexpectedMessageError("--plot draws survival curves, and this federation sums another statistic: leave it out")
        if len(result.plan.groups) > COLOURS:
            raise UnexpectedMessageError(f"--plot draws at most {COLOURS} curves, and there are {len(result.plan.groups)}: leave it out")
        write_private(plot, standalone(_drawing(result), result.plan.groups).encode())
    if as_json:
        found = figures(config, result)
        document = {"federation": federation, "digest": to_hex(result.digest), "result": result.document()}
        print_json(document if found is None else {**document, "figures": found})
        return
    if isinstance(result, Moments):
        _print_moments(config, result)
    elif isinstance(result, ContingencyTable):
        _print_table(result)
    elif isinstance(result, SurvivalCounts):
        _print_survival(result)
    if config.privacy is not None:
        console().print(WITH_NOISE.format(noise_deviation(config)), soft_wrap=True)
    console().print(f"Digest {to_hex(result.digest)}, as it stands on chain.", soft_wrap=True)
    if plot is not None:
        console().print(f"The curves are in {plot}.", soft_wrap=True)


def figures(config: FederationConfig, result: Result) -> dict[str, Any] | None:
    """What follows from counts, as JSON; None for moments, and null for a figure that there is not."""
    noise = {"noise_deviation_at_most": None if config.privacy is None else noise_deviation(config)}
    if isinstance(result, ContingencyTable):
        association = _association(result)
        odds = odds_ratio(result.named) if association is not None else None
        ratio = None if odds is None else {"value": odds.value, "low": odds.low, "high": odds.high}
        return {"chi_squared": _test(association), "odds_ratio": ratio, **noise}
    if isinstance(result, SurvivalCounts):
        drawn = [_curve_document(curve) for curve in survival_curves(result)]
        return {"curves": drawn, "log_rank": _test(log_rank(result)), **noise}
    return None


def _association(table: ContingencyTable) -> ChiSquaredTest | None:
    """Of exact tables of two columns only."""
    return pearson(table.named) if table.plan.rule.privacy is None and table.named.ndim == 2 else None


def _print_moments(config: FederationConfig, moments: Moments) -> None:
    document = moments.document()
    console().print(f"{moments.count} rows.")
    table = grid("feature", "mean", "sd")
    for name, mean, sd in zip(config.features.names, document["mean"], document["sd"], strict=True):
        table.add_row(Text(name), mean, sd)
    console().print(table)


def _print_table(found: ContingencyTable) -> None:
    columns = [dimension.column for dimension in found.plan.dimensions]
    # The last column across, each combination of the others down.
    across = found.labels(len(columns) - 1) if len(columns) > 1 else ("patients",)
    # What the founder wrote is text, also where it reads as markup.
    table = grid(*map(escape, (*(columns[:-1] or columns), *across)))
    rows = found.counts if len(columns) > 1 else found.counts[:, np.newaxis]
    for place in np.ndindex(rows.shape[:-1]):
        names = [Text(found.labels(axis)[index]) for axis, index in enumerate(place)]
        table.add_row(*names, *(str(count) for count in rows[place]))
    if len(columns) > 1:
        console().print(Text(f"{columns[-1]} across:"))
    console().print(table)
    if found.plan.rule.privacy is not None:
        return
    least = found.plan.rule.minimum_cell
    console().print(f"Cells of {' and '.join(REST)} leave out a site's patients where it has fewer than {least}.", soft_wrap=True)
    association = _association(found)
    if association is not None:
        console().print(f"Pearson's test: {_test_text(association)}")
        odds = odds_ratio(found.named)
        if odds is not None:
            console().print(f"Odds ratio {odds.value:.3f}, 95 % interval {odds.low:.3f} to {odds.high:.3f}")


def _print_survival(found: SurvivalCounts) -> None:
    for curve, after in zip(survival_curves(found), found.after, strict=True):
        median = "not reached" if curve.median is None else f"{curve.median:g}"
        console().print(Text(f"{curve.name}: median {median}, {after} followed beyond the last edge"))
        table = grid("up to", "at risk", "events", "survival", "95 % interval", "cumulative hazard")
        for place, edge in enumerate(found.plan.edges):
            interval = f"{_figure(curve.low, place)} to {_figure(curve.high, place)}" if math.isfinite(curve.low[place]) else ""
            counts = (str(curve.at_risk[place]), str(curve.events[place]))
            table.add_row(str(edge), *counts, _figure(curve.survival, place), interval, _figure(curve.hazard, place))
        console().print(table)
    console().print(f"{found.left_out} in no curve: of no named group, or without a time or a named ending.", soft_wrap=True)
    test = log_rank(found)
    if test is not None:
        console().print(f"Log-rank test: {_test_text(test)}")


def _drawing(found: SurvivalCounts) -> str:
    lines = []
    for curve in survival_curves(found):
        # A step at each edge, as far as anybody is at risk.
        points, level = [(0.0, 1.0)], 1.0
        for time, survival in zip(curve.times, curve.survival, strict=True):
            if math.isnan(survival):
                break
            points += [(float(time), level), (float(time), float(survival))]
            level = float(survival)
        lines.append(Curve(curve.name, tuple(points)))
    return curves(lines, x_name=found.plan.time, y_name="survival")


def _curve_document(curve: SurvivalCurve) -> dict[str, Any]:
    values = {name: [_number(value) for value in getattr(curve, name)] for name in ("survival", "low", "high", "hazard")}
    counts = {name: [int(value) for value in getattr(curve, name)] for name in ("at_risk", "events")}
    return {"name": curve.name, "times": curve.times.tolist(), **counts, **values, "median": curve.median}


def _test(test: ChiSquaredTest | None) -> dict[str, Any] | None:
    return None if test is None else {"statistic": test.statistic, "degrees": test.degrees, "p": test.p}


def _test_text(test: ChiSquaredTest) -> str:
    return f"chi-squared {test.statistic:.3f} with {test.degrees} degrees of freedom, p = {test.p:.4g}"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _figure(values: NDArray[np.float64], place: int) -> str:
    return f"{values[place]:.4f}" if math.isfinite(values[place]) else ""
