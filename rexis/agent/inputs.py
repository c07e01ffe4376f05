"""What goes into a model, in files on the premises: feature rows, embeddings, or the token ids that a tokenizer wrote.

One reader for every command that takes inputs, chosen by the suffix of the file: what `rexis ee check` attacks is what `rexis ee encrypt`
keys.
"""

import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rexis.agent.table import MAX_ROWS, MAX_TABLE_BYTES, read_table
from rexis.errors import MalformedMessageError
from rexis.models.bert import BertConfig
from rexis.models.llama import LlamaConfig
from rexis.models.spec import ModelSpec

READ = (".csv", ".npy", ".parquet", ".safetensors")
# Names of HuggingFace tokenizers, and of batches on the wire.
IDS, MASK, SEGMENTS = ("input_ids", "ids"), ("attention_mask", "mask"), ("token_type_ids",)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Texts as token ids.

    Attributes:
        ids: i64 [n, s].
        mask: bool [n, s], where a token stands; elsewhere is padding, whose id no model looks at.
    """

    ids: Tensor
    mask: Tensor

    @property
    def marked(self) -> Tensor:
        """The ids with -1 in the place of padding, which stays -1 under a key."""
        return torch.where(self.mask, self.ids, -1)


def read_inputs(path: Path, spec: ModelSpec) -> Tensor | Tokens:
    """What a file holds for a model: rows f64 [n, d], embeddings f64 [n, s, d], or token ids.

    Args:
        path: for rows `.csv` or `.parquet` with a column for each input, `.safetensors` with `x`, or `.npy`; for a transformer
            `.safetensors` or `.parquet` with `input_ids` and, where there is padding, `attention_mask`, or `.npy` of ids or embeddings.

    Raises:
        MalformedMessageError, EncodingError: another form, or what the model does not take. The message names the column or tensor, and
            not the value, which is a patient's.
    """
    if path.suffix not in READ:
        raise MalformedMessageError(f"{path.name}: expected a file that ends in {', '.join(READ)}, got {path.suffix or 'no ending'!r}")
    config = spec.config
    if isinstance(config, BertConfig | LlamaConfig):
        return _of_transformer(path, config)
    return read_rows(path, spec)


def read_rows(path: Path, spec: ModelSpec) -> Tensor:
    """Feature rows, f64 [n, inputs]: what `read_inputs` gives for a model of rows.

    Raises:
        MalformedMessageError, EncodingError: another form, another number of columns, or a cell that is no finite number.
    """
    width = spec.tabular.inputs
    if path.suffix == ".parquet":
        from rexis.agent.parquet import read_numbers

        return torch.from_numpy(read_numbers(path, width))
    if path.suffix in (".npy", ".safetensors"):
        x = torch.from_numpy(read_array(path)) if path.suffix == ".npy" else _tensors(path, required=("x",))["x"]
        if x.ndim != 2 or x.shape[1] != width or not 0 < len(x) <= MAX_ROWS:
            raise MalformedMessageError(f"{path.name}: expected rows [n, {width}], the inputs of the model, got shape {list(x.shape)}")
        return _finite(path, x.double())
    table = read_table(path)
    if len(table.columns) != width:
        raise MalformedMessageError(f"{path.name}: expected {width} columns, the inputs of the model, got {len(table.columns)}")
    found = np.empty((len(table.rows), width))
    for place, column in enumerate(table.columns):
        try:
            found[:, place] = [float(row[place]) for row in table.rows]
        except ValueError:
            found[:, place] = np.nan
        if not np.isfinite(found[:, place]).all():
            raise MalformedMessageError(
                f"{path.name}: column {column}: expected a finite number in every row; fill them in, or leave such rows or the column out"
            )
    return torch.from_numpy(found)


def read_tokens(path: Path, vocabulary: int, positions: int) -> Tokens:
    """Token ids, from `.safetensors`, `.parquet` or `.npy`.

    Args:
        vocabulary, positions: of the model: ids are below the one, texts no longer than the other.

    Raises:
        MalformedMessageError: another form, or ids that the model does not take.
    """
    if path.suffix == ".parquet":
        ids, mask = _token_lists(path)
    elif path.suffix == ".npy":
        ids = torch.from_numpy(read_array(path))
        mask = torch.ones_like(ids)
    elif path.suffix == ".safetensors":
        tensors = _tensors(path, required=IDS, optional=(*MASK, *SEGMENTS))
        ids = _named(path, tensors, IDS)
        mask = _named(path, tensors, MASK) if tensors.keys() & {*MASK} else torch.ones_like(ids)
        if any(bool(tensors[name].any()) for name in SEGMENTS if name in tensors):
            raise MalformedMessageError(f"{path.name}: {SEGMENTS[0]}: expected zeros: a batch carries single texts, and no pairs of them")
    else:
        raise MalformedMessageError(f"{path.name}: expected token ids in .safetensors, .parquet or .npy: the tokenizer's input_ids")
    if ids.ndim != 2 or 0 in ids.shape or ids.is_floating_point() or mask.shape != ids.shape:
        raise MalformedMessageError(
            f"{path.name}: expected whole numbers [n, length] and a mask of the same shape, got {ids.dtype} {list(ids.shape)} "
            f"and {list(mask.shape)}"
        )
    ids, mask = ids.long(), mask.long()
    if not ((mask == 0) | (mask == 1)).all() or not mask.any(dim=1).all():
        raise MalformedMessageError(f"{path.name}: {MASK[0]}: expected 1 for tokens and 0 for padding, and a token in every text")
    stands = mask.bool()
    used = ids[stands]
    if int(used.min()) < 0 or int(used.max()) >= vocabulary:
        raise MalformedMessageError(
            f"{path.name}: {IDS[0]}: expected ids of 0 to {vocabulary - 1}, the model's vocabulary; is this its tokenizer?"
        )
    if ids.shape[1] > positions:
        raise MalformedMessageError(
            f"{path.name}: expected texts of at most {positions} tokens, got {ids.shape[1]}; have the tokenizer truncate them"
        )
    return Tokens(torch.where(stands, ids, ids.clamp(0, vocabulary - 1)), stands)


def holds_tokens(path: Path) -> bool:
    """Whether a safetensors file has token ids in it.

    Raises:
        MalformedMessageError: no safetensors file.
    """
    with _opened(path) as opened:
        return any(name in IDS for name in opened.offset_keys())


def read_array(path: Path) -> NDArray[np.float64] | NDArray[np.int64]:
    """An array in NumPy's format: finite f64, or i64.

    Raises:
        MalformedMessageError: too large, objects, no numbers, or one that is not finite.
    """
    _check_size(path)
    with path.open("rb") as file:
        content = file.read(MAX_TABLE_BYTES + 1)
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise MalformedMessageError(f"{path.name}: expected an array in NumPy's format, without objects") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.size == 0:
        raise MalformedMessageError(f"{path.name}: expected an array of numbers")
    if array.dtype.kind != "f":
        return array.astype(np.int64)
    if not np.isfinite(array).all():
        raise MalformedMessageError(f"{path.name}: expected finite numbers only")
    return array.astype(np.float64)


def _of_transformer(path: Path, config: BertConfig | LlamaConfig) -> Tensor | Tokens:
    if path.suffix == ".npy" and (array := read_array(path)).dtype.kind == "f":
        if array.ndim != 3 or array.shape[2] != config.hidden or array.shape[1] > config.positions:
            raise MalformedMessageError(
                f"{path.name}: expected token ids [n, length], or embeddings [n, length, {config.hidden}], got floats of shape "
                f"{list(array.shape)}"
            )
        return torch.from_numpy(array)
    return read_tokens(path, config.vocabulary, config.positions)


def _token_lists(path: Path) -> tuple[Tensor, Tensor]:
    """Ids and mask of a Parquet file; shorter texts are padded at their end, with an id that no model looks at."""
    from rexis.agent.parquet import column_names, read_lists

    names = column_names(path)
    _check_names(path, names, required=IDS, optional=(*MASK, *SEGMENTS))
    flat, lengths = read_lists(path, next(name for name in IDS if name in names))
    longest = int(lengths.max())
    if len(lengths) * longest > MAX_TABLE_BYTES // 8:
        raise MalformedMessageError(f"{path.name}: {len(lengths)} texts padded to {longest} tokens are too many; use them in parts")
    stands = np.arange(longest) < lengths[:, None]

    def padded(values: NDArray[np.int64]) -> NDArray[np.int64]:
        whole = np.zeros(stands.shape, dtype=np.int64)
        whole[stands] = values
        return whole

    mask = stands.astype(np.int64)
    for name in (name for name in names if name in (*MASK, *SEGMENTS)):
        values, found = read_lists(path, name)
        if not np.array_equal(found, lengths):
            raise MalformedMessageError(f"{path.name}: column {name}: expected lists as long as those of the ids")
        if name in MASK:
            mask = padded(values)
        elif values.any():
            raise MalformedMessageError(f"{path.name}: column {name}: expected zeros: a batch carries single texts, and no pairs of them")
    return torch.from_numpy(padded(flat)), torch.from_numpy(mask)


def _tensors(path: Path, *, required: Collection[str], optional: Collection[str] = ()) -> Mapping[str, Tensor]:
    """Tensors of a safetensors file with one of the required names, others of the optional ones, and none besides."""
    with _opened(path) as opened:
        names = list(opened.offset_keys())
        _check_names(path, names, required=required, optional=optional)
        return {name: opened.get_tensor(name) for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _check_size(path)
    try:
        with safe_open(path, framework="pt") as opened:
            yield opened
    except SafetensorError as error:
        raise MalformedMessageError(f"{path.name}: expected a safetensors file: {error}") from error


def _check_names(path: Path, names: Collection[str], *, required: Collection[str], optional: Collection[str]) -> None:
    others = sorted(set(names) - {*required, *optional})
    if others or len(set(names) & set(required)) != 1:
        may = f", and {' or '.join(optional)} where they apply" if optional else ""
        raise MalformedMessageError(
            f"{path.name}: expected {' or '.join(required)}{may}, and nothing else; got {', '.join(sorted(names)[:8]) or 'nothing'}"
        )


def _named(path: Path, tensors: Mapping[str, Tensor], names: Collection[str]) -> Tensor:
    found = [tensor for name, tensor in tensors.items() if name in names]
    if len(found) != 1 or found[0].is_floating_point():
        raise MalformedMessageError(f"{path.name}: expected whole numbers under one of the names {', '.join(names)}")
    return found[0]


def _finite(path: Path, x: Tensor) -> Tensor:
    if not x.isfinite().all():
        raise MalformedMessageError(f"{path.name}: expected finite numbers only, got NaN or infinity; fill them in, or leave such rows out")
    return x


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise MalformedMessageError(f"{path.name}: expected at most {MAX_TABLE_BYTES} bytes, got {size}")
