"""How rows of a table become inputs and labels: declared, never code, so that every site prepares its rows alike. Torch-free.

    {"version": 1,
     "inputs": [{"column": "age", "kind": "number"}, {"column": "cp", "kind": "levels", "levels": ["asymptomatic", "non-anginal"]}],
     "target": {"column": "num", "above": "0"}}

A number is taken as it is; a column of levels becomes one 0/1 feature for each level that is listed, so a level left out is the baseline.
The label is 1 where the target column lies above the bound. Decimals are strings, as everywhere that is hashed. A member `patient` may name
the column that says whose record a row is; without it each row is a patient of its own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rexis.encoding import canonical_json, domain_tag, require_text, sha256
from rexis.errors import EncodingError, MalformedMessageError

VERSION = 1
MAX_INPUTS = 4096
MAX_LEVELS = 256
MAX_TEXT = 200


@dataclass(frozen=True)
class Input:
    """One column that becomes features.

    Attributes:
        column: name in the table.
        levels: None for a number; else the values that have a 0/1 feature each, in order.
    """

    column: str
    levels: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its features."""
        return (self.column,) if self.levels is None else tuple(f"{self.column}={level}" for level in self.levels)


@dataclass(frozen=True, eq=False)
class Features:
    """Prepared rows: `inputs` f64 [n, d], `labels` i64 [n] of 0 and 1, `patients` i64 [n] from 0 without gaps, None if each row is one."""

    inputs: NDArray[np.float64]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class FeatureSpec:
    """Which columns are the inputs of a model, and what it predicts.

    Attributes:
        inputs: in the order of the features.
        target: column of the label; not among the inputs.
        above: the label is 1 above this number.
        patient: column that says whose record a row is; None if each row is a patient.
    """

    inputs: tuple[Input, ...]
    target: str
    above: Decimal
    patient: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the d features."""
        return tuple(name for entry in self.inputs for name in entry.names)

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Read a spec that came from someone else.

        Raises:
            MalformedMessageError: unknown or missing fields, a column twice, or a value out of bounds.
        """
        if not isinstance(document, Mapping) or set(document) - {"patient"} != {"version", "inputs", "target"}:
            raise MalformedMessageError("a feature spec has exactly the fields version, inputs and target, and may have patient")
        if type(document["version"]) is not int or document["version"] != VERSION:
            raise MalformedMessageError(f"expected feature spec version {VERSION}, got {document['version']!r:.40}")
        inputs, target = document["inputs"], document["target"]
        if not isinstance(inputs, list) or not 0 < len(inputs) <= MAX_INPUTS:
            raise MalformedMessageError(f"features: expected a list of 1 to {MAX_INPUTS} inputs")
        if not isinstance(target, Mapping) or set(target) != {"column", "above"}:
            raise MalformedMessageError("features: expected a target with exactly column and above")
        parsed = tuple(_input(entry) for entry in inputs)
        patient = _text("patient", document["patient"]) if "patient" in document else None
        spec = cls(parsed, _text("target", target["column"]), _decimal(target["above"]), patient)
        columns = [*(entry.column for entry in parsed), spec.target, *([] if patient is None else [patient])]
        if len(set(columns)) < len(columns):
            raise MalformedMessageError("features: expected each column once, with target and patient not among the inputs")
        if len(spec.names) > MAX_INPUTS:
            raise MalformedMessageError(f"features: expected at most {MAX_INPUTS} features, got {len(spec.names)}")
        return spec

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        inputs = [
            {"column": entry.column, "kind": "number"}
            if entry.levels is None
            else {"column": entry.column, "kind": "levels", "levels": list(entry.levels)}
            for entry in self.inputs
        ]
        patient = {} if self.patient is None else {"patient": self.patient}
        return {"version": VERSION, "inputs": inputs, "target": {"column": self.target, "above": str(self.above)}, **patient}

    def digest(self) -> bytes:
        """SHA-256 over `"rexis/features/1\\0"` and the canonical JSON of the document, 32 bytes."""
        return sha256(domain_tag("features", VERSION) + b"\0" + canonical_json(self.document()))

    def encode(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Features:
        """Prepare rows of text cells.

        Args:
            columns: names of the cells of each row.
            rows: n rows.

        Raises:
            MalformedMessageError: a column is missing, or a cell that should be a number is none. The message names the column and not
                the cell, which is a patient's.
        """
        named = {*(entry.column for entry in self.inputs), self.target, *([] if self.patient is None else [self.patient])}
        missing = sorted(named - set(columns))
        if missing:
            raise MalformedMessageError(f"the table lacks the columns {', '.join(missing[:8])} that the features are made from")
        place = {name: index for index, name in enumerate(columns)}
        inputs = np.empty((len(rows), len(self.names)))
        at = 0
        for entry in self.inputs:
            cells = [row[place[entry.column]] for row in rows]
            if entry.levels is None:
                inputs[:, at] = _numbers(entry.column, cells)
            else:
                for offset, level in enumerate(entry.levels):
                    inputs[:, at + offset] = [cell == level for cell in cells]
            at += len(entry.names)
        target = _numbers(self.target, [row[place[self.target]] for row in rows])
        patients = None
        if self.patient is not None:
            patients = np.unique([row[place[self.patient]] for row in rows], return_inverse=True)[1].astype(np.int64)
        return Features(inputs, (target > float(self.above)).astype(np.int64), patients)


def _input(value: Any) -> Input:
    if isinstance(value, Mapping) and set(value) == {"column", "kind"} and value["kind"] == "number":
        return Input(_text("input", value["column"]))
    if isinstance(value, Mapping) and set(value) == {"column", "kind", "levels"} and value["kind"] == "levels":
        levels = value["levels"]
        if isinstance(levels, list) and 0 < len(levels) <= MAX_LEVELS:
            texts = tuple(_text("level", level) for level in levels)
            if len(set(texts)) == len(texts):
                return Input(_text("input", value["column"]), texts)
        raise MalformedMessageError(f"features: expected 1 to {MAX_LEVELS} different levels")
    raise MalformedMessageError("features: expected inputs with column and kind, number or levels, and levels with a list of them")


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise MalformedMessageError(f"features: {what}: expected a text of 1 to {MAX_TEXT} characters")
    try:
        require_text(what, value)
    except EncodingError as error:
        raise MalformedMessageError(f"features: {error}") from error
    return value


def _decimal(value: Any) -> Decimal:
    try:
        number = Decimal(value) if isinstance(value, str) and len(value) <= MAX_TEXT else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or not math.isfinite(float(number)):
        raise MalformedMessageError("features: above: expected a decimal number as text")
    return number


def _numbers(column: str, cells: Sequence[str]) -> NDArray[np.float64]:
    try:
        numbers = np.array([float(cell) for cell in cells])
    except ValueError:
        numbers = np.array([math.nan])
    if not np.isfinite(numbers).all():
        raise MalformedMessageError(f"column {column}: expected a finite number in every row; leave such rows or this column out")
    return numbers
