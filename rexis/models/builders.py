"""The torch module of a model spec, and the spec of a torch module. Modules are of stock classes.

The transformer families need the package transformers, which takes seconds to import: they are loaded when one of them is asked for.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rexis.errors import UnsupportedLayerError
from rexis.models.modules.special_ids import IdMap
from rexis.models.spec import ModelSpec

# Families with a HuggingFace folder.
STORED_FAMILIES = ("bert", "llama")
# Families whose module has another name than they.
_MODULES = {"logistic": "mlp", "cox": "mlp", "bert-head": "mlp", "bert-lora": "bert_lora"}


def build(spec: ModelSpec, *, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Build the module of a spec on the CPU (or the default device), with the family's default initialisation drawn from `seed`.

    The process-wide generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: nn.Module = _family(spec.family).build(spec.config, dtype)
    return module


def assemble(spec: ModelSpec, state: Mapping[str, Tensor]) -> nn.Module:
    """The module of a spec that holds these very tensors, in their dtype; nothing is initialised or copied.

    Raises:
        RuntimeError: tensors of other names or shapes.
    """
    module: nn.Module = _family(spec.family).assemble(spec.config, state)
    return module


def describe(model: nn.Module) -> ModelSpec:
    """The spec of a module that `build` could have made.

    Raises:
        UnsupportedLayerError: another structure; the message names the layer.
    """
    package = type(model).__module__
    family = next((name for name in ("bert", "llama", "vit") if f".models.{name}." in package), "mlp")
    return ModelSpec(_family(family).describe(model))


def read_stored(
    document: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Tensor]
) -> tuple[ModelSpec, dict[str, str]]:
    """The model that a HuggingFace folder holds: its spec, and name in the spec → stored name of all that is not left out.

    Args:
        document: `config.json`.
        shapes: of the tensors there, by their stored names; read: gives one of them, where its values say which model it is.

    Raises:
        UnsupportedLayerError: another family, or what its spec does not express.
        MalformedMessageError: a config of another form.
    """
    if document.get("model_type") not in STORED_FAMILIES:
        raise UnsupportedLayerError(
            f"expected a config with model_type {' or '.join(STORED_FAMILIES)}, got {document.get('model_type')!r:.40}"
        )
    config, names = _family(document["model_type"]).read_stored(document, shapes, read)
    return ModelSpec(config), names


def stored_beside(spec: ModelSpec) -> dict[str, Tensor]:
    """Tensors that the stock class asks for beside those of a spec, and that say nothing."""
    beside: dict[str, Tensor] = _family(spec.family).stored_beside(spec.config)
    return beside


def library_config(spec: ModelSpec, source: Mapping[str, Any], dtype: torch.dtype, move: IdMap) -> dict[str, Any]:
    """The HuggingFace config of a spec, with the special ids of another config, each moved."""
    document: dict[str, Any] = _family(spec.family).document(spec.config, source, dtype, move)
    return document


def _family(family: str) -> ModuleType:
    return import_module(f"rexis.models.modules.{_MODULES.get(family, family)}")
