"""A member and the provider together: whoever holds the plaintext model reads every site of the key off the keyed one.

The attacker knows: the plain weights and biases of a multilayer perceptron (every member of a federation holds them, and its aggregator),
the keyed ones (the provider holds them), and whether the activation is odd; no record and no answer.
Method: to the attacker the plain model is an earlier upload under no key: `linking` matches the rows of the first layer, least squares
gives T and the biases give δ; the columns of the next layer are now in a known order, so its rows match as they are, and so on to the
outputs.
Cost: O(n³) for the widest layer: well under a second.
What it means: `knowledge="members"` is obfuscation only. For BERT and Llama the same knowledge feeds `public_base` and `heads`, with
drift 0.
If it fails: the residual says so. Of a first layer narrower than the inputs, T is found on the space that the rows span, which is all of
a record that the model uses.
Source: `specs/equivariant-encryption.md`, correction 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rexis.attacks.known_pairs import RecoveredKey
from rexis.attacks.linking import link_layers
from rexis.attacks.matching import match_rows

Array = NDArray[np.float64]

# A factor this far below 1 comes from a layer without biases, which tell nothing.
MIN_FACTOR = 1e-3


@dataclass(frozen=True, eq=False)
class HiddenUnits:
    """A hidden layer's key: keyed unit i is scales[i] times plain unit order[i]; int64 [n] and f64 [n], negative for a changed sign."""

    order: NDArray[np.int64]
    scales: Array

    def place(self, rows: Array) -> Array:
        """Plain rows [n, ...] in the order and with the scales of the keyed units."""
        return np.asarray(self.scales.reshape(-1, *[1] * (rows.ndim - 1)) * rows[self.order], dtype=np.float64)

    def place_columns(self, weight: Array) -> Array:
        """The columns of the next layer's plain weight [m, n] as the keyed units feed them."""
        return np.asarray(weight[:, self.order] / self.scales, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class RecoveredSites:
    """The attacker's key of a perceptron.

    Attributes:
        inputs: reads keyed records.
        hidden: one for each hidden layer.
        outputs: reads keyed answers.
        residual: the largest relative distance between a keyed layer's weight and the plain one under these keys.
    """

    inputs: RecoveredKey
    hidden: tuple[HiddenUnits, ...]
    outputs: RecoveredKey
    residual: float


def recover_sites(
    plain: Sequence[tuple[ArrayLike, ArrayLike]], keyed: Sequence[tuple[ArrayLike, ArrayLike]], *, odd_activation: bool = False
) -> RecoveredSites:
    """Recover all site keys of a keyed perceptron from its plaintext.

    Args:
        plain, keyed: (weight [out, in], bias [out]) of each layer, at least two, of the same shapes.
        odd_activation: whether the keys may change signs of hidden units.

    Raises:
        ValueError: shapes that differ, or a single layer, whose two keys can not be told apart without data.
    """
    known, seen = _arrays(plain), _arrays(keyed)
    if len(known) < 2 or [weight.shape for weight, _ in known] != [weight.shape for weight, _ in seen]:
        raise ValueError("expected the plain and the keyed layers of one perceptron with at least one hidden layer")
    units = _first_units(known[0], seen[0], odd_activation)
    inputs, residuals = _input_key(units, known[0], seen[0])
    hidden = [units]
    for (weight, bias), (weight_seen, bias_seen) in zip(known[1:-1], seen[1:-1], strict=True):
        # No shift stands before or after a nonlinearity, so that the bias is one more column.
        rows = np.column_stack([units.place_columns(weight), bias])
        rows_seen = np.column_stack([weight_seen, bias_seen])
        units = _units(rows, rows_seen, odd_activation)
        residuals.append(_distance(rows_seen, units.place(rows)))
        hidden.append(units)
    (weight, bias), (weight_seen, bias_seen) = known[-1], seen[-1]
    columns = units.place_columns(weight)
    matrix = _least_squares(columns.T, weight_seen.T).T
    residuals.append(_distance(weight_seen, matrix @ columns))
    return RecoveredSites(inputs, tuple(hidden), RecoveredKey.of(matrix, bias_seen - matrix @ bias), max(residuals))


def _arrays(layers: Sequence[tuple[ArrayLike, ArrayLike]]) -> list[tuple[Array, Array]]:
    return [(np.asarray(weight, dtype=np.float64), np.asarray(bias, dtype=np.float64)) for weight, bias in layers]


def _first_units(plain: tuple[Array, Array], keyed: tuple[Array, Array], odd: bool) -> HiddenUnits:
    linked = link_layers(plain[0], keyed[0], odd_activation=odd)
    order, scales = linked.order, linked.scales
    # Weights leave one factor open for the whole layer, c D with T / c; the biases, b' = c D b - W' δ, tell it
    # where units outnumber inputs.
    if len(order) > keyed[0].shape[1] + 1:
        solution = _least_squares(np.column_stack([scales * plain[1][order], -keyed[0]]), keyed[1])
        scales = scales * solution[0] if abs(solution[0]) > MIN_FACTOR else scales
    return HiddenUnits(order, scales)


def _input_key(units: HiddenUnits, plain: tuple[Array, Array], keyed: tuple[Array, Array]) -> tuple[RecoveredKey, list[float]]:
    rows = units.place(plain[0])
    matrix = _least_squares(keyed[0], rows)
    # b' = b - W' δ
    shift = _least_squares(keyed[0], units.place(plain[1]) - keyed[1])
    return RecoveredKey.of(matrix, shift), [_distance(rows, keyed[0] @ matrix)]


def _units(rows: Array, rows_seen: Array, odd: bool) -> HiddenUnits:
    lengths, lengths_seen = (np.maximum(np.linalg.norm(table, axis=1), np.finfo(float).tiny) for table in (rows, rows_seen))
    directions = rows / lengths[:, None]
    matches = match_rows(rows_seen / lengths_seen[:, None], np.vstack([directions, -directions]) if odd else directions)
    order = matches % len(rows)
    return HiddenUnits(order, np.where(matches < len(rows), 1.0, -1.0) * lengths_seen / lengths[order])


def _least_squares(left: Array, right: Array) -> Array:
    return np.asarray(np.linalg.lstsq(left, right, rcond=None)[0], dtype=np.float64)


def _distance(seen: Array, rebuilt: Array) -> float:
    return float(np.linalg.norm(seen - rebuilt) / max(np.linalg.norm(seen), np.finfo(float).tiny))
