"""Linear layers with one elementwise activation between them; logistic regression is the smallest case.

Sites: `layer0/in`, `layer<k>/hidden` after every linear layer but the last, `layer<n>/out`. The keyed module is of the same stock classes.
"""

from itertools import pairwise

from rexis.ee.families.ends import Ends
from rexis.ee.placements import Placement, linear
from rexis.ee.sites import Site, SiteKind
from rexis.models.mlp import LogisticConfig, MLPConfig

_KINDS = {"relu": SiteKind.HIDDEN_RELU, "tanh": SiteKind.HIDDEN_ODD}


def canonical(config: MLPConfig | LogisticConfig) -> MLPConfig | LogisticConfig:
    """The config of the keyed model."""
    return config


def sites(config: MLPConfig | LogisticConfig) -> tuple[Site, ...]:
    """The sites of a model from input to output: one before each linear layer, and one after the last."""
    hidden = _KINDS.get(config.activation, SiteKind.HIDDEN) if isinstance(config, MLPConfig) else SiteKind.HIDDEN
    inputs, *between, outputs = config.widths
    return (
        Site("layer0/in", SiteKind.INPUT, inputs),
        *(Site(f"layer{layer}/hidden", hidden, width) for layer, width in enumerate(between)),
        Site(f"layer{len(between)}/out", SiteKind.OUTPUT, outputs),
    )


def placements(config: MLPConfig | LogisticConfig) -> tuple[Placement, ...]:
    """Where each tensor lies between the sites."""
    names = [site.name for site in sites(config)]
    layers = [linear(str(2 * layer), source, target) for layer, (source, target) in enumerate(pairwise(names))]
    return tuple(placement for layer in layers for placement in layer)


def ends(config: MLPConfig | LogisticConfig) -> Ends:
    """Feature rows go in, outputs come out."""
    names = [site.name for site in sites(config)]
    return Ends(rows=names[0], outputs=names[-1])
