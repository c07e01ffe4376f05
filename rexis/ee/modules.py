"""A whole torch module keyed, unkeyed or brought to its canonical form, tensor by tensor in f64, each rounded once."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rexis.ee.families import canonical_spec, family
from rexis.ee.placements import Placement, canonical_tensor, decrypt_tensor, encrypt_tensor
from rexis.ee.site_keys import SiteKey
from rexis.models.builders import assemble, describe
from rexis.models.modules import special_ids
from rexis.models.spec import ModelSpec

Progress = Callable[[int, int], None]


def encrypt(model: nn.Module, keys: Mapping[str, SiteKey], progress: Progress | None = None) -> nn.Module:
    """The keyed copy of a plain module; `keys` has every site of its canonical spec."""
    state, spec = model.state_dict(), describe(model)
    placed = {each.name: each for each in family(spec).placements(spec.config)}
    keyed = _assembled(model, spec, lambda each: encrypt_tensor(each, placed, state.__getitem__, keys), progress)
    return _with_ids(model, keyed, spec, lambda site: keys[site].encrypt_ids)


def decrypt(model: nn.Module, keys: Mapping[str, SiteKey], progress: Progress | None = None) -> nn.Module:
    """The canonical plain copy of a keyed module."""
    state, spec = model.state_dict(), describe(model)
    plain = _assembled(model, spec, lambda each: decrypt_tensor(each, state.__getitem__, keys), progress)
    return _with_ids(model, plain, spec, lambda site: keys[site].decrypt_ids)


def canonical(model: nn.Module) -> nn.Module:
    """The same function with gains folded and output heads untied."""
    state, spec = model.state_dict(), describe(model)
    plain = _assembled(model, spec, lambda each: canonical_tensor(each, state.__getitem__), None)
    return _with_ids(model, plain, spec, lambda site: torch.clone)


def _assembled(model: nn.Module, spec: ModelSpec, tensor: Callable[[Placement], Tensor], progress: Progress | None) -> nn.Module:
    placements = family(spec).placements(spec.config)
    state, result = model.state_dict(), dict[str, Tensor]()
    for done, each in enumerate(placements):
        if progress is not None:
            progress(done, len(placements))
        # A transform along rows leaves a transposed layout behind, which the forward pass would pay for: 1.4 times its time.
        result[each.name] = tensor(each).to(state[each.source].dtype).contiguous()
    if progress is not None:
        progress(len(placements), len(placements))
    # A new module, not a copy: hooks and attributes of the caller's model do not travel with the keyed weights.
    module = assemble(canonical_spec(spec), result).train(model.training)
    for each in placements:
        if each.fill is not None:
            # What it held was folded into other tensors: trained by itself it would be another model, and would not commute with a key.
            module.get_parameter(each.name).requires_grad_(False)
    return module


def _with_ids(source: nn.Module, target: nn.Module, spec: ModelSpec, moved: Callable[[str], Callable[[Tensor], Tensor]]) -> nn.Module:
    """Special ids are ids of the vocabulary: where it is permuted they move along."""
    site = family(spec).ends(spec.config).ids
    if site is not None:
        special_ids.carry(source, target, lambda token: int(moved(site)(torch.tensor(token))))
    return target
