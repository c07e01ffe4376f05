"""Elements of the key groups as values, each of them an invertible linear map along one axis of a tensor."""

from rexis.ee.groups.heads import HeadBlocks
from rexis.ee.groups.linear import Linear
from rexis.ee.groups.monomial import MonomialScaling, Permutation, ScaledPermutation, SignedPermutation
from rexis.ee.groups.orthogonal import FAST_FROM, FastOrthogonal, MeanPreserving, Orthogonal
from rexis.ee.groups.rotary import PlaneRotations, PlaneScalings, QuarterTurns
from rexis.ee.groups.transform import Group, Transform

__all__ = [
    "FAST_FROM",
    "FastOrthogonal",
    "Group",
    "HeadBlocks",
    "Linear",
    "MeanPreserving",
    "MonomialScaling",
    "Orthogonal",
    "Permutation",
    "PlaneRotations",
    "PlaneScalings",
    "QuarterTurns",
    "ScaledPermutation",
    "SignedPermutation",
    "Transform",
]
