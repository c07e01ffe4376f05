"""LoRA on keyed weights: which factor carries which key (`specs/equivariant-encryption.md`, correction 3).

    W' + s B' A' = T_o (W + s B A) T_i^-1        A' = R A T_i^-1        B' = T_o B R^-1

R is an orthogonal key in the rank, one for each adapted layer. It cancels in the product, and training A' and B' with an optimiser that
commutes with the key is training A and B. With permutation keys R is a signed permutation, so that AdamW commutes too.

Names are those of peft's `get_peft_model_state_dict`; layers that peft saves in full (`modules_to_save`) are keyed as the model's own.
Adapters belong to the canonical model (`ee.canonical_model`), in which the gains of a Llama's norms are folded into the weights; with
`base` they belong to the model as it was published.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rexis.ee.families import family
from rexis.ee.groups import Group, Orthogonal, SignedPermutation
from rexis.ee.keys import Key
from rexis.ee.placements import Along, Placement, Read, decrypt_tensor, encrypt_tensor
from rexis.ee.site_keys import SiteKey
from rexis.errors import UnsupportedLayerError

PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


def admit_config(config: Any) -> None:
    """Return if a peft `LoraConfig` describes adapters that train alike on keyed and on plain weights.

    Raises:
        UnsupportedLayerError: dropout, whose mask is another under a key, or DoRA, whose magnitudes are norms of single rows.
    """
    if config.lora_dropout:
        raise UnsupportedLayerError(
            f"expected lora_dropout 0, got {config.lora_dropout}: a mask drops keyed features, which are other ones"
        )
    if config.use_dora:
        raise UnsupportedLayerError("DoRA scales each row of W + BA by its norm, which dense keys mix; use plain LoRA")


def encrypt_adapters(state: Mapping[str, Tensor], key: Key, *, base: nn.Module | None = None) -> dict[str, Tensor]:
    """Keyed adapters, for a keyed model, from plain ones.

    Args:
        state: by peft's names: `base_model.model.<layer>.lora_A.weight` [rank, in], `….lora_B.weight` [out, rank], and layers saved
            in full.
        base: the published plain model that the adapters belong to; None if they belong to the canonical one.

    Returns:
        Tensors of the same names, shapes and dtypes; computed in f64 and rounded once.

    Raises:
        UnsupportedLayerError: a tensor of another name, or an adapter of no linear layer; or an adapted layer whose inputs are shifted.
    """
    placed, keys = _placed(state, key, base)
    read = _reader(state, base)
    return {name: encrypt_tensor(placed[name], placed, read, keys).to(tensor.dtype).contiguous() for name, tensor in state.items()}


def decrypt_adapters(state: Mapping[str, Tensor], key: Key, *, base: nn.Module | None = None) -> dict[str, Tensor]:
    """Plain adapters from keyed ones, also after training.

    Args, Raises: as for `encrypt_adapters`.

    Raises:
        ValueError: a gain of `base` is 0, so that no adapter of it is the keyed one.
    """
    placed, keys = _placed(state, key, base)
    plain = {}
    for name, tensor in state.items():
        placement = placed[name]
        found = decrypt_tensor(placement, state.__getitem__, keys)
        if placement.gain is not None:
            gain = _reader(state, base)(placement.gain).double()
            if not gain.all():
                raise ValueError(f"{placement.gain} has a gain of 0: the adapter {name} belongs to the canonical model only")
            found = found / gain
        plain[name] = found.to(tensor.dtype).contiguous()
    return plain


def _placed(state: Mapping[str, Tensor], key: Key, base: nn.Module | None) -> tuple[dict[str, Placement], dict[str, SiteKey]]:
    """Where each tensor of the state lies, by peft's name, and the site keys with those of the ranks."""
    model = {each.name: each for each in family(key.spec).placements(key.spec.config)}
    keys, placed = dict(key.site_keys), dict[str, Placement]()
    for name, tensor in state.items():
        inner = name.removeprefix(PREFIX)
        factor = _FACTOR.fullmatch(inner)
        if factor is None:
            if inner == name or inner not in model:
                raise UnsupportedLayerError(
                    f"expected LoRA factors and layers saved in full by peft's names under {PREFIX!r}, got {name!r:.80}"
                )
            own = model[inner]
            shift = None if own.shift is None else replace(own.shift, weight=PREFIX + own.shift.weight)
            placed[name] = replace(own, name=name, source=name, gain=own.gain if base is not None else None, shift=shift)
            continue
        module = factor["module"]
        written, read = _sides(model, module, name, key)
        rank = f"{module}/rank"
        if factor["factor"] == "A":
            gain = model[f"{module}.weight"].gain if base is not None else None
            keys.setdefault(rank, _rank_key(key, module, tensor.shape[0]))
            placed[name] = Placement(name, name, (Along(rank), read), gain)
        else:
            keys.setdefault(rank, _rank_key(key, module, tensor.shape[1]))
            placed[name] = Placement(name, name, (written, Along(rank, "reads")))
    return placed, keys


def _sides(model: Mapping[str, Placement], module: str, name: str, key: Key) -> tuple[Along | None, Along | None]:
    """What acts along the rows and along the columns of an adapted layer's weight."""
    weight = model.get(f"{module}.weight")
    if weight is None or len(weight.axes) != 2 or any(along is not None and along.side == "writes" for along in weight.axes[1:]):
        raise UnsupportedLayerError(f"expected an adapter of a linear layer of the key's model, got {name!r:.80}")
    written, read = weight.axes
    if read is not None and key.site_keys[read.site].shift.any():
        raise UnsupportedLayerError(
            f"{name}: the key shifts the inputs of this layer, and the adapter has no bias to take the shift back; use mode 'train'"
        )
    return written, read


def _rank_key(key: Key, module: str, rank: int) -> SiteKey:
    group: type[Group] = SignedPermutation if key.monomial else Orthogonal
    drawn = group.draw(key.seed, f"job/{key.epoch}/adapters/{module}/rank", rank)
    return SiteKey(drawn, torch.zeros(rank, dtype=torch.float64))


def _reader(state: Mapping[str, Tensor], base: nn.Module | None) -> Read:
    plain: Callable[[str], Tensor] = state.__getitem__
    if base is None:
        return plain
    published = base.state_dict()
    return lambda name: state[name] if name in state else published[name]
