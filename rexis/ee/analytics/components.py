"""Principal components of keyed rows: the eigenvectors of T C T^t are T times those of C, with the same eigenvalues."""

from dataclasses import dataclass

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from rexis.ee.analytics.rows import as_array, row_site
from rexis.ee.keys import Key


@dataclass(frozen=True, eq=False)
class Components:
    """The k directions of largest variance.

    Attributes:
        directions: f64 [k, d], orthonormal rows; the entry of largest magnitude in each is positive. Directions of equal variance are
            determined only together.
        variances: f64 [k], descending.
        mean: f64 [d], which is subtracted before rows are projected.
    """

    directions: Tensor
    variances: Tensor
    mean: Tensor

    def decrypt(self, key: Key) -> "Components":
        """The components of the plain rows.

        Raises:
            UnsupportedLayerError: a key that is not orthogonal.
        """
        site = row_site(key)
        plain = site.transform.inverse().apply(self.directions)
        # A sign by the largest entry depends on the basis: it is chosen again in the plain one.
        largest = plain.gather(1, plain.abs().argmax(dim=1, keepdim=True))
        return Components(plain * largest.sign(), self.variances, site.decrypt(self.mean))

    def project(self, rows: Tensor) -> Tensor:
        """Scores f64 [n, k] of rows [n, d]; keyed components on keyed rows give the plain scores, each column up to its sign."""
        return (rows.double() - self.mean) @ self.directions.T


def principal_components(rows: Tensor, count: int) -> Components:
    """Principal components of plain or keyed rows, by a full singular value decomposition.

    Args:
        rows: floats [n, d].
        count: k, at most the smaller of n and d.

    Raises:
        ValueError: not rows of finite floats, or another count.
    """
    x = as_array(rows)
    if not 1 <= count <= min(x.shape):
        raise ValueError(f"expected 1 to {min(x.shape)} components of rows {x.shape}, got {count}")
    found = PCA(count, svd_solver="full").fit(x)
    return Components(*(torch.from_numpy(values) for values in (found.components_, found.explained_variance_, found.mean_)))
