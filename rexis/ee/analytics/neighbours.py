"""Nearest neighbours among keyed rows: which they are, and how far, is the same under the key, so the provider sees both.

The vote is the owner's: it holds the labels. (A provider's vote on permuted labels would break ties by another order of the classes.)
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from rexis.ee.analytics.rows import as_array

# Queries at a time, so that memory stays at that many rows of distances.
_CHUNK = 512


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest rows of each of m queries, nearest first. Nothing in it is keyed.

    Attributes:
        indices: i64 [m, k].
        distances: f64 [m, k].
    """

    indices: Tensor
    distances: Tensor

    def vote(self, labels: Tensor) -> Tensor:
        """The class i64 [m] that most neighbours have, the lowest at a tie.

        Args:
            labels: integers [n] of the rows.
        """
        return labels[self.indices].mode(dim=1).values


def nearest_neighbours(rows: Tensor, queries: Tensor, count: int) -> Neighbours:
    """Neighbours by Euclidean distance; of equal rows the first comes first.

    Different rows at the same distance (a grid of integers) are told apart by rounding under a key: their order may differ there.

    Args:
        rows: floats [n, d], plain or keyed.
        queries: floats [m, d], under the same key.
        count: k, at most n.

    Raises:
        ValueError: not rows of finite floats, widths that differ, or another count.
    """
    x, asked = as_array(rows), as_array(queries)
    if x.shape[1] != asked.shape[1] or not 1 <= count <= len(x):
        raise ValueError(f"expected queries of width {x.shape[1]} and 1 to {len(x)} neighbours, got {asked.shape[1]} and {count}")
    found = [_nearest(x, asked[start : start + _CHUNK], count) for start in range(0, len(asked), _CHUNK)]
    indices, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Neighbours(torch.from_numpy(indices), torch.from_numpy(distances))


def _nearest(x: NDArray[np.float64], queries: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    # Differences first, squares then: scikit-learn's brute force expands the square and loses half of the digits of small distances.
    distances = cdist(queries, x)
    indices = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return indices, np.take_along_axis(distances, indices, axis=1)
