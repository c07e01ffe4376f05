"""A HuggingFace folder as it lies on the disk: which model it holds, and any one of its tensors.

What says so is the config and the headers of the safetensors files; weights are read one at a time, so that a model may be larger than
memory. Checkpoints of other people are read as tensors, never unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rexis.errors import MalformedMessageError
from rexis.models.builders import read_stored
from rexis.models.spec import ModelSpec

CONFIG, GENERATION, WEIGHTS, INDEX = "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"
MAX_DOCUMENT_BYTES = 1 << 26

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
        file: safetensors file.
        name: in the file.
        kind: dtype as safetensors names it.
        shape: of the tensor.
    """

    file: Path
    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensor, which is one of `DTYPES`."""
        return DTYPES[self.kind]

    def read(self) -> Tensor:
        """The tensor."""
        # Read, not mapped: pages of a mapped file would count as memory for as long as a tensor of it lives.
        with safe_open(self.file, framework="pt", backend="pread") as opened:
            tensor: Tensor = opened.get_tensor(self.name)
        return tensor


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds exactly the tensors of a spec.

    Attributes:
        spec: of its model.
        config: its `config.json`.
        generation: its `generation_config.json`; None if it has no such file.
        tensors: name in the spec → where it lies.
    """

    spec: ModelSpec
    config: Mapping[str, Any]
    generation: Mapping[str, Any] | None
    tensors: Mapping[str, StoredTensor]

    def read(self, name: str) -> Tensor:
        """A tensor by its name in the spec."""
        return self.tensors[name].read()


def open_folder(path: Path) -> ModelFolder:
    """The model in a folder.

    Raises:
        MalformedMessageError: no config or safetensors there, or tensors that are missing, unknown or of another shape than the config
            says.
        UnsupportedLayerError: a model that no spec describes.
    """
    config = _document(path / CONFIG)
    # First, for a model that no spec describes has tensors of any names.
    stored = _stored(path)
    spec, names = read_stored(config, {name: each.shape for name, each in stored.items()}, lambda name: stored[name].read())
    for name, shape in spec.shapes.items():
        found = stored.get(names.get(name, name))
        if found is None or found.shape != shape or found.kind not in DTYPES:
            raise MalformedMessageError(
                f"{path.name}: {name}: expected shape {list(shape)} by {CONFIG} and floats ({', '.join(DTYPES)}), "
                f"got {'nothing' if found is None else f'{found.kind} of shape {list(found.shape)}'}"
            )
    unknown = sorted(names.keys() - spec.shapes.keys())
    if unknown:
        raise MalformedMessageError(f"{path.name}: expected the tensors of a {spec.family} and no other, got {unknown[0]}")
    generation = _document(path / GENERATION) if (path / GENERATION).exists() else None
    return ModelFolder(spec, config, generation, {name: stored[names[name]] for name in spec.shapes})


def _stored(folder: Path) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    for file in _files(folder):
        if not file.is_file():
            raise MalformedMessageError(
                f"{folder.name}: expected {file.name}; a pickled checkpoint is never opened: save it as safetensors"
            )
        try:
            with safe_open(file, framework="pt", backend="pread") as opened:
                for name in opened.offset_keys():
                    view = opened.get_slice(name)
                    found[name] = StoredTensor(file, name, str(view.get_dtype()), tuple(view.get_shape()))
        except (OSError, SafetensorError) as error:
            raise MalformedMessageError(f"{folder.name}/{file.name}: not a safetensors file: {error}") from error
    return found


def _files(folder: Path) -> list[Path]:
    if not (folder / INDEX).exists():
        return [folder / WEIGHTS]
    places = _document(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise MalformedMessageError(f"{folder.name}/{INDEX}: expected a weight_map from tensors to files")
    names = sorted(set(map(str, places.values())))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise MalformedMessageError(f"{folder.name}/{INDEX}: expected names of safetensors files in this folder, got {name!r:.80}")
    return [folder / name for name in names]


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        document = json.loads(content) if len(content) <= MAX_DOCUMENT_BYTES else None
    except OSError:
        raise MalformedMessageError(f"{path.parent.name}: expected a HuggingFace folder with {path.name}") from None
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{path.name}: expected a JSON object: {error}") from error
    if not isinstance(document, dict):
        raise MalformedMessageError(f"{path.name}: expected a JSON object of at most {MAX_DOCUMENT_BYTES} bytes")
    return document
