"""The HuggingFace module of a vision transformer's config, and the config of such a module: no names, no labels, no dropout travel."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rexis.errors import UnsupportedLayerError
from rexis.models.modules.bert import check_parts
from rexis.models.vit import ViTConfig


def build(config: ViTConfig, dtype: torch.dtype) -> nn.Module:
    """The stock module with HuggingFace's own initialisation, which draws from torch's generator."""
    from transformers import ViTConfig as LibraryConfig
    from transformers import ViTForImageClassification

    labels: dict[str, Any] = {"num_labels": config.outputs}
    settings = LibraryConfig(
        image_size=config.image,
        patch_size=config.patch,
        num_channels=config.channels,
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate,
        hidden_act=config.activation,
        layer_norm_eps=float(config.epsilon),
        **labels,
    )
    module: nn.Module = ViTForImageClassification(settings)
    return module.to(dtype)


def assemble(config: ViTConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """The module that holds these very tensors."""
    with torch.device("meta"):
        model = build(config, torch.float32)
    model.load_state_dict(dict(state), assign=True)
    return model


def describe(model: nn.Module) -> ViTConfig:
    """The config of a module that `build` could have made, whatever its weights and labels.

    Raises:
        UnsupportedLayerError: another class, or parts that are not the stock ones; the message names the part.
    """
    from transformers import ViTForImageClassification

    if type(model) is not ViTForImageClassification:
        raise UnsupportedLayerError(
            f"expected ViTForImageClassification, got {type(model).__name__}: the last layer norm has to be folded into a classifier"
        )
    settings: Any = model.config
    try:
        config = ViTConfig(
            settings.image_size,
            settings.patch_size,
            settings.num_channels,
            settings.hidden_size,
            settings.num_hidden_layers,
            settings.num_attention_heads,
            settings.intermediate_size,
            settings.num_labels,
            settings.hidden_act,
            repr(float(settings.layer_norm_eps)),
        )
    except ValueError as error:
        raise UnsupportedLayerError(f"ViT: {error}") from error
    check_parts(model, config.shapes, config.activation, config.epsilon)
    return config
