"""How rows of a table become inputs and labels: declared, never code, so that every site prepares its rows alike. Torch-free.

    {"version": 1,
     "inputs": [{"column": "age", "kind": "number"}, {"column": "cp", "kind": "levels", "levels": ["asymptomatic", "non-anginal"]}],
     "target": {"column": "num", "above": "0"}}

A number is taken as it is; a column of levels becomes one 0/1 feature for each level that is listed, so a level left out is the baseline.
A column of texts, {"column": "report", "kind": "text", "length": 128}, is an only input; the tokenizer cuts it after so many tokens.
`rexis.models.targets` has the forms of the target. Decimals are strings, as everywhere that is hashed. A member `patient` may name the
column that says whose record a row is; without it each row is a patient of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rexis.encoding import canonical_json, domain_tag, sha256
from rexis.errors import MalformedMessageError
from rexis.models.cells import check_texts, levels, name, numbers
from rexis.models.targets import Labels, Target, parse_target

VERSION = 1
MAX_INPUTS = 4096
MAX_TOKENS = 4096


@dataclass(frozen=True)
class Input:
    """One column that becomes features.

    Attributes:
        column: name in the table.
        levels: None for a number or a text; else the values that have a 0/1 feature each, in order.
        length: most tokens of a text; None for a number or levels.
    """

    column: str
    levels: tuple[str, ...] | None = None
    length: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its features; none of a text."""
        if self.length is not None:
            return ()
        return (self.column,) if self.levels is None else tuple(f"{self.column}={level}" for level in self.levels)

    def document(self) -> dict[str, Any]:
        """As it stands in a feature spec."""
        if self.length is not None:
            return {"column": self.column, "kind": "text", "length": self.length}
        if self.levels is None:
            return {"column": self.column, "kind": "number"}
        return {"column": self.column, "kind": "levels", "levels": list(self.levels)}


@dataclass(frozen=True, eq=False)
class Features:
    """Prepared rows.

    Attributes:
        inputs: f64 [n, d]; [n, 0] of texts that were not encoded yet.
        labels: i64 [n] of classes from 0; f64 [n, 2] of times and events.
        patients: i64 [n] from 0 without gaps; None if each row is one.
        texts: n of them; None for rows of numbers.
        tokens: i64 [n, s], ids of the texts' tokens and -1 behind a text's end; None where the model takes `inputs`.
    """

    inputs: NDArray[np.float64]
    labels: Labels
    patients: NDArray[np.int64] | None = None
    texts: tuple[str, ...] | None = None
    tokens: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class FeatureSpec:
    """Which columns are the inputs of a model, and what it predicts.

    Attributes:
        inputs: in the order of the features.
        target: what is predicted; its columns are not among the inputs.
        patient: column that says whose record a row is; None if each row is a patient.
    """

    inputs: tuple[Input, ...]
    target: Target
    patient: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the d features."""
        return tuple(name for entry in self.inputs for name in entry.names)

    @property
    def text(self) -> Input | None:
        """The column of texts, None for rows of numbers."""
        return self.inputs[0] if self.inputs[0].length is not None else None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        return (*(entry.column for entry in self.inputs), *self.target.columns, *(() if self.patient is None else (self.patient,)))

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
        inputs = document["inputs"]
        if not isinstance(inputs, list) or not 0 < len(inputs) <= MAX_INPUTS:
            raise MalformedMessageError(f"features: expected a list of 1 to {MAX_INPUTS} inputs")
        parsed = tuple(_input(entry) for entry in inputs)
        spec = cls(parsed, parse_target(document["target"]), name("patient", document["patient"]) if "patient" in document else None)
        if len(parsed) > 1 and any(entry.length is not None for entry in parsed):
            raise MalformedMessageError("features: expected a column of texts as the only input")
        if len(set(spec.columns)) < len(spec.columns):
            raise MalformedMessageError("features: expected each column once, with target and patient not among the inputs")
        if len(spec.names) > MAX_INPUTS:
            raise MalformedMessageError(f"features: expected at most {MAX_INPUTS} features, got {len(spec.names)}")
        return spec

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        inputs = [entry.document() for entry in self.inputs]
        patient = {} if self.patient is None else {"patient": self.patient}
        return {"version": VERSION, "inputs": inputs, "target": self.target.document(), **patient}

    def digest(self) -> bytes:
        """SHA-256 over `"rexis/features/1\\0"` and the canonical JSON of the document, 32 bytes."""
        return sha256(domain_tag("features", VERSION) + b"\0" + canonical_json(self.document()))

    def encode(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Features:
        """Prepare rows of text cells.

        Args:
            columns: names of the cells of each row.
            rows: n rows.

        Raises:
            MalformedMessageError: a column is missing, a cell that should be a number is none, or the target has no such label. The message
                names the column and not the cell, which is a patient's.
        """
        missing = sorted(set(self.columns) - set(columns))
        if missing:
            raise MalformedMessageError(f"the table lacks the columns {', '.join(missing[:8])} that the features are made from")
        place = {column: index for index, column in enumerate(columns)}

        def cells(column: str) -> list[str]:
            return [row[place[column]] for row in rows]

        inputs = np.empty((len(rows), len(self.names)))
        at = 0
        for entry in self.inputs:
            found = cells(entry.column)
            if entry.length is not None:
                check_texts(entry.column, found)
            elif entry.levels is None:
                inputs[:, at] = numbers(entry.column, found)
            else:
                for offset, level in enumerate(entry.levels):
                    inputs[:, at + offset] = [cell == level for cell in found]
            at += len(entry.names)
        patients = None
        if self.patient is not None:
            patients = np.unique(cells(self.patient), return_inverse=True)[1].astype(np.int64)
        texts = None if self.text is None else tuple(cells(self.text.column))
        return Features(inputs, self.target.labels(cells), patients, texts)


def _input(value: Any) -> Input:
    if isinstance(value, Mapping) and set(value) == {"column", "kind"} and value["kind"] == "number":
        return Input(name("input", value["column"]))
    if isinstance(value, Mapping) and set(value) == {"column", "kind", "levels"} and value["kind"] == "levels":
        return Input(name("input", value["column"]), levels(value["levels"]))
    if isinstance(value, Mapping) and set(value) == {"column", "kind", "length"} and value["kind"] == "text":
        if type(value["length"]) is not int or not 3 <= value["length"] <= MAX_TOKENS:
            raise MalformedMessageError(f"features: length: expected 3 to {MAX_TOKENS} tokens of a text")
        return Input(name("input", value["column"]), length=value["length"])
    raise MalformedMessageError(
        "features: expected inputs with column and kind: number, levels with a list of them, or text with its length in tokens"
    )
