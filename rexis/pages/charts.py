"""Plots as inline SVG: no library, no script, colours from the page's style sheet, so that they follow light, dark and print.

Places along the width are percentages and places along the height are pixels: text keeps its size on a phone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

STYLE = Path(__file__).with_name("style.css")
LEFT_MARGIN, RIGHT_MARGIN = 2.0, 2.0  # percent
# Of lines in the style sheet.
COLOURS = 4
ROW_HEIGHT = 44  # pixels: a label, and the interval below it


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """A line: one value a round, and the rounds (from 1) that lost a participant."""

    name: str
    values: tuple[float, ...]
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Curve:
    """A line through points (x, y), in ascending order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Gauge:
    """A figure of which less is better, between the thresholds of its limit.

    Attributes:
        name: what it is.
        value: what was found.
        warn, fail: from where on it is what; `fail` is None if it never is.
        kind: class of its verdict, for the colour.
    """

    name: str
    value: float
    warn: float
    fail: float | None
    kind: str


def dot_plot(estimates: Sequence[Estimate], *, unit: str, emphasised: str, ticks: Sequence[float]) -> str:
    """Values with their intervals, one row each."""
    low, high = ticks[0], ticks[-1]

    def x(value: float) -> str:
        share = (min(max(value, low), high) - low) / (high - low)
        return f"{LEFT_MARGIN + share * (100 - LEFT_MARGIN - RIGHT_MARGIN):.2f}%"

    height = ROW_HEIGHT * len(estimates) + 24
    parts = [f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="0" y2="{height - 22}"/>' for tick in ticks]
    parts += [f'<text class="tick" x="{x(tick)}" y="{height - 5}" text-anchor="middle">{tick:.2f}</text>' for tick in ticks]
    for row, score in enumerate(estimates):
        label_y, y = ROW_HEIGHT * row + 16, ROW_HEIGHT * row + 30
        kind = "strong" if score.name == emphasised else "plain"
        parts.append(f'<text class="label {kind}" x="0" y="{label_y}">{escape(score.name)}</text>')
        parts.append(f'<line class="interval {kind}" x1="{x(score.low)}" x2="{x(score.high)}" y1="{y}" y2="{y}"/>')
        title = f"{score.name}: {unit} {score.value:.3f}, 95 % interval {score.low:.3f} to {score.high:.3f}"
        parts.append(f'<circle class="dot {kind}" cx="{x(score.value)}" cy="{y}" r="6"><title>{escape(title)}</title></circle>')
        parts.append(f'<text class="value {kind}" x="100%" y="{label_y}" text-anchor="end">{score.value:.3f}</text>')
    return _svg(height, f"{unit} with its 95 % interval", parts)


def line_chart(series: Sequence[Series], *, unit: str) -> str:
    """One value a round for each series; a ring marks a round that lost a participant."""
    values = [value for line in series for value in line.values]
    rounds = max(len(line.values) for line in series)
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or 0.01
    low, high = low - margin, high + margin
    height, top, bottom = 240, 12, 34

    def x(number: int) -> str:
        return f"{8 + (number - 1) / max(rounds - 1, 1) * 89:.2f}%"

    def y(value: float) -> float:
        return round(top + (high - value) / (high - low) * (height - top - bottom), 1)

    parts = []
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(f'<line class="grid" x1="8%" x2="97%" y1="{y(value)}" y2="{y(value)}"/>')
        parts.append(f'<text class="tick" x="7%" y="{y(value) + 4}" text-anchor="end">{value:.2f}</text>')
    parts += [f'<text class="tick" x="{x(n)}" y="{height - 14}" text-anchor="middle">{n}</text>' for n in range(1, rounds + 1)]
    parts.append(f'<text class="tick" x="52%" y="{height - 1}" text-anchor="middle">round</text>')
    for place, line in enumerate(series):
        points = [(x(number), y(value)) for number, value in enumerate(line.values, start=1)]
        for (x1, y1), (x2, y2) in pairwise(points):
            parts.append(f'<line class="series s{place}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
        for number, ((cx, cy), value) in enumerate(zip(points, line.values, strict=True), start=1):
            lost = ", one hospital dropped out" if number in line.marked else ""
            title = f"<title>{escape(line.name)}, round {number}: {unit} {value:.4f}{lost}</title>"
            if lost:
                parts.append(f'<circle class="ring s{place}" cx="{cx}" cy="{cy}" r="9"/>')
            parts.append(f'<circle class="point s{place}" cx="{cx}" cy="{cy}" r="4">{title}</circle>')
    return _svg(height, f"{unit} per round", parts)


def bars(seconds: Mapping[str, float]) -> str:
    """How long each step took, one row a step."""
    longest = max(seconds.values(), default=1.0) or 1.0
    parts = []
    for row, (name, value) in enumerate(seconds.items()):
        y = 40 * row
        width = max(value / longest * 86, 0.3)
        parts.append(f'<text class="label plain" x="0" y="{y + 15}">{escape(name)}</text>')
        parts.append(f'<rect class="bar" x="0" y="{y + 21}" width="{width:.2f}%" height="8" rx="4"/>')
        parts.append(f'<text class="value plain" x="100%" y="{y + 30}" text-anchor="end">{value:.1f} s</text>')
    return _svg(40 * len(seconds), "Seconds per step", parts)


def curves(lines: Sequence[Curve], *, x_name: str, y_name: str, shares: bool = True) -> str:
    """Lines over a common axis; `shares` fixes the height to 0 … 1, and what lies outside is drawn on the edge."""
    places = [x for line in lines for x, _ in line.points]
    values = [y for line in lines for _, y in line.points]
    left, right = min(places), max(places)
    low, high = (0.0, 1.0) if shares else (min(0.0, *values), max(values))
    width, rise = (right - left) or 1.0, (high - low) or 1.0
    height, top, bottom = 240, 12, 40

    def x(place: float) -> str:
        return f"{9 + (place - left) / width * 88:.2f}%"

    def y(value: float) -> float:
        return round(top + (high - min(max(value, low), high)) / rise * (height - top - bottom), 1)

    parts = []
    for step in range(5):
        value = low + rise * step / 4
        parts.append(f'<line class="grid" x1="9%" x2="97%" y1="{y(value)}" y2="{y(value)}"/>')
        parts.append(f'<text class="tick" x="8%" y="{y(value) + 4}" text-anchor="end">{value:.2f}</text>')
        place = left + width * step / 4
        parts.append(f'<text class="tick" x="{x(place)}" y="{height - 20}" text-anchor="middle">{place:.3g}</text>')
    parts.append(f'<text class="tick" x="53%" y="{height - 3}" text-anchor="middle">{escape(x_name)}</text>')
    for number, line in enumerate(lines):
        for (x1, y1), (x2, y2) in pairwise(line.points):
            parts.append(f'<line class="series s{number}" x1="{x(x1)}" y1="{y(y1)}" x2="{x(x2)}" y2="{y(y2)}"/>')
        for place, value in line.points:
            title = f"<title>{escape(line.name)}: {escape(x_name)} {place:.4g}, {escape(y_name)} {value:.4g}</title>"
            parts.append(f'<circle class="point s{number}" cx="{x(place)}" cy="{y(value)}" r="4">{title}</circle>')
    return _svg(height, f"{y_name} by {x_name}", parts)


def standalone(chart: str, names: Sequence[str]) -> str:
    """A chart of at most `COLOURS` lines as a file of its own: with the pages' style sheet in it, and the lines' names."""
    legend = []
    for number, name in enumerate(names):
        y = 24 + 20 * number
        legend.append(f'<circle class="point s{number}" cx="72%" cy="{y}" r="5"/>')
        legend.append(f'<text class="label" x="74%" y="{y + 5}">{escape(name)}</text>')
    opening, rest = chart.split("\n", 1)
    body, closing = rest.rsplit("\n", 1)
    style = f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
    return "\n".join([opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1), style, body, *legend, closing, ""])


def gauges(rows: Sequence[Gauge]) -> str:
    """Each figure on a track of three equal parts, pass, warn and fail, so that figures of any unit stand below each other."""
    parts = []
    for row, gauge in enumerate(rows):
        label_y, y = ROW_HEIGHT * row + 16, ROW_HEIGHT * row + 24
        parts.append(f'<text class="label plain" x="0" y="{label_y}">{escape(gauge.name)}</text>')
        parts.append(f'<text class="value plain" x="100%" y="{label_y}" text-anchor="end">{gauge.value:.3g}</text>')
        zones = ("pass", "warn", "fail") if gauge.fail is not None else ("pass", "warn", "warn")
        for part, zone in enumerate(zones):
            parts.append(f'<rect class="zone {zone}" x="{part * 100 / 3:.2f}%" y="{y}" width="33.33%" height="8"/>')
        title = f"{gauge.name}: {gauge.value:.4g}, warns from {gauge.warn:g}" + (
            "" if gauge.fail is None else f", fails from {gauge.fail:g}"
        )
        place = f"{min(max(_third(gauge), 1), 99):.2f}%"
        parts.append(f'<circle class="dot {escape(gauge.kind)}" cx="{place}" cy="{y + 4}" r="7"><title>{escape(title)}</title></circle>')
    return _svg(ROW_HEIGHT * len(rows), "Figures between their limits", parts)


def _third(gauge: Gauge) -> float:
    """Where a value stands on its track, in percent: linear within each part."""
    if gauge.value < gauge.warn:
        return max(gauge.value, 0.0) / gauge.warn * 100 / 3
    end = gauge.fail if gauge.fail is not None else 2 * gauge.warn
    if gauge.value < end:
        return (1 + (gauge.value - gauge.warn) / (end - gauge.warn)) * 100 / 3
    return (2 + min((gauge.value - end) / end, 1.0)) * 100 / 3


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f'<svg role="img" aria-label="{escape(title, quote=True)}" width="100%" height="{height}">\n{body}\n</svg>'
