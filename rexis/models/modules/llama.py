"""HuggingFace's `LlamaForCausalLM`, unmodified, and its config files."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import LlamaConfig as LibraryConfig
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from rexis.errors import MalformedMessageError, UnsupportedLayerError
from rexis.models.llama import LlamaConfig
from rexis.models.modules.special_ids import IdMap, moved_ids

# What a Llama of the spec has at these fields of its HuggingFace config; anything else is another function.
_FIXED: Mapping[str, Any] = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0, "pretraining_tp": 1}

_STOCK = (nn.Embedding, nn.Linear, LlamaRMSNorm)

# A buffer that older checkpoints carry along; it follows from the config.
_RECOMPUTED = ".rotary_emb.inv_freq"


def build(config: LlamaConfig, dtype: torch.dtype) -> nn.Module:
    """The module of a config, with HuggingFace's initialisation from the process-wide generator; it names no special tokens."""
    settings = library_config(config)
    model: nn.Module = LlamaForCausalLM(settings)
    model.to(dtype)
    # Rotary frequencies are computed in f32 whatever the dtype of the weights, and exist also where the weights are on "meta".
    with torch.device("cpu"):
        model.get_submodule("model").register_module("rotary_emb", LlamaRotaryEmbedding(settings))
    return model


def assemble(config: LlamaConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """The module of a config that holds these very tensors; a tied head may be among them."""
    with torch.device("meta"):
        model: Any = build(config, torch.float32)
    model.load_state_dict(dict(state), assign=True)
    model.tie_weights()
    module: nn.Module = model
    return module


def describe(model: nn.Module) -> LlamaConfig:
    """The config of a module that `build` could have made.

    Raises:
        UnsupportedLayerError: another class (adapters, quantisation), or what a spec does not express; the message names the field.
    """
    if type(model) is not LlamaForCausalLM:
        raise UnsupportedLayerError(f"expected a plain transformers.LlamaForCausalLM, got {type(model).__name__}")
    config = read_document(model.config.to_dict())
    found = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    for name, shape in config.shapes.items():
        if found.pop(name, None) != shape:
            raise UnsupportedLayerError(
                f"expected a parameter {name} of shape {list(shape)}: a quantised or adapted model is none of these"
            )
    for name, part in model.named_modules():
        if next(part.parameters(recurse=False), None) is not None and type(part) not in _STOCK:
            raise UnsupportedLayerError(f"{name}: expected a stock layer of LlamaForCausalLM, got {type(part).__name__}")
    if found:
        raise UnsupportedLayerError(f"expected the parameters of a Llama and no other, got {next(iter(found))}")
    return config


def library_config(config: LlamaConfig) -> LibraryConfig:
    """HuggingFace's config object of a config; it names no special tokens, no source and no path."""
    return LibraryConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        head_dim=config.head_width,
        max_position_embeddings=config.positions,
        rms_norm_eps=float(config.epsilon),
        rope_parameters={"rope_type": "default", "rope_theta": float(config.theta)},
        tie_word_embeddings=config.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def read_document(document: Mapping[str, Any]) -> LlamaConfig:
    """The config in the document of a HuggingFace config (`config.json`).

    Raises:
        UnsupportedLayerError: not a Llama, or one that a spec does not express: scaled rotary positions, biases, dropout.
        MalformedMessageError: fields of other types than HuggingFace's.
    """
    if document.get("model_type") != "llama" or document.get("quantization_config"):
        raise UnsupportedLayerError(f"expected an unquantised model of type llama, got {document.get('model_type')!r:.40}")
    # Through HuggingFace's own reader, which fills defaults and knows the older spellings of the rotary fields.
    try:
        stock: Any = LibraryConfig.from_dict(dict(document))
        rotary = dict(stock.rope_parameters)
        theta, epsilon = repr(float(rotary.pop("rope_theta"))), repr(float(stock.rms_norm_eps))
    except (StrictDataclassError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedMessageError(f"config of a Llama: {' '.join(str(error).split()):.200}") from error
    for name, expected in _FIXED.items():
        if (getattr(stock, name) or expected) != expected:
            raise UnsupportedLayerError(f"{name}: expected {expected!r}, got {getattr(stock, name)!r:.40}: a Llama spec has no such field")
    if rotary.pop("rope_type", "default") != "default" or any(value not in (None, 1.0) for value in rotary.values()):
        raise UnsupportedLayerError(f"expected plain rotary positions, got {stock.rope_parameters!r:.120}: a Llama spec has no scaling")
    try:
        return LlamaConfig(
            vocabulary=stock.vocab_size,
            hidden=stock.hidden_size,
            layers=stock.num_hidden_layers,
            heads=stock.num_attention_heads,
            key_value_heads=stock.num_key_value_heads,
            head_width=stock.head_dim,
            intermediate=stock.intermediate_size,
            positions=stock.max_position_embeddings,
            theta=theta,
            epsilon=epsilon,
            tied=stock.tie_word_embeddings,
        )
    except ValueError as error:
        raise UnsupportedLayerError(f"the config of a Llama is out of bounds: {error}") from error


def read_stored(
    document: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Tensor]
) -> tuple[LlamaConfig, dict[str, str]]:
    """The config of a HuggingFace folder, which its document says alone, and the names of its tensors; as `read_document`."""
    config = read_document(document)
    left_out = {"lm_head.weight"} if config.tied else set()
    return config, {name: name for name in shapes if name not in left_out and not name.endswith(_RECOMPUTED)}


def stored_beside(config: LlamaConfig) -> dict[str, Tensor]:
    """Nothing."""
    return {}


def document(config: LlamaConfig, source: Mapping[str, Any], dtype: torch.dtype, move: IdMap) -> dict[str, Any]:
    """The `config.json` of a config, with the special ids of another one, each moved; nothing else of it travels."""
    written: dict[str, Any] = library_config(config).to_dict()
    return written | moved_ids(source, move) | {"architectures": [LlamaForCausalLM.__name__], "dtype": str(dtype).removeprefix("torch.")}
