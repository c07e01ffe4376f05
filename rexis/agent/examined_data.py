"""The owner's data as `rexis ee check` attacks them: inputs as one tensor, and classes."""

from pathlib import Path

import torch
from torch import Tensor

from rexis.agent.inputs import Tokens, read_array, read_inputs
from rexis.agent.table import read_table
from rexis.errors import MalformedMessageError
from rexis.models.spec import ModelSpec


def read_data(path: Path, spec: ModelSpec) -> Tensor:
    """Rows f64 [n, d], embeddings f64 [n, length, d], or token ids i64 [n, length] with -1 for padding.

    Raises:
        MalformedMessageError, EncodingError: what `read_inputs` refuses.
    """
    found = read_inputs(path, spec)
    return found.marked if isinstance(found, Tokens) else found


def read_classes(path: Path) -> Tensor:
    """Classes, i64 [n]: `.npy` of whole numbers, or a CSV or Parquet file with one column.

    Whole numbers are taken as they are; other texts are numbered in the order of their names.

    Raises:
        MalformedMessageError: another form.
    """
    if path.suffix == ".npy":
        array = read_array(path)
        if array.ndim != 1 or array.dtype.kind != "i":
            raise MalformedMessageError(f"{path.name}: expected whole numbers [n], got {array.dtype} of shape {list(array.shape)}")
        return torch.from_numpy(array)
    if path.suffix == ".parquet":
        from rexis.agent.parquet import read_texts

        cells = read_texts(path)
    else:
        table = read_table(path)
        if len(table.columns) != 1:
            raise MalformedMessageError(f"{path.name}: expected one column of classes, got {len(table.columns)}")
        cells = [row[0] for row in table.rows]
    if all(cell.isascii() and cell.isdecimal() and len(cell) < 10 for cell in cells):
        return torch.tensor([int(cell) for cell in cells], dtype=torch.int64)
    names = {name: number for number, name in enumerate(sorted(set(cells)))}
    return torch.tensor([names[cell] for cell in cells], dtype=torch.int64)
