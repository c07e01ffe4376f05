"""Parquet on the institution's premises: numbers of a table, token ids of texts, classes.

duckdb reads it in this process, within a limit of memory, without extensions, and without a folder to swap to: what does not fit is an
error, and no row of a patient lands in a temporary file. What the file's own footer says of its size is checked before a value is read.
"""

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from rexis.agent.table import MAX_COLUMNS, MAX_ROWS, MAX_TABLE_BYTES
from rexis.errors import MalformedMessageError

# Of numbers in memory, 1 GiB of them in f64: a few bytes of a compressed file can stand for any number of equal cells.
MAX_CELLS = 1 << 27
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "4GiB",
    "threads": 1,
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_NUMBERS = (*_WHOLE, "FLOAT", "DOUBLE")


def read_numbers(path: Path, width: int) -> NDArray[np.float64]:
    """All columns of a table, f64 [n, width], in the order of the file.

    Raises:
        MalformedMessageError: no Parquet, too large, another number of columns, a column that holds no numbers, or a row without one. The
            message names the column, and not the cell, which is a patient's.
    """
    with _opened(path) as table:
        for name, kind in _columns(table):
            if kind not in _NUMBERS and not kind.startswith("DECIMAL("):
                raise MalformedMessageError(
                    f"{path.name}: column {name}: expected numbers, got {kind}; leave the column out, or turn it into numbers first"
                )
        if len(table.columns) != width:
            raise MalformedMessageError(f"{path.name}: expected {width} columns, the inputs of the model, got {len(table.columns)}")
        rows = _count(path, table, width)
        found = np.empty((rows, width))
        for place, name in enumerate(table.columns):
            numbers = _values(table, f"CAST({_quoted(name)} AS DOUBLE)")
            if np.ma.is_masked(numbers) or not np.isfinite(numbers).all():
                raise MalformedMessageError(
                    f"{path.name}: column {name}: expected a finite number in every row, got null, NaN or infinity; "
                    "fill them in, or leave such rows out"
                )
            found[:, place] = numbers
    return found


def read_lists(path: Path, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A column of lists of whole numbers: all of them one after the other, i64 [sum of lengths], and how many each row has, i64 [n].

    Raises:
        MalformedMessageError: no Parquet, too large, a column of another kind, or nulls in it.
    """
    with _opened(path) as table:
        kind = dict(_columns(table)).get(name, "no such column")
        if kind.partition("[")[0] not in _WHOLE or kind.count("[") != 1:
            raise MalformedMessageError(f"{path.name}: column {name}: expected a list of whole numbers in every row, got {kind}")
        _count(path, table, 1)
        lengths = _values(table, f"CAST(len({_quoted(name)}) AS BIGINT)")
        if np.ma.is_masked(lengths):
            raise MalformedMessageError(f"{path.name}: column {name}: expected a list in every row, got null; leave such rows out")
        if int(lengths.sum()) > MAX_CELLS:
            raise MalformedMessageError(
                f"{path.name}: column {name}: expected at most {MAX_CELLS} numbers in all, got {int(lengths.sum())}"
            )
        numbers = _values(table, f"CAST(unnest({_quoted(name)}) AS BIGINT)")
        if np.ma.is_masked(numbers) or len(numbers) != lengths.sum():
            raise MalformedMessageError(f"{path.name}: column {name}: expected whole numbers in its lists, got null")
        return np.asarray(numbers, dtype=np.int64), np.asarray(lengths, dtype=np.int64)


def read_texts(path: Path) -> list[str]:
    """The one column of a file of classes, as text.

    Raises:
        MalformedMessageError: no Parquet, too large, several columns, one of another kind, or a row without a class.
    """
    with _opened(path) as table:
        (name, kind), *others = _columns(table)
        if others or kind not in (*_WHOLE, "VARCHAR", "BOOLEAN"):
            raise MalformedMessageError(f"{path.name}: expected one column of classes, whole numbers or text, got {_kinds(table)}")
        _count(path, table, 1)
        found = _values(table, f"CAST({_quoted(name)} AS VARCHAR)")
        if np.ma.is_masked(found):
            raise MalformedMessageError(f"{path.name}: column {name}: expected a class in every row, got null; leave such rows out")
        return [str(cell) for cell in found]


def column_names(path: Path) -> tuple[str, ...]:
    """Names of the columns.

    Raises:
        MalformedMessageError: no Parquet, or too large.
    """
    with _opened(path) as table:
        return tuple(table.columns)


@contextmanager
def _opened(path: Path) -> Iterator[duckdb.DuckDBPyRelation]:
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise MalformedMessageError(f"{path.name}: expected at most {MAX_TABLE_BYTES} bytes, got {size}")
    try:
        with duckdb.connect(":memory:", config=_SETTINGS) as connection:
            # A path is a pattern to duckdb, and a folder called a=1 a column.
            table = connection.read_parquet(glob.escape(str(path.resolve())), hive_partitioning=False)
            if not 0 < len(table.columns) <= MAX_COLUMNS:
                raise MalformedMessageError(f"{path.name}: expected 1 to {MAX_COLUMNS} columns, got {len(table.columns)}")
            yield table
    except duckdb.OutOfMemoryException as error:
        raise MalformedMessageError(f"{path.name}: does not fit into {_SETTINGS['memory_limit']} of memory; use it in parts") from error
    except duckdb.Error as error:
        # Its message may quote a cell.
        raise MalformedMessageError(f"{path.name}: expected a Parquet file, got one that is damaged or is none") from error


def _columns(table: duckdb.DuckDBPyRelation) -> Sequence[tuple[str, str]]:
    return [(name, str(kind)) for name, kind in zip(table.columns, table.types, strict=True)]


def _kinds(table: duckdb.DuckDBPyRelation) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in _columns(table)[:8])


def _count(path: Path, table: duckdb.DuckDBPyRelation, width: int) -> int:
    """How many rows there are, by the footer; what is read later is held to it."""
    rows = int(table.count("*").fetchall()[0][0])
    if not 0 < rows <= MAX_ROWS or rows * width > MAX_CELLS:
        raise MalformedMessageError(f"{path.name}: expected 1 to {min(MAX_ROWS, MAX_CELLS // width)} rows of {width} columns, got {rows}")
    return rows


def _values(table: duckdb.DuckDBPyRelation, expression: str) -> NDArray[np.float64]:
    found: NDArray[np.float64] = table.project(f"{expression} AS found").fetchnumpy()["found"]
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
