"""The torch module of a model spec, and the spec of a torch module. Modules are of stock classes.

The transformer families need the package transformers, which takes seconds to import: they are loaded when one of them is asked for.
"""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rexis.errors import UnsupportedLayerError
from rexis.models.modules.special_ids import IdMap
from rexis.models.spec import ModelSpec


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


def read_library_config(document: Mapping[str, Any]) -> ModelSpec:
    """The spec in a HuggingFace config (`config.json`).

    Raises:
        UnsupportedLayerError: another family, or what its spec does not express.
    """
    if document.get("model_type") != "llama":
        raise UnsupportedLayerError(f"expected the config of a model of type llama, got {document.get('model_type')!r:.40}")
    return ModelSpec(_family("llama").read_document(document))


def library_config(spec: ModelSpec, source: Mapping[str, Any], dtype: torch.dtype, move: IdMap) -> dict[str, Any]:
    """The HuggingFace config of a spec, with the special ids of another config, each moved."""
    document: dict[str, Any] = _family(spec.family).document(spec.config, source, dtype, move)
    return document


def _family(family: str) -> ModuleType:
    return import_module(f"rexis.models.modules.{'mlp' if family == 'logistic' else family}")
