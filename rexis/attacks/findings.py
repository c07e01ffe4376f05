"""What attacks found, and what follows: the parts of a privacy report, each with its document."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Self

from rexis.errors import MalformedMessageError
from rexis.protocol.document_members import members_of
from rexis.protocol.report_summary import AttackVerdict, Verdict

MAX_FIGURES = 64
MAX_POINTS = 256
MAX_TEXT = 2_000


def rounded(value: float) -> float:
    """A number as the report keeps it: six significant digits, so that its text and it are the same.

    Raises:
        ValueError: NaN or infinity.
    """
    if not math.isfinite(value):
        raise ValueError(f"expected a finite figure, got {value}")
    return float(f"{value:.6g}") + 0.0


@dataclass(frozen=True)
class Finding:
    """What one attack came to on the owner's own data and model.

    Attributes:
        attack, version: which one.
        verdict: by `rexis.attacks.limits`.
        figures: what was measured, by name; empty if it did not run.
        curve: points (x, y) for a plot; the attack says what they are.
        seconds: that it took.
        note: why it did not run, or what it found beside its figures.
    """

    attack: str
    version: int
    verdict: Verdict
    figures: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    seconds: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", MappingProxyType({name: rounded(value) for name, value in self.figures.items()}))
        object.__setattr__(self, "curve", tuple((rounded(x), rounded(y)) for x, y in self.curve))
        object.__setattr__(self, "seconds", rounded(round(self.seconds, 3)))

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what `document` wrote.

        Raises:
            MalformedMessageError: other members, or one out of bounds.
        """
        members = members_of("finding", value, "attack version verdict figures curve seconds note")
        named = AttackVerdict.parse({"name": members["attack"], "version": members["version"], "verdict": members["verdict"]})
        curve = _list("curve", members["curve"], MAX_POINTS)
        points = [_list("point", point, 2) for point in curve]
        if any(len(point) != 2 for point in points):
            raise MalformedMessageError("curve: expected points of two numbers")
        return cls(
            named.name,
            named.version,
            named.verdict,
            parse_figures(members["figures"]),
            tuple((parse_number("curve", x), parse_number("curve", y)) for x, y in points),
            parse_number("seconds", members["seconds"]),
            text("note", members["note"], least=0),
        )

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "attack": self.attack,
            "version": self.version,
            "verdict": self.verdict.value,
            "figures": figures_document(self.figures),
            "curve": [[number_text(x), number_text(y)] for x, y in self.curve],
            "seconds": number_text(self.seconds),
            "note": self.note,
        }


@dataclass(frozen=True)
class Advice:
    """One thing to do about what was found.

    Attributes:
        kind: noise, records, key, scheme or data.
        text: what to do, with the figures that it follows from.
    """

    kind: str
    text: str

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what `document` wrote."""
        members = members_of("advice", value, "kind text")
        return cls(text("kind", members["kind"]), text("text", members["text"]))

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"kind": self.kind, "text": self.text}


@dataclass(frozen=True)
class NoiseLevel:
    """What Gaussian noise of one strength before the key would change.

    Attributes:
        sigma: its standard deviation, in units of the rows.
        figures: of the attacks that were run again, by name, and the price.
    """

    sigma: float
    figures: Mapping[str, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", rounded(self.sigma))
        object.__setattr__(self, "figures", MappingProxyType({name: rounded(value) for name, value in self.figures.items()}))

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what `document` wrote."""
        members = members_of("noise level", value, "sigma figures")
        return cls(parse_number("sigma", members["sigma"]), parse_figures(members["figures"]))

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"sigma": number_text(self.sigma), "figures": figures_document(self.figures)}


def number_text(value: float) -> str:
    """A rounded number as canonical JSON holds it: a decimal string."""
    return f"{value:.6g}"


def parse_number(name: str, value: Any) -> float:
    """A decimal string that `number_text` wrote.

    Raises:
        MalformedMessageError: another form, NaN or infinity. So do all functions here.
    """
    try:
        number = Decimal(value) if isinstance(value, str) and len(value) <= 24 else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number_text(float(number)) != value:
        raise MalformedMessageError(f"{name}: expected a decimal string of six digits, got {str(value)[:40]!r}")
    return float(number)


def figures_document(figures: Mapping[str, float]) -> dict[str, str]:
    """Figures as decimal strings."""
    return {name: number_text(value) for name, value in figures.items()}


def parse_figures(value: Any) -> dict[str, float]:
    """Figures by name."""
    if not isinstance(value, Mapping) or len(value) > MAX_FIGURES:
        raise MalformedMessageError(f"figures: expected an object of at most {MAX_FIGURES} members")
    return {_name(name): parse_number(f"figure {name}", number) for name, number in value.items()}


def text(name: str, value: Any, *, least: int = 1) -> str:
    """Text of bounded length."""
    if not isinstance(value, str) or not least <= len(value) <= MAX_TEXT:
        raise MalformedMessageError(f"{name}: expected text of {least} to {MAX_TEXT} characters")
    return value


def _name(value: Any) -> str:
    AttackVerdict.parse({"name": value, "version": 1, "verdict": "pass"})
    return str(value)


def _list(name: str, value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise MalformedMessageError(f"{name}: expected a list of at most {most}")
    return value
