"""A HuggingFace folder of a BERT or a Llama model: config.json and model.safetensors, in one file or in shards.

Checkpoints of other people are read as tensors, never unpickled. What is written holds nothing of the folder that was read but weights
and special ids: no names, paths, labels or tokenizer, which stay with whoever owns the vocabulary.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rexis.errors import MalformedMessageError, UnsupportedLayerError
from rexis.models.builders import assemble, build, read_library_config
from rexis.models.llama import LlamaConfig
from rexis.models.modules import bert
from rexis.models.modules.special_ids import carry, moved_ids, name_ids
from rexis.models.spec import ModelSpec

CONFIG, GENERATION, WEIGHTS, INDEX = "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"
MAX_CONFIG_BYTES = 1 << 24

# Heads of pre-training, and what older versions stored although it is counted.
_LEFT_OUT = ("cls.", "embeddings.position_ids", "embeddings.token_type_ids")
_OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}
# Buffers that older Llama checkpoints carry along; they follow from the config.
_FREQUENCIES = ".rotary_emb.inv_freq"
_WORDS, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def is_bert(folder: Path) -> bool:
    """Whether a folder's config.json names a BERT model.

    Raises:
        MalformedMessageError: no HuggingFace folder.
    """
    return bool(_document(folder / CONFIG).get("model_type") == "bert")


def read_model(folder: Path) -> nn.Module:
    """The stock module of a folder, whole in memory, with the dtype of its weights.

    A BERT model has the special ids of its config, and layer norms that are all exactly gain 1 and bias 0 are read as norms without them.
    A Llama that is larger than memory is keyed and decrypted without this (`rexis.ee.checkpoints`).

    Raises:
        MalformedMessageError: no safetensors, or tensors that do not fit config.json.
        UnsupportedLayerError: another model than a BERT encoder with absolute positions or a Llama.
    """
    return _read_llama(folder) if _document(folder / CONFIG).get("model_type") == "llama" else _read_bert(folder)


def _read_llama(folder: Path) -> nn.Module:
    spec = read_library_config(_document(folder / CONFIG))
    tensors = {name: tensor for name, tensor in _weights(folder).items() if not name.endswith(_FREQUENCIES)}
    tied = isinstance(spec.config, LlamaConfig) and spec.config.tied
    if tied:
        tensors.pop(_HEAD, None)
    _check_tensors(folder, tensors, spec.shapes)
    return assemble(spec, tensors | ({_HEAD: tensors[_WORDS]} if tied else {}))


def _read_bert(folder: Path) -> nn.Module:
    settings = _settings(folder)
    tensors = {_stock_name(name): tensor for name, tensor in _weights(folder).items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_LEFT_OUT)}
    norms = {name: tensor for name, tensor in tensors.items() if ".LayerNorm." in f".{name}"}
    affine = any((tensor != float(name.endswith("weight"))).any() for name, tensor in norms.items())
    classifier = tensors.get("classifier.weight")
    config = bert.read_config(
        settings, outputs=0 if classifier is None else len(classifier), pooler="pooler.dense.weight" in tensors, affine=affine
    )
    if not affine:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in norms}
    named = {name if name.startswith("classifier.") else config.prefix + name: tensor for name, tensor in tensors.items()}
    dtype = _check_tensors(folder, named, config.shapes)
    with torch.device("meta"):
        model = bert.build(config, dtype)
    model.load_state_dict(named, assign=True)
    name_ids(model, moved_ids(vars(settings), lambda token: token))
    return model


def _check_tensors(folder: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> torch.dtype:
    """The one floating-point dtype of tensors that are exactly those of a config."""
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != dict(shapes):
        odd = sorted(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))[0]
        raise MalformedMessageError(f"{folder.name}: {odd}: expected shape {shapes.get(odd)} by config.json, got {found.get(odd)}")
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) > 1 or not next(iter(dtypes)).is_floating_point:
        raise MalformedMessageError(f"{folder.name}: expected one floating-point dtype throughout, got {sorted(map(str, dtypes))}")
    return next(iter(dtypes))


def with_classifier(encoder: nn.Module, outputs: int, *, seed: int) -> nn.Module:
    """A classifier on a pre-trained encoder: a copy of its weights, and an output layer (and pooler, if it has none) drawn from `seed`."""
    config = replace(bert.describe(encoder), outputs=outputs, pooler=True)
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    model = build(ModelSpec(config), seed=seed, dtype=next(iter(weights.values())).dtype)
    model.load_state_dict({f"{config.prefix}{name}": tensor for name, tensor in weights.items()}, strict=False)
    carry(encoder, model, lambda token: token)
    return model


def read_generation_ids(folder: Path) -> dict[str, Any]:
    """The special ids in a folder's generation config; none if it has no such file."""
    path = folder / GENERATION
    return moved_ids(_document(path), lambda token: token) if path.exists() else {}


def write_model(folder: Path, model: nn.Module, generation_ids: Mapping[str, Any]) -> None:
    """Write a new folder that the stock class loads, whole or not at all.

    Args:
        generation_ids: special ids of a generation config; an empty mapping writes none.

    Raises:
        FileExistsError: the folder is there.
        UnsupportedLayerError: another model than `read_model` gives.
    """
    config = bert.describe(model)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a model is never overwritten")
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    dtype = next(iter(weights.values())).dtype
    weights |= {name: tensor.to(dtype) for name, tensor in bert.plain_norms(config).items()}
    settings = bert.library_config(config)
    settings.architectures, settings.dtype = [type(model).__name__], dtype
    for name, value in moved_ids(vars(model.config), lambda token: token).items():
        setattr(settings, name, value)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        files = Path(unfinished) / folder.name
        files.mkdir(mode=0o700)
        save_file(weights, files / WEIGHTS, metadata={"format": "pt"})
        (files / CONFIG).write_text(settings.to_json_string(), encoding="utf-8")
        if generation_ids:
            (files / GENERATION).write_text(json.dumps(dict(generation_ids), indent=2) + "\n", encoding="utf-8")
        files.rename(folder)


def _settings(folder: Path) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import BertConfig as LibraryConfig

    document = _document(folder / CONFIG)
    if document.get("model_type") != "bert":
        raise UnsupportedLayerError(f"{folder.name}: expected model_type bert, got {document.get('model_type')!r:.40}")
    try:
        return LibraryConfig.from_dict(document)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise MalformedMessageError(f"{folder.name}/{CONFIG}: {' '.join(str(error).split())}") from error


def _weights(folder: Path) -> dict[str, Tensor]:
    index = folder / INDEX
    names = sorted(set(_document(index).get("weight_map", {}).values())) if index.exists() else [WEIGHTS]
    if any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise MalformedMessageError(f"{folder.name}/{INDEX}: expected names of files in this folder")
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise MalformedMessageError(f"{folder.name}: expected {name}; a pickled checkpoint is never opened: save it as safetensors")
        try:
            tensors |= load_file(folder / name)
        except SafetensorError as error:
            raise MalformedMessageError(f"{folder.name}/{name}: {error}") from error
    return tensors


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        document = json.loads(content) if len(content) <= MAX_CONFIG_BYTES else None
    except FileNotFoundError:
        raise MalformedMessageError(f"{path.parent.name}: expected a HuggingFace folder with {path.name}") from None
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{path.name}: no JSON: {error}") from error
    if not isinstance(document, dict):
        raise MalformedMessageError(f"{path.name}: expected a JSON object of at most {MAX_CONFIG_BYTES} bytes")
    return document


def _stock_name(name: str) -> str:
    name = name.removeprefix("bert.")
    for old, new in _OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
