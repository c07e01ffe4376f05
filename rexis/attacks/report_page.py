"""A privacy report as one HTML page for its owner: grade, figures between their limits, curves, and what follows."""

from pathlib import Path
from typing import Any

from rexis.attacks.findings import Finding
from rexis.attacks.limits import LIMITS, Limit
from rexis.attacks.report import PrivacyReport
from rexis.attacks.suite import BY_NAME
from rexis.pages import charts
from rexis.pages.page import render
from rexis.protocol.report_summary import Verdict

TEMPLATE = Path(__file__).with_name("report.html.j2")
# What the plot of noise shows, in the order of its legend; all of them are shares.
NOISE_LINES = {
    "r2": "R² by a cohort",
    "reidentified_above_chance": "re-identified by a cohort",
    "r2_known": "R² by known pairs",
    "accuracy": "accuracy of a linear model",
}
GRADES = {
    "A": "Every attack that applies ran, and none came near its limits.",
    "B": "No attack got through; some came near.",
    "C": "No attack got through, but some that apply did not run.",
    "D": "No better than obfuscation: an attack got through, fewer ran than not, or others hold the plain weights.",
    "F": "Records, tokens or the key were read from what goes out and what anybody may hold.",
}


def html(report: PrivacyReport) -> str:
    """The page."""
    attacks = [_attack(finding) for finding in report.findings]
    return render(
        TEMPLATE,
        report.document(),
        charts=_charts(report),
        attacks=attacks,
        skipped=[(BY_NAME[name].title, reason) for name, reason in report.left_out.items() if name in BY_NAME],
        meaning=GRADES[report.grade],
        protection=report.protection,
        counts={str(verdict): sum(finding.verdict is verdict for finding in report.findings) for verdict in Verdict},
        curves=[_curve(finding) for finding in report.findings if len(finding.curve) > 1 and finding.attack in BY_NAME],
        noise_names=[name for name, _ in _noise_lines(report)],
        digest="0x" + report.digest.hex(),
    )


def _attack(finding: Finding) -> dict[str, Any]:
    attack, limits = BY_NAME.get(finding.attack), LIMITS.get(finding.attack, ())
    judged = {limit.figure: limit for limit in limits}
    return {
        "title": finding.attack if attack is None else attack.title,
        "name": finding.attack,
        "version": finding.version,
        "knows": "" if attack is None else attack.knows.value,
        "reads": "" if attack is None else attack.reads.value,
        "verdict": str(finding.verdict),
        "note": finding.note,
        "seconds": finding.seconds,
        "figures": [_figure(name, value, judged.get(name)) for name, value in finding.figures.items()],
    }


def _figure(name: str, value: float, limit: Limit | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": name.replace("_", " "), "value": f"{value:.4g}", "meaning": "", "limits": "", "source": ""}
    if limit is not None:
        fail = "never fails" if limit.fail is None else f"fails from {limit.fail:g}"
        shown |= {"meaning": limit.meaning, "limits": f"warns from {limit.warn:g}, {fail}", "source": limit.source}
    return shown


def _charts(report: PrivacyReport) -> dict[str, str]:
    rows = [
        charts.Gauge(limit.meaning, finding.figures[limit.figure], limit.warn, limit.fail, str(limit.judge(finding.figures[limit.figure])))
        for finding in report.findings
        for limit in LIMITS.get(finding.attack, ())
        if limit.figure in finding.figures
    ]
    drawn = {"limits": charts.gauges(rows)}
    for finding in report.findings:
        if len(finding.curve) > 1 and (attack := BY_NAME.get(finding.attack)) is not None:
            x_name, y_name = attack.axes
            drawn[finding.attack] = charts.curves([charts.Curve(attack.title, finding.curve)], x_name=x_name, y_name=y_name)
    if report.noise_levels:
        lines = [charts.Curve(name, points) for name, points in _noise_lines(report)]
        drawn["noise"] = charts.curves(lines, x_name="standard deviation of the noise", y_name="figure")
    return drawn


def _noise_lines(report: PrivacyReport) -> list[tuple[str, tuple[tuple[float, float], ...]]]:
    found = []
    for figure, name in NOISE_LINES.items():
        points = tuple((level.sigma, level.figures[figure]) for level in report.noise_levels if figure in level.figures)
        if points:
            found.append((name, points))
    return found


def _curve(finding: Finding) -> dict[str, str]:
    return {"name": finding.attack, "title": BY_NAME[finding.attack].title}
