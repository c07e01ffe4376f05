"""Which optimiser commutes with which keys: one table (`specs/equivariant-encryption.md` 2d).

With W' = T_o W T_i^-1 the gradient is dL/dW' = T_o^-T (dL/dW) T_i^T, so a step on keyed weights is the keyed step on plain weights if every
key is orthogonal, no shift stands before trained weights, and the rule that turns gradients into steps commutes with T_o · T_i^T. An
optimiser outside its rule trains another model in silence (elementwise Adam under dense keys ends 9e-2 away), so it is refused here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rexis.ee.families import family
from rexis.ee.groups import Group, HeadBlocks, Transform
from rexis.ee.keys import Key
from rexis.ee.optimizers.muon import Muon
from rexis.ee.optimizers.per_tensor_adam import PerTensorAdam
from rexis.ee.placements import Placement
from rexis.errors import UnsupportedOptimizerError


class Commutes(Enum):
    """With which keys a rule commutes."""

    ORTHOGONAL = "orthogonal keys"
    MONOMIAL = "permutations and signs"
    NOTHING = "no keys"


@dataclass(frozen=True)
class OptimizerRule:
    """What an optimiser, or a change to its gradients, admits.

    Attributes:
        commutes: the largest group of keys.
        reason: why not more.
    """

    commutes: Commutes
    reason: str


_LINEAR = OptimizerRule(Commutes.ORTHOGONAL, "it is linear in the gradients")
_ELEMENTWISE = OptimizerRule(Commutes.MONOMIAL, "a second moment for each entry follows permutations and signs only")

RULES: Mapping[str, OptimizerRule] = MappingProxyType(
    {
        "sgd": _LINEAR,
        "adamw": _ELEMENTWISE,
        "adam-per-tensor": OptimizerRule(Commutes.ORTHOGONAL, "its one second moment is the norm of a tensor, which orthogonal keys keep"),
        "muon": OptimizerRule(Commutes.ORTHOGONAL, "its step is a polynomial in G Gᵗ times G"),
        "torch.optim.Muon": OptimizerRule(Commutes.NOTHING, "it iterates in bfloat16, whose rounding depends on the basis; take 'muon'"),
        "gradient norm clipping": OptimizerRule(Commutes.ORTHOGONAL, "orthogonal keys keep norms"),
        "gradient value clipping": OptimizerRule(
            Commutes.MONOMIAL, "bounds on single entries follow permutations and signs only; clip the norm instead"
        ),
    }
)

_RULE_OF_CLASS: Mapping[type[Optimizer], str] = MappingProxyType(
    {
        torch.optim.SGD: "sgd",
        torch.optim.AdamW: "adamw",
        torch.optim.Adam: "adamw",
        torch.optim.Adagrad: "adamw",
        torch.optim.RMSprop: "adamw",
        torch.optim.Muon: "torch.optim.Muon",
        PerTensorAdam: "adam-per-tensor",
        Muon: "muon",
    }
)


def admit(name: str, key: Key) -> None:
    """Return if an optimiser, or a change to its gradients, commutes with a key.

    Args:
        name: one of `RULES`.

    Raises:
        UnsupportedOptimizerError: it does not; the message gives the rule and its reason.
    """
    if name not in RULES:
        raise UnsupportedOptimizerError(f"expected an optimiser among {', '.join(RULES)}, got {name!r:.40}: no rule is known for others")
    rule = RULES[name]
    if key.mode != "train":
        raise UnsupportedOptimizerError(
            f"{name}: expected a key of mode 'train', got mode {key.mode!r}: "
            "under its shifts and scales training on keyed weights is another training"
        )
    for site, site_key in key.site_keys.items():
        if not _orthogonal(site_key.transform):
            raise UnsupportedOptimizerError(
                f"{name}: site {site} has a {type(site_key.transform).__name__} key, training admits orthogonal keys: "
                "a scale there multiplies the learning rate of its layers"
            )
    if rule.commutes is Commutes.NOTHING or (rule.commutes is Commutes.MONOMIAL and not key.monomial):
        raise UnsupportedOptimizerError(
            f"{name} commutes with {rule.commutes.value}, got suite {key.suite!r}: {rule.reason}"
            + ("" if rule.commutes is Commutes.NOTHING else "; take suite 'permutation', or 'sgd', 'adam-per-tensor' or 'muon'")
        )


def admit_optimizer(optimizer: Optimizer, key: Key) -> None:
    """Return if an optimiser that exists, torch's own or one of this package, steps alike on keyed and on plain weights.

    Raises:
        UnsupportedOptimizerError: its rule does not commute with the key, it trains a gain that was folded elsewhere, or it decays a bias
            that carries a shift.
    """
    kind = type(optimizer)
    if kind not in _RULE_OF_CLASS:
        raise UnsupportedOptimizerError(f"no rule is known for {kind.__module__}.{kind.__name__}; use ee.optimizer")
    admit(_RULE_OF_CLASS[kind], key)
    admit_trained(optimizer.param_groups, key)
    admit_decay(optimizer.param_groups, key)


def admit_trained(groups: Iterable[Mapping[str, Any]], key: Key) -> None:
    """Return if no trained parameter holds a constant of the keyed model, such as the ones where a folded gain was.

    Args:
        groups: `Optimizer.param_groups`; only parameters with names (`param_names`) are asked, and frozen ones pass.

    Raises:
        UnsupportedOptimizerError: one does.
    """
    constant = {each.name for each in _placements(key) if each.fill is not None}
    for group in groups:
        for name, parameter in zip(group.get("param_names", ()), group["params"], strict=False):
            if name in constant and parameter.requires_grad:
                raise UnsupportedOptimizerError(
                    f"{name} is folded into the layers that read it, and trained again it would act on keyed coordinates: freeze it"
                )


def admit_decay(groups: Iterable[Mapping[str, Any]], key: Key) -> None:
    """Return if weight decay leaves out every bias that carries a shift δ.

    Decay draws b' = T b + δ towards 0 where the plain run draws b towards 0. Decay of the weight alone is exact.

    Args:
        groups: `Optimizer.param_groups`; with names (`param_names`) only the biases that carry a shift must be left out, without names
            every vector.

    Raises:
        UnsupportedOptimizerError: such a bias decays.
    """
    if not any(bool(site.shift.any()) for site in key.site_keys.values()):
        return
    shifted = shifted_parameters(key)
    for group in groups:
        if not group["weight_decay"]:
            continue
        parameters: list[Tensor] = group["params"]
        names: list[str | None] = list(group.get("param_names", [None] * len(parameters)))
        for name, parameter in zip(names, parameters, strict=True):
            if parameter.requires_grad and parameter.ndim == 1 and (name is None or name in shifted):
                raise UnsupportedOptimizerError(
                    f"weight decay {group['weight_decay']} on {name or 'a vector without a name'}: the key shifts this bias, and decay "
                    "would pull the shift towards 0; give biases a group of their own with weight_decay=0"
                )


def shifted_parameters(key: Key) -> frozenset[str]:
    """Names of the keyed biases that carry a shift of their own (δ of the site that they write)."""
    return frozenset(
        each.name for each in _placements(key) if each.shift is not None and bool(key.site_keys[each.shift.target].shift.any())
    )


def _placements(key: Key) -> tuple[Placement, ...]:
    placed: tuple[Placement, ...] = family(key.spec).placements(key.spec.config)
    return placed


def _orthogonal(transform: Transform) -> bool:
    if isinstance(transform, HeadBlocks):
        return all(_orthogonal(block) for block in transform.blocks)
    return isinstance(transform, Group) and transform.orthogonal
