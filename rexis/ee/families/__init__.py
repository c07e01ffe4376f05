"""One module for each family of models, all with the same functions of a config: `canonical`, `sites`, `placements`, `ends`.

`family` gives the module of a spec. A family says where keys act; what a key may be there is the site table's part, and the arithmetic
that of `placements`.
"""

from types import ModuleType

from rexis.ee.families import bert, llama, mlp, vit
from rexis.errors import UnsupportedLayerError
from rexis.models.spec import ModelSpec

_FAMILIES: dict[str, ModuleType] = {"mlp": mlp, "logistic": mlp, "bert": bert, "llama": llama, "vit": vit}


def family(spec: ModelSpec) -> ModuleType:
    """The module of a spec's family.

    Raises:
        UnsupportedLayerError: the family has no equivariant transform.
    """
    if spec.family not in _FAMILIES:
        hint = "; `rexis federation model --with-bias` writes a Cox model as a logistic one" if spec.family == "cox" else ""
        raise UnsupportedLayerError(f"expected a family among {', '.join(_FAMILIES)}, got {spec.family}{hint}")
    return _FAMILIES[spec.family]


def canonical_spec(spec: ModelSpec) -> ModelSpec:
    """The spec of the keyed model: that of the plain one, but for what keying has to undo (tied heads)."""
    return ModelSpec(family(spec).canonical(spec.config))
