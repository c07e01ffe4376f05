"""Linear layers with one elementwise activation between them; logistic regression is the smallest case.

Sites: `layer0/in`, `layer<k>/hidden` after every linear layer but the last, `layer<n>/out`. A residual join adds the hidden layer before to
the one behind, so that both have one key: there is no site of its own behind a joined layer. The keyed module is of the same classes.
"""

from rexis.ee.families.ends import Ends
from rexis.ee.placements import Along, Placement, linear
from rexis.ee.sites import Site, SiteKind
from rexis.models.mlp import LogisticConfig, MLPConfig

_KINDS = {"relu": SiteKind.HIDDEN_RELU, "leaky_relu": SiteKind.HIDDEN_RELU, "tanh": SiteKind.HIDDEN_ODD}


def canonical(config: MLPConfig | LogisticConfig) -> MLPConfig | LogisticConfig:
    """The config of the keyed model."""
    return config


def sites(config: MLPConfig | LogisticConfig) -> tuple[Site, ...]:
    """The sites of a model from input to output: one before each linear layer, which a joined one shares, and one after the last."""
    hidden = SiteKind.HIDDEN
    if isinstance(config, MLPConfig):
        hidden = SiteKind.HIDDEN_NORMALISED if config.normalisation == "layer" else _KINDS.get(config.activation, hidden)
    *between, last = config.layers
    return (
        Site("layer0/in", SiteKind.INPUT, config.inputs),
        *(Site(f"layer{number}/hidden", hidden, layer.outputs) for number, layer in enumerate(between) if not layer.joined),
        Site(f"layer{len(between)}/out", SiteKind.OUTPUT, last.outputs),
    )


def placements(config: MLPConfig | LogisticConfig) -> tuple[Placement, ...]:
    """Where each tensor lies between the sites."""
    source, *later = (site.name for site in sites(config))
    placed: list[Placement] = []
    for layer in config.layers:
        target = source if layer.joined else later.pop(0)
        placed += linear(layer.linear, source, target)
        if layer.norm is not None:
            placed += [Placement(name, name, (Along(target),)) for name in (f"{layer.norm}.weight", f"{layer.norm}.bias")]
        source = target
    return tuple(placed)


def ends(config: MLPConfig | LogisticConfig) -> Ends:
    """Feature rows go in, outputs come out."""
    names = [site.name for site in sites(config)]
    return Ends(rows=names[0], outputs=names[-1])
