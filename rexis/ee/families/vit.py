"""Vision transformers, layer norms first (`specs/equivariant-encryption.md` 2b, last lines), in HuggingFace's stock class.

Here gain and bias of a norm are read by linear layers only, so the canonical model has them folded there, holds ones and zeros in their
place, and takes dense keys that keep the mean. Its norms are not trained.

Sites: `patches` (the numbers of one patch), `residual`, for each layer `keys`, `queries`, `values` and `hidden`, and `out`. Positions keep
their places, as in BERT: what a patch shows is keyed, where it lies is not, and equal patches stay equal.
"""

from rexis.ee.families.ends import Ends
from rexis.ee.placements import Along, Placement, ShiftRule, linear
from rexis.ee.sites import Heads, Site, SiteKind
from rexis.models.vit import ViTConfig

_KINDS = {"relu": SiteKind.HIDDEN_RELU, "tanh": SiteKind.HIDDEN_ODD}


def canonical(config: ViTConfig) -> ViTConfig:
    """The config of the keyed model."""
    return config


def sites(config: ViTConfig) -> tuple[Site, ...]:
    """The sites of a model from its patches to its logits."""
    found = [
        Site("patches", SiteKind.INPUT, config.patch_width),
        Site("residual", SiteKind.RESIDUAL_PLAIN, config.hidden),
    ]
    for layer in range(config.layers):
        heads = Heads(f"layer{layer}/heads", config.heads)
        found += [
            Site(f"layer{layer}/keys", SiteKind.KEYS, config.hidden, heads),
            Site(f"layer{layer}/queries", SiteKind.KEYS, config.hidden, heads, follows=f"layer{layer}/keys"),
            Site(f"layer{layer}/values", SiteKind.VALUES, config.hidden, heads),
            Site(f"layer{layer}/hidden", _KINDS.get(config.activation, SiteKind.HIDDEN), config.intermediate),
        ]
    return (*found, Site("out", SiteKind.OUTPUT, config.outputs))


def placements(config: ViTConfig) -> tuple[Placement, ...]:
    """Where each tensor lies between the sites, in the order of the config's shapes."""
    tables = [f"vit.embeddings.{name}" for name in ("cls_token", "position_embeddings")]
    projection = "vit.embeddings.patch_embeddings.projection"
    placed = [
        *(Placement(name, name, (None, None, Along("residual"))) for name in tables),
        Placement(f"{projection}.weight", f"{projection}.weight", (Along("residual"), Along("patches", "reads")), flat=True),
        Placement(
            f"{projection}.bias",
            f"{projection}.bias",
            (Along("residual"),),
            shift=ShiftRule(f"{projection}.weight", "patches", "residual"),
        ),
    ]
    for layer in range(config.layers):
        at, site = f"vit.layers.{layer}", f"layer{layer}"
        before, after = f"{at}.layernorm_before", f"{at}.layernorm_after"
        placed += [
            *linear(f"{at}.attention.q_proj", "residual", f"{site}/queries", norm=before),
            *linear(f"{at}.attention.k_proj", "residual", f"{site}/keys", norm=before),
            *linear(f"{at}.attention.v_proj", "residual", f"{site}/values", norm=before),
            *linear(f"{at}.attention.o_proj", f"{site}/values", "residual"),
            *_folded(before),
            *_folded(after),
            *linear(f"{at}.mlp.fc1", "residual", f"{site}/hidden", norm=after),
            *linear(f"{at}.mlp.fc2", f"{site}/hidden", "residual"),
        ]
    return (*placed, *_folded("vit.layernorm"), *linear("classifier", "residual", "out", norm="vit.layernorm"))


def ends(config: ViTConfig) -> Ends:
    """Images go in, keyed patch by patch; logits come out."""
    return Ends(rows="patches", outputs="out", patch=config.patch)


def _folded(norm: str) -> tuple[Placement, ...]:
    return tuple(Placement(f"{norm}.{part}", f"{norm}.{part}", (None,), fill=value) for part, value in (("weight", 1.0), ("bias", 0.0)))
