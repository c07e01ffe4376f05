"""Models, rows and outputs in files on the institution's premises, plain or keyed: the safetensors of wire formats, section 4.

A keyed file has the form of a plain one; only whoever made it knows which it is, so the commands name their results.
"""

import csv
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rexis.agent.inputs import Tokens, holds_tokens, read_tokens
from rexis.ee.checkpoints import describe_checkpoint
from rexis.errors import ConfigurationError, MalformedMessageError
from rexis.models.bert import BertConfig
from rexis.models.builders import build, describe
from rexis.models.llama import LlamaConfig
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import FileRecord, digest_file, read_file, write_file
from rexis.protocol.file_spec import FileSpec, TensorSpec

MAX_SPEC_BYTES = 1 << 16
_MASK = TensorSpec("mask", "u8", ("n", "s"))


def model_file_spec(spec: ModelSpec) -> FileSpec:
    """What a model's file contains: every tensor in f32."""
    return FileSpec.of_model("model", spec.digest(), spec.shapes, "f32")


def rows_file_spec(spec: ModelSpec) -> FileSpec:
    """What a file of a model's inputs contains: x, f32 [n, inputs]."""
    return FileSpec("batch", (TensorSpec("x", "f32", ("n", spec.tabular.inputs)),))


def outputs_file_spec(spec: ModelSpec) -> FileSpec:
    """What a file of a model's outputs contains: y, f32 [n, outputs]; for every token, f32 [n, s, width], without a classifier.

    Raises:
        MalformedMessageError: a model whose answers have no file.
    """
    if isinstance(spec.config, BertConfig):
        return _outputs_spec(spec.config.outputs or spec.config.hidden, tokens=not spec.config.outputs)
    if isinstance(spec.config, LlamaConfig):
        return _outputs_spec(spec.config.vocabulary, tokens=True)
    return _outputs_spec(spec.tabular.outputs, tokens=False)


def _outputs_spec(width: int, *, tokens: bool) -> FileSpec:
    return FileSpec("output", (TensorSpec("y", "f32", ("n", "s", width) if tokens else ("n", width)),))


def read_spec(path: Path) -> ModelSpec:
    """Read a model specification: JSON, YAML, or that of a HuggingFace folder.

    Raises:
        MalformedMessageError: too large, none of them, or not a specification.
        UnsupportedLayerError: a folder with another model than those of the families.
    """
    if path.is_dir():
        return describe_checkpoint(path)
    with path.open("rb") as file:
        content = file.read(MAX_SPEC_BYTES + 1)
    if len(content) > MAX_SPEC_BYTES:
        raise MalformedMessageError(f"{path.name}: expected a model specification of at most {MAX_SPEC_BYTES} bytes")
    try:
        return ModelSpec.parse(yaml.safe_load(content))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{path.name}: neither JSON nor YAML: {' '.join(str(error).split())}") from error
    except MalformedMessageError as error:
        raise MalformedMessageError(f"{path.name}: {error}") from error


