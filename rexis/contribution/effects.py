"""Effects of sites on the values of the groups that they stood in: least squares over rounds with new random groups in each.

Every group is a measurement of all its members together, and over rounds their effects come apart, as the weights of things that are
only ever weighed together (spring-balance weighing designs). Rounds differ in how much there is to learn, so each round's mean is taken
off first. What then is left to know of n members are n - 1 differences, and a round of k groups says k - 1 things about them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, localcontext

from rexis.contribution.formula import MIN_FREEDOM, UNIT
from rexis.contribution.intervals import context, student_quantile
from rexis.errors import BelowThresholdError

# Far above rounding at 60 digits, far below any pivot of a design whose effects come apart.
_SINGULAR = Decimal("1e-30")

Vector = list[Decimal]
Matrix = list[Vector]


@dataclass(frozen=True)
class ScoredRound:
    """The groups of a round, as positions of members from 0, and their values in millionths.

    Raises:
        ValueError: fewer than two groups, an empty one, a member in two, or another number of values.
    """

    groups: tuple[tuple[int, ...], ...]
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        placed = [member for group in self.groups for member in group]
        if len(self.groups) < 2 or len(self.groups) != len(self.values) or not all(self.groups) or len(set(placed)) < len(placed):
            raise ValueError(f"expected at least two disjoint groups with a value each, got {self.groups} and {len(self.values)} values")


@dataclass(frozen=True)
class Score:
    """Score of a site with its interval, in millionths."""

    score: int
    lower: int
    upper: int


@dataclass(frozen=True)
class Effects:
    """What the rounds say.

    Attributes:
        level: mean of all values, in millionths; the score of an average site.
        freedom: residual degrees of freedom.
        scores: of each member by its position; None for one that stood in no group.
    """

    level: int
    freedom: int
    scores: tuple[Score | None, ...]


def rounds_needed(members: int, groups: int) -> int:
    """Fewest rounds that could tell members apart with an interval; which groups were drawn may ask for more."""
    return -(-(members - 1 + MIN_FREEDOM) // (groups - 1))


def site_effects(members: int, rounds: Sequence[ScoredRound], confidence: Decimal) -> Effects:
    """Scores of all members that stood in a group.

    Args:
        members: how many there are; positions lie below.
        confidence: with which all intervals hold together (Bonferroni; the residuals taken as independent and of one variance).

    Raises:
        BelowThresholdError: too few rounds, or groups that never set some members apart.
    """
    present = sorted({member for each in rounds for group in each.groups for member in group})
    if present and present[-1] >= members:
        raise ValueError(f"expected positions below {members}, got {present[-1]}")
    place = {member: index for index, member in enumerate(present)}
    freedom = sum(len(each.groups) - 1 for each in rounds) - (len(present) - 1)
    if freedom < MIN_FREEDOM:
        raise BelowThresholdError("degrees of freedom of the scores: more rounds, or more groups in each", MIN_FREEDOM, freedom)
    with localcontext(context()):
        normal, right, square = _normal_equations(len(present), [_placed(each, place) for each in rounds])
        # Adding 1 to every entry takes the one direction out of the null space that is no difference between members.
        inverse = _inverse([[entry + 1 for entry in row] for row in normal])
        effects = [_product(row, right) for row in inverse]
        variance = max(Decimal(0), square - _product(effects, right)) / freedom
        values = [value for each in rounds for value in each.values]
        level = Decimal(sum(values)) / len(values)
        quantile = Decimal(student_quantile(freedom, (1 - confidence) / len(present))) / UNIT
        halves = [
            quantile * (variance * max(Decimal(0), inverse[i][i] - Decimal(1) / len(present) ** 2)).sqrt() for i in range(len(present))
        ]
        found = {member: _score(level + effects[place[member]], halves[place[member]]) for member in present}
    return Effects(_whole(level, ROUND_HALF_EVEN), freedom, tuple(found.get(member) for member in range(members)))


def _placed(each: ScoredRound, place: dict[int, int]) -> ScoredRound:
    return ScoredRound(tuple(tuple(place[member] for member in group) for group in each.groups), each.values)


def _normal_equations(size: int, rounds: Sequence[ScoredRound]) -> tuple[Matrix, Vector, Decimal]:
    """XᵀX, Xᵀy and yᵀy of incidence X and values y, both less their means in each round."""
    normal, right, square = [[Decimal(0)] * size for _ in range(size)], [Decimal(0)] * size, Decimal(0)
    for each in rounds:
        count = len(each.groups)
        mean = Decimal(sum(each.values)) / count
        share = {member: 1 / (Decimal(len(group)) * count) for group in each.groups for member in group}
        for group, value in zip(each.groups, each.values, strict=True):
            weight, residual = 1 / Decimal(len(group)), value - mean
            square += residual * residual
            for i in group:
                right[i] += weight * residual
                for j in group:
                    normal[i][j] += weight * weight
        for i, left in share.items():
            row, scaled = normal[i], left * count
            for j, other in share.items():
                row[j] -= scaled * other
    return normal, right, square


def _inverse(matrix: Matrix) -> Matrix:
    """Inverse of a symmetric positive semi-definite matrix (Gauss-Jordan; such a matrix needs no exchange of rows).

    Raises:
        BelowThresholdError: it is singular: some members always stood together.
    """
    size, rank = len(matrix), 0
    rows = [list(row) + [Decimal(int(i == j)) for j in range(size)] for i, row in enumerate(matrix)]
    for k in range(size):
        pivot = rows[k][k]
        if pivot < _SINGULAR:
            continue
        rank += 1
        rows[k] = [entry / pivot for entry in rows[k]]
        for i in range(size):
            factor = rows[i][k]
            if i != k and factor:
                rows[i] = [entry - factor * above for entry, above in zip(rows[i], rows[k], strict=True)]
    if rank < size:
        raise BelowThresholdError("differences between members that the drawn groups tell apart: more rounds", size - 1, rank - 1)
    return [row[size:] for row in rows]


def _product(left: Vector, right: Vector) -> Decimal:
    return sum((a * b for a, b in zip(left, right, strict=True)), Decimal(0))


def _score(value: Decimal, half: Decimal) -> Score:
    return Score(_whole(value, ROUND_HALF_EVEN), _whole(value - half, ROUND_FLOOR), _whole(value + half, ROUND_CEILING))


def _whole(value: Decimal, rounding: str) -> int:
    return int(value.to_integral_value(rounding=rounding))
