"""Where a key acts, and the key groups that each place admits (`specs/equivariant-encryption.md` 2a).

A site is a place between two layers at which the encrypted model sees x' = T x + δ instead of x. Encryption passes through a
nonlinearity only if the nonlinearity commutes with T, and the optimiser's step only if T is orthogonal and δ = 0 before trained weights;
a key outside its rule would give wrong numbers in silence, so it is refused here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Literal

from rexis.ee.groups import (
    FastOrthogonal,
    Group,
    Linear,
    MeanPreserving,
    MonomialScaling,
    Orthogonal,
    Permutation,
    PlaneRotations,
    PlaneScalings,
    QuarterTurns,
    ScaledPermutation,
    SignedPermutation,
)
from rexis.errors import UnsupportedLayerError

Mode = Literal["infer", "train"]
Suite = Literal["dense", "permutation", "inputs"]


class SiteKind(Enum):
    """What stands at a site."""

    INPUT = "feature rows"
    HIDDEN = "an elementwise activation"
    HIDDEN_RELU = "a ReLU or LeakyReLU"
    HIDDEN_ODD = "an odd elementwise activation"
    HIDDEN_NORMALISED = "a LayerNorm and an elementwise activation"
    OUTPUT = "logits or regression outputs"
    RETURNED = "outputs whose gradient the owner returns"
    VOCABULARY = "token ids"
    RESIDUAL_AFFINE = "a residual stream under LayerNorm with γ and β"
    RESIDUAL_PLAIN = "a residual stream under LayerNorm without γ and β"
    RESIDUAL_RMS = "a residual stream under RMSNorm"
    KEYS = "queries and keys of attention"
    KEYS_ROTARY = "queries and keys under rotary positions"
    VALUES = "values of attention"
    GATE = "the gate of a gated unit"
    GATED = "the linear half of a gated unit"


@dataclass(frozen=True)
class SiteRule:
    """What a site admits in a mode.

    Attributes:
        groups: the admitted groups, from the smallest to the largest; at heads, those of a head's block.
        shift: whether δ ≠ 0 is admitted.
        reason: why not more.
        dense: whether suite "dense" has anything to offer here; if not it is refused for the whole model.
    """

    groups: tuple[type[Group], ...]
    shift: bool
    reason: str
    dense: bool = True

    def group(self, suite: Suite, condition: float) -> type[Group]:
        """The group that a suite draws from: the smallest, or the largest (orthogonal, if condition numbers above 1 are not wanted)."""
        if suite == "permutation":
            return self.groups[0]
        return [group for group in self.groups if group.orthogonal or condition > 1][-1]


def _rule(*groups: type[Group], shift: bool = False, reason: str, dense: bool = True) -> SiteRule:
    return SiteRule(groups, shift, reason, dense)


_ROTATIONS = (Permutation, SignedPermutation, Orthogonal)
_STEP = "an optimiser's step commutes with orthogonal keys without shifts only"
_ANY = "the condition number of a key is bounded, because the float error grows with it"
_RELU = "ReLU commutes with permutations and positive scales only"
_ELEMENTWISE = _rule(Permutation, reason="an elementwise function commutes with permutations only")
_ODD = _rule(Permutation, SignedPermutation, reason="an odd elementwise function commutes with signed permutations only")
_NORMALISED = _rule(
    Permutation, reason="LayerNorm subtracts the mean, which signs and scales do not keep, and its weights are coordinates'"
)
_IDS = _rule(Permutation, reason="ids have no arithmetic")
_AFFINE = _rule(
    Permutation,
    reason="γ acts on coordinates, so that the stock kernel is exact under permutations only; a dense key would need the matrix "
    "Q diag(γ) Q^T beside the weights, whose eigenvectors are the key (tests/attacks/test_norm_eigenvectors.py)",
    dense=False,
)
_PLAIN = _rule(Permutation, MeanPreserving, reason="LayerNorm subtracts the mean, so that T 1 = 1 is needed")
_RMS = _rule(*_ROTATIONS, reason="RMSNorm keeps the norm, and a scale would have to move into its epsilon")
_ROTARY_REASON = "rotary planes have different frequencies, so that each keeps its place and takes one complex number"
_GATE = _rule(Permutation, reason="the gate's activation commutes with permutations only")

RULES: Mapping[tuple[SiteKind, Mode], SiteRule] = MappingProxyType(
    {
        (SiteKind.INPUT, "infer"): _rule(*_ROTATIONS, Linear, shift=True, reason=_ANY),
        (SiteKind.INPUT, "train"): _rule(*_ROTATIONS, reason="a shift before trained weights is training on shifted data, and " + _STEP),
        (SiteKind.HIDDEN, "infer"): _ELEMENTWISE,
        (SiteKind.HIDDEN, "train"): _ELEMENTWISE,
        (SiteKind.HIDDEN_RELU, "infer"): _rule(Permutation, ScaledPermutation, reason=_RELU),
        (SiteKind.HIDDEN_RELU, "train"): _rule(Permutation, reason=f"{_RELU}, and {_STEP}"),
        (SiteKind.HIDDEN_ODD, "infer"): _ODD,
        (SiteKind.HIDDEN_ODD, "train"): _ODD,
        (SiteKind.HIDDEN_NORMALISED, "infer"): _NORMALISED,
        (SiteKind.HIDDEN_NORMALISED, "train"): _NORMALISED,
        (SiteKind.OUTPUT, "infer"): _rule(*_ROTATIONS, Linear, shift=True, reason=_ANY),
        (SiteKind.OUTPUT, "train"): _rule(Permutation, reason="the provider's cross-entropy is invariant to class order only"),
        (SiteKind.RETURNED, "train"): _rule(*_ROTATIONS, shift=True, reason=_STEP),
        (SiteKind.VOCABULARY, "infer"): _IDS,
        (SiteKind.VOCABULARY, "train"): _IDS,
        (SiteKind.RESIDUAL_AFFINE, "infer"): _AFFINE,
        (SiteKind.RESIDUAL_AFFINE, "train"): _AFFINE,
        (SiteKind.RESIDUAL_PLAIN, "infer"): _PLAIN,
        (SiteKind.RESIDUAL_PLAIN, "train"): _PLAIN,
        (SiteKind.RESIDUAL_RMS, "infer"): _RMS,
        (SiteKind.RESIDUAL_RMS, "train"): _RMS,
        (SiteKind.KEYS, "infer"): _rule(*_ROTATIONS, Linear, shift=True, reason=_ANY),
        (SiteKind.KEYS, "train"): _rule(*_ROTATIONS, reason=_STEP),
        (SiteKind.KEYS_ROTARY, "infer"): _rule(QuarterTurns, PlaneRotations, PlaneScalings, reason=_ROTARY_REASON),
        (SiteKind.KEYS_ROTARY, "train"): _rule(QuarterTurns, PlaneRotations, reason=f"{_ROTARY_REASON}, and {_STEP}"),
        (SiteKind.VALUES, "infer"): _rule(*_ROTATIONS, Linear, shift=True, reason=_ANY),
        (SiteKind.VALUES, "train"): _rule(*_ROTATIONS, reason=_STEP),
        (SiteKind.GATE, "infer"): _GATE,
        (SiteKind.GATE, "train"): _GATE,
        (SiteKind.GATED, "infer"): _rule(
            Permutation, SignedPermutation, MonomialScaling, reason="the product with the gate commutes with diagonal matrices only"
        ),
        (SiteKind.GATED, "train"): _rule(
            Permutation, SignedPermutation, reason="the product with the gate commutes with diagonal matrices only, and " + _STEP
        ),
    }
)


@dataclass(frozen=True)
class Heads:
    """The attention that a site belongs to: its heads have one order at all sites.

    Attributes:
        order: label of the order.
        groups: heads of keys and values.
        queries: query heads to each of them.
        expanded: whether this site counts query heads.
    """

    order: str
    groups: int
    queries: int = 1
    expanded: bool = False

    @property
    def count(self) -> int:
        """Heads at the site."""
        return self.groups * (self.queries if self.expanded else 1)


@dataclass(frozen=True)
class Site:
    """A place in a model.

    Attributes:
        name: part of the derivation label, `layer0/in`.
        dimension: width d there.
        heads: where the width is that of attention heads; the rule then holds for each head's block.
        follows: site from which this one takes its blocks (queries: those of the keys, contragredient; outputs of attention: those of the
            values) or its permutation (the linear half of a gated unit: the gate's).
        biased: whether the layer before the site has a bias to hold a shift.
    """

    name: str
    kind: SiteKind
    dimension: int
    heads: Heads | None = None
    follows: str | None = None
    biased: bool = True

    def rule(self, mode: Mode) -> SiteRule:
        """What this site admits.

        Raises:
            UnsupportedLayerError: it has no key in this mode.
        """
        if (self.kind, mode) not in RULES:
            raise UnsupportedLayerError(f"site {self.name} ({self.kind.value}) has no key in mode {mode}")
        return RULES[self.kind, mode]

    def admit_suite(self, suite: Suite, mode: Mode) -> SiteRule:
        """The rule of this site, if the suite has a key to offer here.

        Raises:
            UnsupportedLayerError: it has none; the message gives the rule and its reason.
        """
        rule = self.rule(mode)
        if suite == "dense" and not rule.dense:
            raise UnsupportedLayerError(f"suite dense is refused at site {self.name} ({self.kind.value}): {rule.reason}; use permutation")
        if suite == "inputs" and self.kind is SiteKind.VOCABULARY:
            raise UnsupportedLayerError(
                f"suite inputs is refused at site {self.name} ({self.kind.value}): in a plaintext model the rows of the embedding "
                "table name the permuted ids; use another suite, or scheme='client_encoder'"
            )
        return rule

    def shifted(self, suite: Suite, mode: Mode) -> bool:
        """Whether the key that a suite has here is one with a shift."""
        offered = suite == "dense" or (suite == "inputs" and self.kind is SiteKind.INPUT)
        return offered and self.biased and self.follows is None and self.rule(mode).shift

    def admit(self, group: type[Group], *, shift: bool, mode: Mode) -> None:
        """Return if the rule of this site admits such a key.

        Raises:
            UnsupportedLayerError: it does not; the message gives the rule and its reason.
        """
        rule = self.rule(mode)
        if (Orthogonal if group is FastOrthogonal else group) not in rule.groups or (shift and not rule.shift):
            admitted = ", ".join(each.__name__ for each in rule.groups)
            raise UnsupportedLayerError(
                f"site {self.name} ({self.kind.value}, mode {mode}) admits {admitted} keys {_with(rule.shift)} a shift, "
                f"got {group.__name__} {_with(shift)} a shift: {rule.reason}"
            )


def _with(shift: bool) -> str:
    return "with" if shift else "without"