def read_tensors(path: Path, shapes: Collection[tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of some shapes in a safetensors file, or in all of them in a folder, whatever model they belong to.

    Raises:
        MalformedMessageError: no such file, or another form.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise MalformedMessageError(f"{path.name}: expected a folder with .safetensors files")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                names = [name for name in opened.offset_keys() if tuple(opened.get_slice(name).get_shape()) in shapes]
                tensors |= {name: opened.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise MalformedMessageError(f"{file.name}: {error}") from error
    return tensors


def write_model(path: Path, model: nn.Module) -> FileRecord:
    """Write a model, weights rounded to f32.

    Raises:
        UnsupportedLayerError: a module that no specification describes.
        EncodingError: NaN or infinity among the weights.
    """
    spec = describe(model)
    return _write(path, model_file_spec(spec), {name: tensor.float() for name, tensor in model.state_dict().items()})


def read_model(path: Path, spec: ModelSpec) -> nn.Module:
    """Read a model, f32.

    Raises:
        MalformedMessageError, EncodingError: not a model file of this specification.
    """
    tensors = _read(path, model_file_spec(spec))
    with torch.device("meta"):
        model = build(spec, seed=0)
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, assign=True)
    return model


def model_record(path: Path, spec: ModelSpec) -> bytes:
    """The record of a model file, 32 bytes.

    Raises:
        MalformedMessageError, EncodingError: not a model file of this specification.
    """
    with path.open("rb") as file:
        return digest_file(file, model_file_spec(spec), path.stat().st_size).record


def write_rows(path: Path, spec: ModelSpec, x: Tensor) -> FileRecord:
    """Write inputs [n, inputs], rounded to f32."""
    return _write(path, rows_file_spec(spec), {"x": x.detach().float()})


def write_inputs(path: Path, spec: ModelSpec, inputs: Tensor | Tokens) -> FileRecord:
    """Write a batch: rows [n, inputs] or embeddings [n, s, d] rounded to f32, or token ids and where they stand."""
    if isinstance(inputs, Tokens):
        tensors = {"ids": inputs.ids, "mask": inputs.mask.to(torch.uint8)}
        return _write(path, FileSpec("batch", (TensorSpec("ids", "i64", ("n", "s")), _MASK)), tensors)
    if inputs.ndim == 2:
        return write_rows(path, spec, inputs)
    found = FileSpec("batch", (_MASK, TensorSpec("x", "f32", ("n", "s", inputs.shape[-1]))))
    return _write(path, found, {"mask": torch.ones(inputs.shape[:2], dtype=torch.uint8), "x": inputs.detach().float()})


def write_outputs(path: Path, y: Tensor | Tokens) -> None:
    """Write answers, rounded to f32 if the path ends in `.safetensors`, else as CSV with one line a row; token ids, and vectors for every
    token, as `.safetensors` only, ids under the names that a tokenizer takes.

    Raises:
        ConfigurationError: tokens, and another ending; nothing is written.
    """
    if path.suffix != ".safetensors" and (isinstance(y, Tokens) or y.ndim > 2):
        raise ConfigurationError(f"{path.name}: answers for every token do not go into a table; give an output that ends in .safetensors")
    # Predictions about patients: a new file is its owner's only.
    path.touch(mode=0o600)
    if isinstance(y, Tokens):
        path.write_bytes(save({"attention_mask": y.mask.long(), "input_ids": y.ids}))
        return
    if path.suffix == ".safetensors":
        _write(path, _outputs_spec(y.shape[-1], tokens=y.ndim > 2), {"y": y.detach().float()})
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", *(f"y{place}" for place in range(y.shape[-1]))])
    writer.writerows([row, *map(repr, values)] for row, values in enumerate(y.tolist()))
    path.write_text(text.getvalue(), encoding="utf-8")


def read_outputs(path: Path, spec: ModelSpec) -> Tensor | Tokens:
    """Read a `.safetensors` file of answers: f64 [n, outputs]; [n, s, width] of an encoder without a classifier or of a language model;
    or the token ids that a language model generated.

    Raises:
        MalformedMessageError, EncodingError: another form.
    """
    if isinstance(spec.config, LlamaConfig) and holds_tokens(path):
        return read_tokens(path, spec.config.vocabulary, spec.config.positions)
    return torch.from_numpy(_read(path, outputs_file_spec(spec))["y"]).double()


def _write(path: Path, spec: FileSpec, tensors: dict[str, Tensor]) -> FileRecord:
    with path.open("wb") as file:
        return write_file(file, spec, tensors)


def _read(path: Path, spec: FileSpec) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        digest_file(file, spec, size)
        file.seek(0)
        # Copied: what is read lies on bytes that torch may not write to.
        return {name: tensor.copy() for name, tensor in read_file(file, spec, size).items()}
