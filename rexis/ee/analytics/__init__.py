"""Analytics on keyed rows: a provider computes them with stock numpy and scikit-learn, without any key, and the owner decrypts the result.

    key = analytics.keygen(30)                                      # or the key of a model on feature rows
    rows = analytics.encrypt_rows(x, key)                           # to the provider
    found = analytics.moments(rows)                                 # at the provider: same call, same cost as on plain rows
    found.decrypt(key)                                              # the moments of x, up to float error

x' = T x + δ with T orthogonal keeps distances and inner products of differences, so everything that depends on those alone is the same
function on either side. What depends on single columns (standardising, a median, a tree, an L1 penalty) is not, and belongs to the owner,
before the rows are keyed. That distances survive is also what the provider sees: clusters, duplicates and outliers are in the clear.
"""

from rexis.ee.analytics.clusters import Clusters, k_means
from rexis.ee.analytics.components import Components, principal_components
from rexis.ee.analytics.moments import Moments, moments
from rexis.ee.analytics.neighbours import Neighbours, nearest_neighbours
from rexis.ee.analytics.regression import Regression, ridge
from rexis.ee.analytics.rows import encrypt_rows, encrypt_targets, keygen

__all__ = [
    "Clusters",
    "Components",
    "Moments",
    "Neighbours",
    "Regression",
    "encrypt_rows",
    "encrypt_targets",
    "k_means",
    "keygen",
    "moments",
    "nearest_neighbours",
    "principal_components",
    "ridge",
]
