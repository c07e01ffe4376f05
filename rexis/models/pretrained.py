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

from safetensors.torch import save_file
from torch import nn

from rexis.errors import MalformedMessageError
from rexis.models.bert import BertConfig
from rexis.models.builders import assemble, build
from rexis.models.folders import CONFIG, GENERATION, WEIGHTS, open_folder
from rexis.models.llama import LlamaConfig
from rexis.models.modules import bert
from rexis.models.modules.special_ids import carry, moved_ids, name_ids
from rexis.models.spec import ModelSpec

# Of a Llama whose head is its embedding table, stock classes want both.
WORDS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def read_model(folder: Path) -> nn.Module:
    """The stock module of a folder, whole in memory, with the dtype of its weights.

    A BERT model has the special ids of its config, and layer norms that are all exactly gain 1 and bias 0 are read as norms without them.
    A Llama that is larger than memory is keyed and decrypted without this (`rexis.ee.checkpoints`).

    Raises:
        MalformedMessageError: no safetensors, or tensors that do not fit config.json.
        UnsupportedLayerError: another model than a BERT encoder with absolute positions or a Llama.
    """
    opened = open_folder(folder)
    dtypes = {tensor.dtype for tensor in opened.tensors.values()}
    if len(dtypes) > 1:
        raise MalformedMessageError(f"{folder.name}: expected one floating-point dtype throughout, got {sorted(map(str, dtypes))}")
    tensors = {name: opened.read(name) for name in opened.tensors}
    if isinstance(opened.spec.config, LlamaConfig) and opened.spec.config.tied:
        tensors[HEAD] = tensors[WORDS]
    model = assemble(opened.spec, tensors)
    if isinstance(opened.spec.config, BertConfig):
        name_ids(model, moved_ids(vars(bert.read_settings(opened.config)), lambda token: token))
    return model


def with_classifier(encoder: nn.Module, outputs: int, *, seed: int) -> nn.Module:
    """A classifier on a pre-trained encoder: a copy of its weights, and an output layer (and pooler, if it has none) drawn from `seed`."""
    config = replace(bert.describe(encoder), outputs=outputs, pooler=True)
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    model = build(ModelSpec(config), seed=seed, dtype=next(iter(weights.values())).dtype)
    model.load_state_dict({f"{config.prefix}{name}": tensor for name, tensor in weights.items()}, strict=False)
    carry(encoder, model, lambda token: token)
    return model


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
    weights |= {name: tensor.to(dtype) for name, tensor in bert.stored_beside(config).items()}
    settings: Any = model.config
    document = bert.document(config, settings.to_dict(), dtype, lambda token: token)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        files = Path(unfinished) / folder.name
        files.mkdir(mode=0o700)
        save_file(weights, files / WEIGHTS, metadata={"format": "pt"})
        (files / CONFIG).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        if generation_ids:
            (files / GENERATION).write_text(json.dumps(dict(generation_ids), indent=2) + "\n", encoding="utf-8")
        files.rename(folder)
