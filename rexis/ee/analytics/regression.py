"""Ridge and ordinary linear regression on keyed rows, to keyed or plain targets.

Centring takes δ out, and an isotropic penalty is the same for T x: W' = T_o W T^t, b' = T_o b - W' δ + δ_o, which is the keyed linear
layer (`specs/equivariant-encryption.md` 2). A penalty per column or per target, or the L1 norm, would be another one under the key.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.linear_model import LinearRegression, Ridge
from torch import Tensor

from rexis.ee.analytics.rows import as_array, row_site, target_site
from rexis.ee.keys import Key


@dataclass(frozen=True, eq=False)
class Regression:
    """y ≈ W x + b.

    Attributes:
        weight: W, f64 [k, d].
        bias: b, f64 [k].
    """

    weight: Tensor
    bias: Tensor

    def predict(self, rows: Tensor) -> Tensor:
        """f64 [n, k] from rows [n, d]: keyed from keyed rows, if the targets were."""
        return rows.double() @ self.weight.T + self.bias

    def decrypt(self, key: Key, *, targets: Literal["keyed", "plain"] = "keyed") -> "Regression":
        """The regression on the plain rows.

        Args:
            targets: how the provider got them.

        Raises:
            UnsupportedLayerError: a key that is not orthogonal.
        """
        rows = row_site(key)
        weight, bias = rows.transform.inverse().apply(self.weight, axis=1), self.bias + self.weight @ rows.shift
        if targets == "plain":
            return Regression(weight, bias)
        site = target_site(key)
        return Regression(site.transform.inverse().apply(weight, axis=0), site.decrypt(bias))


def ridge(rows: Tensor, targets: Tensor, *, penalty: float) -> Regression:
    """Least squares with penalty · ‖W‖², the intercept free; 0 is ordinary least squares, of least norm where there is a choice.

    Args:
        rows: floats [n, d], plain or keyed.
        targets: floats [n, k], plain or keyed.
        penalty: one number for all columns.

    Raises:
        ValueError: not rows of finite floats, lengths that differ, or a negative penalty.
    """
    x, y = as_array(rows), as_array(targets)
    if len(x) != len(y) or not 0 <= penalty < np.inf:
        raise ValueError(f"expected as many targets as rows and a penalty of at least 0, got {len(x)}, {len(y)} and {penalty}")
    # The singular value decomposition serves n < d as well, and loses least.
    found = (Ridge(penalty, solver="svd") if penalty else LinearRegression()).fit(x, y)
    weight = torch.from_numpy(np.asarray(found.coef_, dtype=np.float64).reshape(y.shape[1], x.shape[1]))
    return Regression(weight, torch.from_numpy(np.asarray(found.intercept_, dtype=np.float64).reshape(y.shape[1])))
