"""A whole torch module keyed, unkeyed or brought to its canonical form, tensor by tensor in f64, each rounded once."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from rexis.ee.families import canonical_spec, family
from rexis.ee.placements import Placement, canonical_tensor, decrypt_tensor, encrypt_tensor
from rexis.ee.site_keys import SiteKey
from rexis.models.builders import assemble, describe
from rexis.models.spec import ModelSpec

Progress = Callable[[int, int], None]


def encrypt(model: nn.Module, keys: Mapping[str, SiteKey], progress: Progress | None = None) -> nn.Module:
    """The keyed copy of a plain module; `keys` has every site of its canonical spec."""
    state, spec = model.state_dict(), describe(model)
    placed = {each.name: each for each in family(spec).placements(spec.config)}
    return _assembled(model, spec, lambda each: encrypt_tensor(each, placed, state.__getitem__, keys), progress)


def decrypt(model: nn.Module, keys: Mapping[str, SiteKey], progress: Progress | None = None) -> nn.Module:
    """The canonical plain copy of a keyed module."""
    state = model.state_dict()
    return _assembled(model, describe(model), lambda each: decrypt_tensor(each, state.__getitem__, keys), progress)


def canonical(model: nn.Module) -> nn.Module:
    """The same function with gains folded and output heads untied."""
    state = model.state_dict()
    return _assembled(model, describe(model), lambda each: canonical_tensor(each, state.__getitem__), None)


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
    return assemble(canonical_spec(spec), result).train(model.training)
