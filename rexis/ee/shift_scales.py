"""How large shifts are: a power of two below what stands at their sites.

δ adds one to the pairs that give a key away and hides nothing else, while the float error grows with it, relative to what it is added to.
Beside standardised features it is normal with standard deviation `DEVIATION`: 1.4 times the plain model's own error, up to 3 times at 1.
Logits of a BERT that was never trained are 50 times smaller, and under the same δ would be off by up to 9 times the plain model's own
error in f32, and by a tenth of their size in bf16.

What stands at a site is estimated from the weights before it, for rows of size one: no data are needed, and a power of two is enough. It
is only ever made smaller. A provider reads from the keyed biases at most that power of two, once for each kind of site; under orthogonal
keys it has more already, because they leave the norms of weights as they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from types import MappingProxyType
from typing import Any, Self

from rexis.ee.families import family
from rexis.ee.placements import Placement, Read, canonical_tensor
from rexis.ee.sites import Site, SiteKind
from rexis.models.spec import ModelSpec

# Standard deviation of δ for standardised features.
DEVIATION = 0.5
SMALLEST = -32

_PARTS: Mapping[SiteKind, str] = MappingProxyType(
    {SiteKind.KEYS: "keys", SiteKind.VALUES: "values", SiteKind.OUTPUT: "outputs", SiteKind.RETURNED: "outputs"}
)
# Between these and the layer that reads them stands a norm, or rows are standardised.
_OF_SIZE_ONE = {SiteKind.INPUT, SiteKind.HIDDEN_NORMALISED, SiteKind.RESIDUAL_AFFINE, SiteKind.RESIDUAL_PLAIN, SiteKind.RESIDUAL_RMS}


@dataclass(frozen=True)
class ShiftScales:
    """Exponents of two by which δ is smaller than for standardised features; one for each kind of site, for that of the smallest layer.

    Attributes:
        keys: of attention; queries have no shift.
        values: of attention.
        outputs: logits, regression outputs.
    """

    keys: int = 0
    values: int = 0
    outputs: int = 0

    def __post_init__(self) -> None:
        for exponent in astuple(self):
            if type(exponent) is not int or not SMALLEST <= exponent <= 0:
                raise ValueError(f"shifts: expected exponents of {SMALLEST} to 0, got {exponent!r:.40}")

    @classmethod
    def of_weights(cls, plain: ModelSpec, shifted: Sequence[Site], read: Read) -> Self:
        """The scales that fit a model; those of kinds that have no shift stay 0.

        Args:
            plain: spec of the model as it is.
            shifted: sites whose key has a shift.
            read: gives a tensor of it.
        """
        parts = {site.name: _PARTS[site.kind] for site in shifted if site.kind in _PARTS}
        if not parts:
            return cls()
        exponents: dict[str, int] = {}
        for name, variance in _variances(plain, read).items():
            if name in parts:
                exponents[parts[name]] = min(exponents.get(parts[name], 0), _exponent(variance))
        return cls(**exponents)

    @classmethod
    def parse(cls, document: Any) -> Self:
        """What `document` gave.

        Raises:
            ValueError: anything else.
        """
        if not isinstance(document, list) or len(document) != len(astuple(cls())):
            raise ValueError(f"shifts: expected a list of {len(astuple(cls()))} exponents, got {document!r:.40}")
        return cls(*document)

    def document(self) -> list[int]:
        """For a key file."""
        return list(astuple(self))

    def deviation(self, site: Site) -> float:
        """Standard deviation of the entries of δ at a site."""
        return math.ldexp(DEVIATION, getattr(self, _PARTS[site.kind]) if site.kind in _PARTS else 0)


def _variances(plain: ModelSpec, read: Read) -> dict[str, float]:
    """Mean square of what linear layers write to each site."""
    kinds: dict[str, SiteKind] = {site.name: site.kind for site in family(plain).sites(plain.config)}
    found: dict[str, float] = {}
    for each in family(plain).placements(plain.config):
        source, target = _linear(each) or (None, None if each.shift is None else each.shift.target)
        if target is None or kinds[target] in _OF_SIZE_ONE:
            continue
        tensor = canonical_tensor(each, read)
        mean = tensor.square().sum().item() / len(tensor)
        gain = 1.0 if source is None else _passed(kinds[source], found.get(source, 1.0))
        found[target] = found.get(target, 0.0) + mean * gain
    return found


def _linear(each: Placement) -> tuple[str, str] | None:
    """The sites before and after a layer whose weight this is."""
    if len(each.axes) != 2 or each.axes[0] is None or each.axes[1] is None or each.axes[1].side != "reads":
        return None
    return each.axes[1].site, each.axes[0].site


def _passed(kind: SiteKind, variance: float) -> float:
    """Mean square behind the activation at a site: tanh stays below 1, the others lose half of what is symmetric about 0."""
    if kind in _OF_SIZE_ONE:
        return 1.0
    return min(variance, 1.0) if kind is SiteKind.HIDDEN_ODD else variance / 2


def _exponent(variance: float) -> int:
    if not variance > 0:
        return SMALLEST if variance == 0 else 0
    return max(SMALLEST, min(0, math.floor(math.log2(variance) / 2))) if math.isfinite(variance) else 0
