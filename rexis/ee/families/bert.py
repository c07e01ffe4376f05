"""Post-layer-norm encoders with learned positions (`specs/equivariant-encryption.md` 2b): HuggingFace's BERT, in the stock class.

Sites: `vocabulary`; one `residual` for the whole stream, because residual sums join it; for each layer its `keys`, the `queries` that
follow them, its `values` and its `hidden` units; `pooler` and `out`. The heads of a layer have one order at its three sites. Positions
and token types keep their rows, which the stock class counts by itself; only their coordinates are keyed.

Gain and bias of a layer norm lie on the residual stream and can not be folded into a neighbour, so that with them the stream admits
permutations only. A stream whose norms have neither takes dense keys that keep the mean.
"""

from rexis.ee.families.ends import Ends
from rexis.ee.placements import Along, Placement, linear
from rexis.ee.sites import Heads, Site, SiteKind
from rexis.models.bert import BertConfig

_KINDS = {"relu": SiteKind.HIDDEN_RELU, "tanh": SiteKind.HIDDEN_ODD}


def canonical(config: BertConfig) -> BertConfig:
    """The config of the keyed model."""
    return config


def sites(config: BertConfig) -> tuple[Site, ...]:
    """The sites of a model from its ids to its outputs."""
    stream = SiteKind.RESIDUAL_AFFINE if config.affine else SiteKind.RESIDUAL_PLAIN
    found = [Site("vocabulary", SiteKind.VOCABULARY, config.vocabulary), Site("residual", stream, config.hidden)]
    for layer in range(config.layers):
        heads = Heads(f"layer{layer}/heads", config.heads)
        found += [
            Site(f"layer{layer}/keys", SiteKind.KEYS, config.hidden, heads),
            Site(f"layer{layer}/queries", SiteKind.KEYS, config.hidden, heads, follows=f"layer{layer}/keys"),
            Site(f"layer{layer}/values", SiteKind.VALUES, config.hidden, heads),
            Site(f"layer{layer}/hidden", _KINDS.get(config.activation, SiteKind.HIDDEN), config.intermediate),
        ]
    if config.pooler:
        found.append(Site("pooler", SiteKind.HIDDEN_ODD, config.hidden))
    if config.outputs:
        found.append(Site("out", SiteKind.OUTPUT, config.outputs))
    return tuple(found)


def placements(config: BertConfig) -> tuple[Placement, ...]:
    """Where each tensor lies between the sites, in the order of the config's shapes."""
    at = config.prefix
    embeddings = f"{at}embeddings"
    placed = [
        _table(f"{embeddings}.word_embeddings", Along("vocabulary")),
        _table(f"{embeddings}.position_embeddings", None),
        _table(f"{embeddings}.token_type_embeddings", None),
        *_norm(config, f"{embeddings}.LayerNorm"),
    ]
    for layer in range(config.layers):
        block, site = f"{at}encoder.layer.{layer}", f"layer{layer}"
        placed += [
            *linear(f"{block}.attention.self.query", "residual", f"{site}/queries"),
            *linear(f"{block}.attention.self.key", "residual", f"{site}/keys"),
            *linear(f"{block}.attention.self.value", "residual", f"{site}/values"),
            *linear(f"{block}.attention.output.dense", f"{site}/values", "residual"),
            *_norm(config, f"{block}.attention.output.LayerNorm"),
            *linear(f"{block}.intermediate.dense", "residual", f"{site}/hidden"),
            *linear(f"{block}.output.dense", f"{site}/hidden", "residual"),
            *_norm(config, f"{block}.output.LayerNorm"),
        ]
    if config.pooler:
        placed += linear(f"{at}pooler.dense", "residual", "pooler")
    if config.outputs:
        placed += linear("classifier", "pooler", "out")
    return tuple(placed)


def ends(config: BertConfig) -> Ends:
    """Token ids or embeddings go in; logits come out, or hidden states of the encoder alone."""
    return Ends(rows="residual", ids="vocabulary", outputs="out" if config.outputs else "residual")


def _table(name: str, rows: Along | None) -> Placement:
    return Placement(f"{name}.weight", f"{name}.weight", (rows, Along("residual")))


def _norm(config: BertConfig, name: str) -> tuple[Placement, ...]:
    if not config.affine:
        return ()
    return tuple(Placement(f"{name}.{part}", f"{name}.{part}", (Along("residual"),)) for part in ("weight", "bias"))
