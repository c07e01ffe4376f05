"""Mock data: rows with the table's columns and types that researchers may write their code against.

They are drawn from the codebook alone, column by column, so that nothing about how columns hang together survives: levels with at least
`MINIMUM_SUBJECTS` rows at rates rounded to a twentieth, and for numbers a range between outer percentiles that have at least that
many rows at or beyond them, rounded to two significant digits. No observed minimum or maximum, no rare level, no date of the table
(specs/disclosure-and-compliance, correction 3 and rule C.2).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from rexis.agent.profile import MISSING, Column, Profile
from rexis.agent.table import Table

MINIMUM_SUBJECTS = 10
MAX_LEVELS = 50
RATE_STEP = 20
OUTER_PERCENTILE = 5


@dataclass(frozen=True)
class CodebookEntry:
    """What mock data may know of one column.

    Attributes:
        column: name and type.
        levels: common values with their rates in twentieths, at least 1; empty for numbers and for columns without common values.
        bounds: range of a numeric column; None if there are too few rows.
    """

    column: Column
    levels: tuple[tuple[str, int], ...]
    bounds: tuple[Decimal, Decimal] | None


def codebook(table: Table, profile: Profile) -> tuple[CodebookEntry, ...]:
    """The codebook of a table, one entry a column."""
    return tuple(_entry(column, table.column(column.name)) for column in profile.columns)


def mock_rows(entries: Sequence[CodebookEntry], rows: int, generator: Random) -> list[list[str]]:
    """`rows` mock rows; the generator decides them, so that a seed repeats them."""
    return [[_mock_cell(entry, generator) for entry in entries] for _ in range(rows)]


def _entry(column: Column, cells: Sequence[str]) -> CodebookEntry:
    values = [cell for cell in cells if cell.strip().lower() not in MISSING]
    counts = Counter(values)
    numeric = column.type in ("integer", "decimal")
    if column.type in ("boolean", "text", "integer") and len(counts) <= (MAX_LEVELS if not numeric else RATE_STEP // 2):
        common = sorted((value, count) for value, count in counts.items() if count >= MINIMUM_SUBJECTS)
        return CodebookEntry(column, tuple((value, max(1, round(RATE_STEP * count / len(values)))) for value, count in common), None)
    return CodebookEntry(column, (), _bounds(values) if numeric else None)


def _bounds(values: Sequence[str]) -> tuple[Decimal, Decimal] | None:
    ordered = sorted(Decimal(value.strip()) for value in values)
    beyond = max(MINIMUM_SUBJECTS, len(ordered) * OUTER_PERCENTILE // 100)
    if 2 * beyond >= len(ordered):
        return None
    return _two_digits(ordered[beyond]), _two_digits(ordered[-1 - beyond])


def _two_digits(value: Decimal) -> Decimal:
    return value.quantize(Decimal(1).scaleb(value.adjusted() - 1)) if value else value


def _mock_cell(entry: CodebookEntry, generator: Random) -> str:
    if entry.levels:
        values, weights = zip(*entry.levels, strict=True)
        return str(generator.choices(values, weights)[0])
    match entry.column.type:
        case "integer" | "decimal":
            low, high = entry.bounds or (Decimal(0), Decimal(1))
            drawn = low + (high - low) * Decimal(generator.randrange(1001)) / 1000
            return f"{drawn:.0f}" if entry.column.type == "integer" else f"{drawn:.1f}"
        case "date":
            return f"2000-{generator.randrange(1, 13):02d}-{generator.randrange(1, 29):02d}"
        case "boolean":
            return generator.choice(("true", "false"))
        case "text":
            return "text"
        case "empty":
            return ""
