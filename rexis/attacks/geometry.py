"""Distances and clusters: an orthogonal key leaves every distance as it was, so groups and neighbours show in what is uploaded.

The attacker knows: keyed rows of one key, nothing else. With the plain form of one record, its nearest neighbours are told too.
Method: pairwise distances, nearest neighbours, k-means.
Cost: O(n²) distances: sample beyond some thousand rows.
If it fails: the rows have no groups, or noise has drowned distances; labels that are no cluster may still be told by other means.
Measured in `specs/equivariant-encryption.md` 1d (geometry).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import KMeans

from rexis.attacks.readings import as_pairs, as_rows

NEIGHBOURS = 10
_MAX_SEED = 2**32


@dataclass(frozen=True, eq=False)
class GeometryReading:
    """What shows without any key.

    Attributes:
        clusters: int64 [n], the attacker's groups; empty where no labels were given.
        figures: `distance_correlation` of plain and keyed pairwise distances; `neighbours_kept` mean share of a record's 10 nearest (fewer
            in tiny sets) that are the same, and `neighbours_by_chance`; with labels also `purity`, `majority` (what calling everybody the
            commonest class gives) and `purity_gain` = (purity - majority) / (1 - majority), or 0.
    """

    clusters: NDArray[np.int64]
    figures: Mapping[str, float]


def find_clusters(keyed: ArrayLike, groups: int, *, generator: np.random.Generator) -> NDArray[np.int64]:
    """k-means on keyed rows [n, d]: the group of each, int64 [n]."""
    means = KMeans(groups, n_init=10, random_state=int(generator.integers(_MAX_SEED)))
    return np.asarray(means.fit_predict(as_rows(keyed)), dtype=np.int64)


def purity(clusters: ArrayLike, labels: ArrayLike) -> float:
    """Share of records that are of the commonest class of their cluster.

    Args:
        clusters, labels: integers [n].
    """
    found, classes = np.asarray(clusters), np.asarray(labels)
    return float(sum(np.unique(classes[found == group], return_counts=True)[1].max() for group in np.unique(found)) / len(classes))


def geometry_reading(
    keyed: ArrayLike, *, truth: ArrayLike, labels: ArrayLike | None = None, generator: np.random.Generator
) -> GeometryReading:
    """Compare what shows in keyed rows with the plain ones.

    Args:
        keyed: floats [n, d], what the provider sees.
        truth: floats [n, d], the same rows in plain; used to judge alone.
        labels: integers [n], classes that the owner would not show; used to judge, but for their number, which the attacker is taken to
            know.
        generator: draws the starts of k-means.

    Raises:
        ValueError: shapes that differ, or values that are not finite.
    """
    plain, seen = as_pairs(truth, keyed)
    classes = np.zeros(0, dtype=np.int64) if labels is None else np.asarray(labels)
    if labels is not None and classes.shape != plain.shape[:1]:
        raise ValueError(f"expected one label for each of {len(plain)} rows, got shape {classes.shape}")
    apart, seen_apart = pdist(plain), pdist(seen)
    count = min(NEIGHBOURS, len(plain) - 1)
    near, seen_near = (_nearest(distances, count) for distances in (apart, seen_apart))
    kept = np.mean([len(np.intersect1d(one, other)) / count for one, other in zip(near, seen_near, strict=True)])
    figures = {
        "distance_correlation": _correlation(apart, seen_apart),
        "neighbours_kept": float(kept),
        "neighbours_by_chance": count / (len(plain) - 1),
    }
    if labels is None:
        return GeometryReading(np.zeros(0, dtype=np.int64), figures)
    sizes = np.unique(classes, return_counts=True)[1]
    clusters = find_clusters(seen, len(sizes), generator=generator)
    pure, majority = purity(clusters, classes), float(sizes.max() / len(classes))
    gain = max(0.0, (pure - majority) / (1 - majority)) if majority < 1 else 0.0
    return GeometryReading(clusters, {**figures, "purity": pure, "majority": majority, "purity_gain": gain})


def _correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """0 where one of them does not vary."""
    return float(np.corrcoef(left, right)[0, 1]) if min(np.ptp(left), np.ptp(right)) > 0 else 0.0


def _nearest(distances: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The `count` nearest others of each row, int64 [n, count], from condensed distances."""
    square = squareform(distances)
    np.fill_diagonal(square, np.inf)
    return np.asarray(np.argpartition(square, count - 1, axis=1)[:, :count], dtype=np.int64)
