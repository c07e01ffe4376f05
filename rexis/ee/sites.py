"""Where a key acts, and the largest key group that each place admits (`specs/equivariant-encryption.md` 2a).

A site is a place between two layers at which the encrypted model sees x' = T x + δ instead of x. Encryption passes through a
nonlinearity only if the nonlinearity commutes with T, and the optimiser's step only if T is orthogonal and δ = 0 before trained weights;
a key outside its rule would give wrong numbers in silence, so it is refused here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from rexis.ee import derivation
from rexis.ee.groups import GROUPS, Orthogonal, Permutation, SignedPermutation, Transform
from rexis.errors import UnsupportedLayerError

Mode = Literal["infer", "train"]

# Standard deviation of δ for standardised features. δ adds one to the pairs that give a key away and hides nothing else, while the
# float error grows with it: 1.4 times the plain model's own at 1/2, up to 3 times at 1.
SHIFT_SCALE = 0.5


class SiteKind(Enum):
    """What stands at a site."""

    INPUT = "feature rows"
    HIDDEN = "an elementwise activation"
    HIDDEN_ODD = "an odd elementwise activation"
    OUTPUT = "logits or regression outputs"


@dataclass(frozen=True)
class SiteRule:
    """What a site admits in a mode.

    Attributes:
        largest: the largest admitted group; smaller ones are admitted too.
        shift: whether δ ≠ 0 is admitted.
        reason: why not more.
    """

    largest: type[Transform]
    shift: bool
    reason: str


_ELEMENTWISE = SiteRule(Permutation, shift=False, reason="an elementwise function commutes with permutations only")
_ODD = SiteRule(SignedPermutation, shift=False, reason="an odd elementwise function commutes with signed permutations only")

RULES: Mapping[tuple[SiteKind, Mode], SiteRule] = MappingProxyType(
    {
        (SiteKind.INPUT, "infer"): SiteRule(Orthogonal, shift=True, reason="keys are orthogonal"),
        (SiteKind.INPUT, "train"): SiteRule(Orthogonal, shift=False, reason="a shift before trained weights is training on shifted data"),
        (SiteKind.HIDDEN, "infer"): _ELEMENTWISE,
        (SiteKind.HIDDEN, "train"): _ELEMENTWISE,
        (SiteKind.HIDDEN_ODD, "infer"): _ODD,
        (SiteKind.HIDDEN_ODD, "train"): _ODD,
        (SiteKind.OUTPUT, "infer"): SiteRule(Orthogonal, shift=True, reason="keys are orthogonal"),
        (SiteKind.OUTPUT, "train"): SiteRule(
            Permutation, shift=False, reason="the provider's cross-entropy is invariant to class order only"
        ),
    }
)


@dataclass(frozen=True)
class Site:
    """A place in a model.

    Attributes:
        name: part of the derivation label, `layer0/in`.
        dimension: width d there.
    """

    name: str
    kind: SiteKind
    dimension: int

    def admit(self, group: type[Transform], *, shift: bool, mode: Mode) -> None:
        """Return if the rule of this site admits such a key.

        Raises:
            UnsupportedLayerError: it does not; the message gives the rule and its reason.
        """
        rule = RULES[self.kind, mode]
        if GROUPS.index(group) > GROUPS.index(rule.largest) or (shift and not rule.shift):
            raise UnsupportedLayerError(
                f"site {self.name} ({self.kind.value}, mode {mode}) admits {_described(rule.largest, rule.shift)}, "
                f"got {_described(group, shift)}: {rule.reason}"
            )


def _described(group: type[Transform], shift: bool) -> str:
    return f"{group.__name__} keys {'with' if shift else 'without'} a shift"


@dataclass(frozen=True, eq=False)
class SiteKey:
    """x' = T x + δ at one site.

    Attributes:
        transform: T.
        shift: δ, f64 [d]; zeros where there is none.
    """

    transform: Transform
    shift: Tensor

    @classmethod
    def draw(cls, seed: bytes, label: str, site: Site, group: type[Transform], *, shift: bool, mode: Mode) -> "SiteKey":
        """The key of a site under `label`; entries of δ are normal with standard deviation `SHIFT_SCALE`.

        Raises:
            UnsupportedLayerError: the site's rule does not admit the group or the shift.
        """
        site.admit(group, shift=shift, mode=mode)
        delta = torch.zeros(site.dimension, dtype=torch.float64)
        if shift:
            delta = SHIFT_SCALE * torch.from_numpy(derivation.gaussian(seed, f"{label}/shift", site.dimension))
        return cls(group.draw(seed, label, site.dimension), delta)

    def encrypt(self, x: Tensor) -> Tensor:
        """T x + δ over the last axis; `x` is f64."""
        return self.transform.apply(x) + self.shift.to(x.device)

    def decrypt(self, x: Tensor) -> Tensor:
        """T^-1 (x - δ) over the last axis; `x` is f64."""
        return self.transform.inverse().apply(x - self.shift.to(x.device))
