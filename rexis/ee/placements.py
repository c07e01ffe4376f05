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
class Offset:
    """W β of a LayerNorm before a linear layer, which becomes part of the layer's bias.

    Attributes:
        weight: plain weight of the layer, [out, in]; bias: β, [in].
    """

    weight: str
    bias: str


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
        offset: a bias that is folded into this one through the weight of the layer.
        flat: whether the axes are those of the tensor with all but its first joined (a convolution over patches without overlap).
    """

    name: str
    source: str
    axes: tuple[Along | None, ...]
    gain: str | None = None
    fill: float | None = None
    shift: ShiftRule | None = None
    offset: Offset | None = None
    flat: bool = False


def linear(
    name: str, source: str, target: str, *, gain: str | None = None, bias: bool = True, norm: str | None = None
) -> tuple[Placement, ...]:
    """The weight [out, in] and the bias [out] of a linear layer `name` from one site to another.

    Args:
        gain: of the RMSNorm before the layer, folded into it.
        norm: name of the LayerNorm before the layer, whose gain and bias are folded into it.
    """
    gain = gain if norm is None else f"{norm}.weight"
    offset = None if norm is None else Offset(f"{name}.weight", f"{norm}.bias")
    weight = Placement(f"{name}.weight", f"{name}.weight", (Along(target), Along(source, "reads")), gain)
    if not bias:
        return (weight,)
    shift = ShiftRule(weight.name, source, target)
    return weight, Placement(f"{name}.bias", f"{name}.bias", (Along(target),), shift=shift, offset=offset)


def canonical_tensor(placement: Placement, read: Read) -> Tensor:
    """The tensor of the canonical plain model, f64: gains folded, output head of its own."""
    # A copy: `.double()` of an f64 tensor is the tensor, and the caller's model would share its memory with the result.
    plain = read(placement.source).to(torch.float64, copy=True)
    if placement.fill is not None:
        return torch.full_like(plain, placement.fill)
    if placement.offset is not None:
        plain = plain + read(placement.offset.weight).double() @ read(placement.offset.bias).double()
    return plain if placement.gain is None else plain * read(placement.gain).double()


def encrypt_tensor(placement: Placement, placements: Mapping[str, Placement], read: Read, keys: Mapping[str, SiteKey]) -> Tensor:
    """The keyed tensor, f64.

    Args:
        placements: of all tensors, by name: a bias needs its keyed weight.
        read: gives a tensor of the plain model.
    """
    keyed = canonical_tensor(placement, read)
    shape = keyed.shape
    keyed = keyed.flatten(1) if placement.flat else keyed
    for axis, along in enumerate(placement.axes):
        if along is not None:
            keyed = _side(keys[along.site], along).apply(keyed, axis)
    rule = placement.shift
    if rule is not None:
        if keys[rule.source].shift.any():
            weight = encrypt_tensor(placements[rule.weight], placements, read, keys)
            keyed = keyed - weight.flatten(1) @ keys[rule.source].shift.to(keyed)
        keyed = keyed + keys[rule.target].shift.to(keyed)
    return keyed.reshape(shape)


def decrypt_tensor(placement: Placement, read: Read, keys: Mapping[str, SiteKey]) -> Tensor:
    """The canonical plain tensor, f64, also after training in a mode whose rules were kept.

    Args:
        read: gives a tensor of the keyed model.
    """
    plain = read(placement.name).to(torch.float64, copy=True)
    shape = plain.shape
    rule = placement.shift
    if rule is not None:
        if keys[rule.source].shift.any():
            plain = plain + read(rule.weight).double().flatten(1) @ keys[rule.source].shift.to(plain)
        plain = plain - keys[rule.target].shift.to(plain)
    plain = plain.flatten(1) if placement.flat else plain
    for axis, along in enumerate(placement.axes):
        if along is not None:
            plain = _side(keys[along.site], along).inverse().apply(plain, axis)
    return plain.reshape(shape)


def _side(key: SiteKey, along: Along) -> Transform:
    return key.transform if along.side == "writes" else key.transform.contragredient()
