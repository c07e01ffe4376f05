"""Why affine post-LN models get no dense key: the LayerNorms that would have to be uploaded with it show the key's columns.

The keyed LayerNorm is built here and nowhere else: the product refuses such keys.
"""

import numpy as np
import torch
from torch.nn.functional import layer_norm

from rexis.attacks.norm_eigenvectors import recover_columns, share_of_columns
from tests.attacks.keyed_weights import Array, mean_preserving

# MiniLM's width, in the precision of an upload.
WIDTH = 384
GENERATOR = np.random.default_rng(13)
KEY = mean_preserving(GENERATOR, WIDTH)
NEXT_KEY = mean_preserving(GENERATOR, WIDTH)
GAINS, SHIFTS = 1 + 0.1 * GENERATOR.normal(size=WIDTH), GENERATOR.normal(size=WIDTH)


class KeyedLayerNorm(torch.nn.Module):
    """x' → layer_norm(x') Mᵗ + β' with M = Q_next diag(gamma) Q_prevᵗ, β' = Q_next β (specification, 2b)."""

    def __init__(self, preceding: Array, following: Array) -> None:
        super().__init__()
        self.matrix = torch.from_numpy(following @ np.diag(GAINS) @ preceding.T)
        self.shift = torch.from_numpy(following @ SHIFTS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, (WIDTH,)) @ self.matrix.T + self.shift


def uploaded(preceding: Array, following: Array) -> Array:
    return KeyedLayerNorm(preceding, following).matrix.float().numpy()


def test_the_keyed_norm_is_exact_so_that_it_is_a_temptation() -> None:
    x = torch.from_numpy(GENERATOR.normal(size=(8, WIDTH)))
    plain = layer_norm(x, (WIDTH,), torch.from_numpy(GAINS), torch.from_numpy(SHIFTS))
    key, following = torch.from_numpy(KEY), torch.from_numpy(NEXT_KEY)
    assert abs(KeyedLayerNorm(KEY, NEXT_KEY)(x @ key.T) - plain @ following.T).max() < 1e-12


def test_one_norm_shows_every_column_of_the_key() -> None:
    recovered = recover_columns(uploaded(KEY, KEY))
    assert share_of_columns(recovered.following, KEY) == 1.0
    assert abs(np.sort(recovered.gains) - np.sort(GAINS)).max() < 1e-5


def test_records_are_read_up_to_the_order_of_coordinates() -> None:
    records = GENERATOR.normal(size=(50, WIDTH))
    read = (records @ KEY.T) @ recover_columns(uploaded(KEY, KEY)).following
    assert abs(np.sort(read, axis=1) - np.sort(records, axis=1)).max() < 0.02


def test_a_key_for_every_block_falls_to_the_same_decomposition() -> None:
    recovered = recover_columns(uploaded(KEY, NEXT_KEY))
    assert share_of_columns(recovered.following, NEXT_KEY) == 1.0
    assert share_of_columns(recovered.preceding, KEY) == 1.0


def test_without_gains_there_is_nothing_to_decompose() -> None:
    """The defence: M of a LayerNorm without affine part is the identity under every key: a stock LayerNorm serves."""
    identity = (KEY @ KEY.T).astype(np.float32)
    assert share_of_columns(recover_columns(identity).following, KEY) == 0.0
