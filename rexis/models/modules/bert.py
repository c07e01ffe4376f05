"""The HuggingFace module of a BERT config, and the config of such a module.

transformers is imported when one is built: it takes seconds, and a site that runs an MLP has no use for it. A built module carries
nothing of the caller's own config: no names, paths or labels, and no dropout, under which equal seeds would draw other masks.

A layer norm without gain and bias is `nn.LayerNorm(elementwise_affine=False)` and not a frozen gain of 1: an optimiser that is handed all
parameters would move the frozen one as soon as somebody thaws it, and under a dense key that is another training. The stock class
still loads such weights, with gain 1 and bias 0 written beside them (`stored_beside`).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rexis.errors import MalformedMessageError, UnsupportedLayerError
from rexis.models.bert import ACTIVATIONS, BertConfig
from rexis.models.modules.special_ids import IdMap, moved_ids

_STOCK = (nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.Linear, nn.Dropout, nn.Tanh)

# Heads of pre-training, and what older versions stored although it is counted.
_LEFT_OUT = ("cls.", "embeddings.position_ids", "embeddings.token_type_ids")
_OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}


def build(config: BertConfig, dtype: torch.dtype) -> nn.Module:
    """The stock module with HuggingFace's own initialisation, which draws from torch's generator; on the meta device without storage."""
    from transformers import BertForSequenceClassification, BertModel

    settings = library_config(config)
    module: nn.Module = BertForSequenceClassification(settings) if config.outputs else BertModel(settings, add_pooling_layer=config.pooler)
    if not config.affine:
        for parent, name, norm in list(_norms(module)):
            setattr(parent, name, nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False))
    # Counted, not stored: without a device of their own they would stay behind on the meta device when weights are assigned.
    embeddings = module.get_submodule(f"{config.prefix}embeddings")
    positions = torch.arange(config.positions, device="cpu").expand((1, -1))
    embeddings.register_buffer("position_ids", positions, persistent=False)
    embeddings.register_buffer("token_type_ids", torch.zeros_like(positions), persistent=False)
    return module.to(dtype)


def assemble(config: BertConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """The module that holds these very tensors."""
    with torch.device("meta"):
        model = build(config, torch.float32)
    model.load_state_dict(dict(state), assign=True)
    first = next(iter(state.values()))
    model.config.dtype = first.dtype
    return model.to(first.device)


def library_config(config: BertConfig) -> Any:
    """HuggingFace's config object of a config: no dropout, no names, no special ids."""
    from transformers import BertConfig as LibraryConfig

    settings: dict[str, Any] = {"num_labels": config.outputs} if config.outputs else {}
    return LibraryConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate,
        hidden_act=config.activation,
        max_position_embeddings=config.positions,
        type_vocab_size=config.types,
        layer_norm_eps=float(config.epsilon),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=None,
        **settings,
    )


def read_config(settings: Any, *, outputs: int, pooler: bool, affine: bool) -> BertConfig:
    """The config of HuggingFace's config object, with what that one leaves open.

    Raises:
        UnsupportedLayerError: a decoder, relative positions or an activation that has no equivariant transform.
    """
    if settings.is_decoder or settings.add_cross_attention:
        raise UnsupportedLayerError("expected a BERT encoder, got a decoder or cross-attention")
    if getattr(settings, "position_embedding_type", "absolute") != "absolute":
        raise UnsupportedLayerError(f"expected absolute positions, got {settings.position_embedding_type!r:.40}")
    activation = {"swish": "silu"}.get(settings.hidden_act, settings.hidden_act)
    if activation not in ACTIVATIONS:
        raise UnsupportedLayerError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {activation!r:.40}")
    try:
        return BertConfig(
            vocabulary=settings.vocab_size,
            hidden=settings.hidden_size,
            layers=settings.num_hidden_layers,
            heads=settings.num_attention_heads,
            intermediate=settings.intermediate_size,
            positions=settings.max_position_embeddings,
            types=settings.type_vocab_size,
            outputs=outputs,
            pooler=pooler,
            affine=affine,
            activation=activation,
            epsilon=repr(float(settings.layer_norm_eps)),
        )
    except ValueError as error:
        raise UnsupportedLayerError(f"BERT: {error}") from error


