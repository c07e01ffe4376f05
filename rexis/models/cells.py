"""Names and numbers in feature specs and tables that come from others: each function reads them, or says what it expected. Torch-free."""

import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rexis.encoding import require_text
from rexis.errors import EncodingError, MalformedMessageError

MAX_LEVELS = 256
MAX_TEXT = 200
MAX_CELL = 100_000


def name(what: str, value: Any) -> str:
    """The name of a column or of a level.

    Raises:
        MalformedMessageError: not a text of 1 to `MAX_TEXT` characters. So do all functions here.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise MalformedMessageError(f"features: {what}: expected a text of 1 to {MAX_TEXT} characters")
    try:
        require_text(what, value)
    except EncodingError as error:
        raise MalformedMessageError(f"features: {error}") from error
    return value


def levels(value: Any, *, least: int = 1) -> tuple[str, ...]:
    """At least `least` different levels, in their order."""
    if isinstance(value, list) and least <= len(value) <= MAX_LEVELS:
        texts = tuple(name("level", level) for level in value)
        if len(set(texts)) == len(texts):
            return texts
    raise MalformedMessageError(f"features: expected {least} to {MAX_LEVELS} different levels")


def bound(value: Any) -> Decimal:
    """The decimal that a label lies above."""
    try:
        number = Decimal(value) if isinstance(value, str) and len(value) <= MAX_TEXT else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or not math.isfinite(float(number)):
        raise MalformedMessageError("features: above: expected a decimal number as text")
    return number


def numbers(column: str, cells: Sequence[str]) -> NDArray[np.float64]:
    """Cells as finite numbers, f64 [n]; the message names the column and not the cell, which is a patient's."""
    try:
        found = np.array([float(cell) for cell in cells])
    except ValueError:
        found = np.array([math.nan])
    if not np.isfinite(found).all():
        raise MalformedMessageError(f"column {column}: expected a finite number in every row; leave such rows or this column out")
    return found


def check_texts(column: str, cells: Sequence[str]) -> None:
    """Return if cells are texts that a tokenizer gets through in time; the message names the column and not the cell."""
    if any(len(cell) > MAX_CELL for cell in cells):
        raise MalformedMessageError(f"column {column}: expected texts of at most {MAX_CELL} characters in every row")
