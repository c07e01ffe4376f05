"""Plots as inline SVG: no library, no script, colours from the page's style sheet, so that they follow light, dark and print.

Places along the width are percentages and places along the height are pixels: text keeps its size on a phone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from examples.heart.experimenter import Score

LEFT_MARGIN, RIGHT_MARGIN = 2.0, 2.0  # percent
ROW_HEIGHT = 44  # pixels: a label, and the interval below it


@dataclass(frozen=True)
class Series:
    """A line: one value a round, and the rounds (from 1) that lost a participant."""

    name: str
    values: tuple[float, ...]
    marked: frozenset[int] = frozenset()


def dot_plot(scores: Sequence[Score], *, emphasised: str, ticks: Sequence[float]) -> str:
    """AUC with its interval, one row a model."""
    low, high = ticks[0], ticks[-1]

    def x(value: float) -> str:
        share = (min(max(value, low), high) - low) / (high - low)
        return f"{LEFT_MARGIN + share * (100 - LEFT_MARGIN - RIGHT_MARGIN):.2f}%"

    height = ROW_HEIGHT * len(scores) + 24
    parts = [f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="0" y2="{height - 22}"/>' for tick in ticks]
    parts += [f'<text class="tick" x="{x(tick)}" y="{height - 5}" text-anchor="middle">{tick:.2f}</text>' for tick in ticks]
    for row, score in enumerate(scores):
        label_y, y = ROW_HEIGHT * row + 16, ROW_HEIGHT * row + 30
        kind = "strong" if score.name == emphasised else "plain"
        parts.append(f'<text class="label {kind}" x="0" y="{label_y}">{escape(score.name)}</text>')
        parts.append(f'<line class="interval {kind}" x1="{x(score.low)}" x2="{x(score.high)}" y1="{y}" y2="{y}"/>')
        title = f"{score.name}: AUC {score.auc:.3f}, 95 % interval {score.low:.3f} to {score.high:.3f}"
        parts.append(f'<circle class="dot {kind}" cx="{x(score.auc)}" cy="{y}" r="6"><title>{escape(title)}</title></circle>')
        parts.append(f'<text class="value {kind}" x="100%" y="{label_y}" text-anchor="end">{score.auc:.3f}</text>')
    return _svg(height, "AUC of each model with its 95 % interval", parts)


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


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f'<svg role="img" aria-label="{escape(title, quote=True)}" width="100%" height="{height}">\n{body}\n</svg>'
