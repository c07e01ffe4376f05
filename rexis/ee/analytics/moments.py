"""Mean and covariance of keyed rows: m' = T m + δ and C' = T C T^t."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rexis.ee.analytics.rows import as_array, row_site
from rexis.ee.keys import Key


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of n rows.

    Attributes:
        count: n.
        mean: f64 [d].
        covariance: f64 [d, d], divided by n - 1; by n if n = 1, where it is 0.
    """

    count: int
    mean: Tensor
    covariance: Tensor

    def decrypt(self, key: Key) -> "Moments":
        """The moments of the plain rows.

        Raises:
            UnsupportedLayerError: a key that is not orthogonal.
        """
        site = row_site(key)
        inverse = site.transform.inverse()
        return Moments(self.count, site.decrypt(self.mean), inverse.apply(inverse.apply(self.covariance, axis=1), axis=0))


def moments(rows: Tensor) -> Moments:
    """Moments of plain or keyed rows.

    Args:
        rows: floats [n, d].

    Raises:
        ValueError: not rows of finite floats.
    """
    x = as_array(rows)
    covariance = np.cov(x, rowvar=False, ddof=min(1, len(x) - 1)).reshape(x.shape[1], x.shape[1])
    return Moments(len(x), torch.from_numpy(x.mean(axis=0)), torch.from_numpy(covariance))
