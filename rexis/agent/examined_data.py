"""The owner's data as `rexis ee check` reads them: rows, token ids, embeddings and classes, from files on the premises."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rexis.agent.model_files import read_rows
from rexis.agent.table import MAX_ROWS, MAX_TABLE_BYTES, read_table
from rexis.errors import MalformedMessageError
from rexis.models.spec import ModelSpec

READ = (".csv", ".npy", ".safetensors")


def read_data(path: Path, spec: ModelSpec) -> Tensor:
    """Rows f64 [n, d], embeddings f64 [n, length, d], or token ids i64 [n, length], as the file has them.

    Args:
        path: `.csv` or `.safetensors` as for `rexis ee encrypt --inputs`, or `.npy` of floats or whole numbers.

    Raises:
        MalformedMessageError: another form, or a number that is not finite.
    """
    if path.suffix == ".npy":
        array = _array(path)
        if array.ndim not in (2, 3) or len(array) > MAX_ROWS:
            raise MalformedMessageError(f"{path.name}: expected rows [n, d], embeddings [n, length, d] or token ids [n, length]")
        return torch.from_numpy(array)
    if path.suffix not in READ:
        hint = "; no reader of Parquet is installed: export it as CSV" if path.suffix == ".parquet" else ""
        raise MalformedMessageError(f"{path.name}: expected one of {', '.join(READ)}{hint}")
    return read_rows(path, spec)


def read_classes(path: Path) -> Tensor:
    """Classes, i64 [n]: `.npy` of whole numbers, or a CSV file with a header line and one column.

    Classes of a CSV file may be any text: they are numbered in the order of their names.

    Raises:
        MalformedMessageError: another form.
    """
    if path.suffix == ".npy":
        array = _array(path)
        if array.ndim != 1 or array.dtype.kind != "i":
            raise MalformedMessageError(f"{path.name}: expected whole numbers [n], got {array.dtype} of shape {list(array.shape)}")
        return torch.from_numpy(array)
    table = read_table(path)
    if len(table.columns) != 1:
        raise MalformedMessageError(f"{path.name}: expected one column of classes, got {len(table.columns)}")
    cells = [row[0] for row in table.rows]
    names = {name: number for number, name in enumerate(sorted(set(cells)))}
    return torch.tensor([names[cell] for cell in cells], dtype=torch.int64)


def _array(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64 | np.int64]]:
    with path.open("rb") as file:
        content = file.read(MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise MalformedMessageError(f"{path.name}: expected at most {MAX_TABLE_BYTES} bytes")
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise MalformedMessageError(f"{path.name}: expected an array in NumPy's format, without objects") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.size == 0:
        raise MalformedMessageError(f"{path.name}: expected an array of numbers")
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise MalformedMessageError(f"{path.name}: expected finite numbers only")
        return array
    return array.astype(np.int64)
