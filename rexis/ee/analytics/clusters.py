"""k-means on keyed rows: assignments depend on distances alone, and a centre is a mean, so c' = T c + δ at every step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from rexis.ee.analytics.rows import as_array, row_site
from rexis.ee.keys import Key


@dataclass(frozen=True, eq=False)
class Clusters:
    """A clustering of n rows.

    Attributes:
        labels: i64 [n], the cluster of each row; the provider sees it.
        centres: f64 [k, d].
        inertia: sum of squared distances to the own centre.
    """

    labels: Tensor
    centres: Tensor
    inertia: float

    def decrypt(self, key: Key) -> "Clusters":
        """The clustering of the plain rows: the same labels, the centres among them.

        Raises:
            UnsupportedLayerError: a key that is not orthogonal.
        """
        return Clusters(self.labels, row_site(key).decrypt(self.centres), self.inertia)


def k_means(rows: Tensor, starts: Sequence[int], *, steps: int = 300) -> Clusters:
    """Lloyd's algorithm from given rows, until the centres rest.

    Args:
        rows: floats [n, d], plain or keyed.
        starts: indices of the k rows to start from; the same ones give the same clustering on either side of the key.
        steps: at most that many.

    Raises:
        ValueError: not rows of finite floats, or starts that are not k different rows.
    """
    x = as_array(rows)
    if not starts or len(set(starts)) < len(starts) or not all(0 <= start < len(x) for start in starts):
        raise ValueError(f"expected different rows among 0 to {len(x) - 1} to start from, got {list(starts)}")
    found = KMeans(len(starts), init=x[list(starts)], n_init=1, max_iter=steps, algorithm="lloyd").fit(x)
    return Clusters(torch.from_numpy(found.labels_).long(), torch.from_numpy(found.cluster_centers_), float(found.inertia_))
