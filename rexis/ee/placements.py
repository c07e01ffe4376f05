"""How each tensor of a keyed model comes from the plain one, as data: one engine for all families, in both directions, tensor by tensor.

W' = T_o W T_i^-1        b' = T_o b - W' δ_i + δ_o        (`specs/equivariant-encryption.md` 2)
W  = T_o^-1 W' T_i       b  = T_o^-1 (b' + W' δ_i - δ_o)

Everything is computed in f64 and given back in f64; the caller rounds once. A tensor asks for the others that it needs by name, so a
checkpoint that is larger than memory is keyed like one that is not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rexis.ee.groups import Transform
from rexis.ee.site_keys import SiteKey

Read = Callable[[str], Tensor]


@dataclass(frozen=True)
class Along:
    """What a key does along one axis of a tensor.

    Attributes:
        site: whose key.
        side: "writes" where the tensor's entries along the axis are coordinates of the site (T), "reads" where they are what these
            coordinates are multiplied with (T^-T).
    """

    site: str
    side: Literal["writes", "reads"] = "writes"


@dataclass(frozen=True)
class ShiftRule:
    """The shifts in a bias.

    Attributes:
        weight: keyed weight of the same layer, [out, in].
        source: site before the layer; target: site after it.
    """

    weight: str
    source: str
    target: str


@dataclass(frozen=True)
class Placement:
    """One tensor of a keyed model.

    Attributes:
        name: in the keyed model.
        source: in the plain model; another one for an output head that is no longer tied to the embedding.
        axes: for each axis what acts along it, None for nothing.
        gain: plain tensor [last axis] that is folded into this one, so that its own place holds ones.
        fill: constant that the tensor is set to, because what it held was folded elsewhere.
        shift: the bias formula.
    """

    name: str
    source: str
    axes: tuple[Along | None, ...]
    gain: str | None = None
    fill: float | None = None
    shift: ShiftRule | None = None


def linear(name: str, source: str, target: str, *, gain: str | None = None, bias: bool = True) -> tuple[Placement, ...]:
    """The weight [out, in] and the bias [out] of a linear layer `name` from one site to another."""
    weight = Placement(f"{name}.weight", f"{name}.weight", (Along(target), Along(source, "reads")), gain)
    if not bias:
        return (weight,)
    return weight, Placement(f"{name}.bias", f"{name}.bias", (Along(target),), shift=ShiftRule(weight.name, source, target))


def canonical_tensor(placement: Placement, read: Read) -> Tensor:
    """The tensor of the canonical plain model, f64: gains folded, output head of its own."""
    # A copy: `.double()` of an f64 tensor is the tensor, and the caller's model would share its memory with the result.
    plain = read(placement.source).to(torch.float64, copy=True)
    if placement.fill is not None:
        return torch.full_like(plain, placement.fill)
    return plain if placement.gain is None else plain * read(placement.gain).double()


def encrypt_tensor(placement: Placement, placements: Mapping[str, Placement], read: Read, keys: Mapping[str, SiteKey]) -> Tensor:
    """The keyed tensor, f64.

    Args:
        placements: of all tensors, by name: a bias needs its keyed weight.
        read: gives a tensor of the plain model.
    """
    keyed = canonical_tensor(placement, read)
    for axis, along in enumerate(placement.axes):
        if along is not None:
            keyed = _side(keys[along.site], along).apply(keyed, axis)
    rule = placement.shift
    if rule is not None:
        if keys[rule.source].shift.any():
            weight = encrypt_tensor(placements[rule.weight], placements, read, keys)
            keyed = keyed - weight @ keys[rule.source].shift.to(keyed)
        keyed = keyed + keys[rule.target].shift.to(keyed)
    return keyed


def decrypt_tensor(placement: Placement, read: Read, keys: Mapping[str, SiteKey]) -> Tensor:
    """The canonical plain tensor, f64, also after training in a mode whose rules were kept.

    Args:
        read: gives a tensor of the keyed model.
    """
    plain = read(placement.name).to(torch.float64, copy=True)
    rule = placement.shift
    if rule is not None:
        if keys[rule.source].shift.any():
            plain = plain + read(rule.weight).double() @ keys[rule.source].shift.to(plain)
        plain = plain - keys[rule.target].shift.to(plain)
    for axis, along in enumerate(placement.axes):
        if along is not None:
            plain = _side(keys[along.site], along).inverse().apply(plain, axis)
    return plain


def _side(key: SiteKey, along: Along) -> Transform:
    return key.transform if along.side == "writes" else key.transform.contragredient()