def describe(model: nn.Module) -> BertConfig:
    """The config of a module that `build` could have made, whatever its weights, dropout and labels.

    Raises:
        UnsupportedLayerError: another class, or parts that are not the stock ones; the message names the part.
    """
    from transformers import BertForSequenceClassification, BertModel

    if type(model) not in (BertModel, BertForSequenceClassification):
        raise UnsupportedLayerError(f"expected BertModel or BertForSequenceClassification, got {type(model).__name__}")
    encoder: Any = model if isinstance(model, BertModel) else model.bert
    settings: Any = model.config
    norms = [norm for _, _, norm in _norms(model)]
    config = read_config(
        settings,
        outputs=0 if encoder is model else settings.num_labels,
        pooler=encoder.pooler is not None,
        affine=any(norm.elementwise_affine for norm in norms),
    )
    check_parts(model, config.shapes, config.activation, config.epsilon)
    return config


def check_parts(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], activation: str, epsilon: str) -> None:
    """Return if a transformer has these parameters and none but stock layers.

    Raises:
        UnsupportedLayerError: it has others; the message names the part.
    """
    from transformers.activations import ACT2FN

    expected = {name: tuple(shape) for name, shape in shapes.items()}
    found = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if found != expected:
        odd = sorted(found.items() ^ expected.items())[0][0]
        raise UnsupportedLayerError(f"{odd}: expected shape {expected.get(odd)} by the model's own config, got {found.get(odd)}")
    stock = (*_STOCK, type(ACT2FN[activation]))
    for name, part in model.named_modules():
        if _is_leaf(part) and type(part) not in stock:
            raise UnsupportedLayerError(f"{name}: expected a stock layer of {type(model).__name__}, got {type(part).__name__}")
    if any(norm.eps != float(epsilon) for _, _, norm in _norms(model)):
        raise UnsupportedLayerError(f"expected layer norms with epsilon {epsilon} throughout")


def read_stored(
    document: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Tensor]
) -> tuple[BertConfig, dict[str, str]]:
    """The config of a HuggingFace folder, and name in the spec → stored name; also in the layout of BioBERT, with older names.

    Layer norms that are all exactly gain 1 and bias 0 are read as norms without them.

    Raises:
        MalformedMessageError: a document of another form.
        UnsupportedLayerError: another model than a BERT encoder with absolute positions.
    """
    stock: dict[str, str] = {}
    for stored in shapes:
        name = _stock_name(stored)
        if name in stock:
            raise MalformedMessageError(f"expected one tensor for {name}, got it twice: {stock[name]} and {stored}")
        if not name.startswith(_LEFT_OUT):
            stock[name] = stored
    norms = {name: stored for name, stored in stock.items() if ".LayerNorm." in f".{name}"}
    affine = any(bool((read(stored) != float(name.endswith("weight"))).any()) for name, stored in norms.items())
    classifier = shapes.get(stock.get("classifier.weight", ""), (0,))
    config = read_config(read_settings(document), outputs=next(iter(classifier), 0), pooler="pooler.dense.weight" in stock, affine=affine)
    named = {name: stored for name, stored in stock.items() if affine or name not in norms}
    return config, {name if name.startswith("classifier.") else config.prefix + name: stored for name, stored in named.items()}


def document(config: BertConfig, source: Mapping[str, Any], dtype: torch.dtype, move: IdMap) -> dict[str, Any]:
    """The `config.json` of a config, with the special ids of another one, each moved; nothing else of it travels."""
    settings = library_config(config)
    settings.architectures = ["BertForSequenceClassification" if config.outputs else "BertModel"]
    settings.dtype = dtype
    for name, value in moved_ids(vars(read_settings(source)), move).items():
        setattr(settings, name, value)
    written: dict[str, Any] = json.loads(settings.to_json_string())
    return written


def stored_beside(config: BertConfig) -> dict[str, Tensor]:
    """Gain 1 and bias 0 under their names for a config without them, so that the stock class loads its weights without a warning."""
    if config.affine:
        return {}
    with_norms = BertConfig(**{**vars(config), "affine": True}).shapes
    return {
        name: torch.full(shape, 1.0 if name.endswith("weight") else 0.0) for name, shape in with_norms.items() if name not in config.shapes
    }


def read_settings(document: Mapping[str, Any]) -> Any:
    """HuggingFace's config object of a document, which fills defaults."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import BertConfig as LibraryConfig

    try:
        return LibraryConfig.from_dict(dict(document))
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise MalformedMessageError(f"config.json of a BERT: {' '.join(str(error).split()):.200}") from error


def _stock_name(name: str) -> str:
    name = name.removeprefix("bert.")
    for old, new in _OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _norms(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.LayerNorm]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.LayerNorm):
                yield parent, name, child


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None
