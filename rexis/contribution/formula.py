"""The formula of contribution scores as one document: its digest stands in a federation's config before round 1.

Whoever changes how scores are computed writes another document, so that no score is computed by a rule that nobody agreed on.
"""

from collections.abc import Mapping
from types import MappingProxyType

from rexis.encoding import canonical_json, sha256

# Values and scores are whole numbers of millionths.
UNIT = 1_000_000
# Residual degrees of freedom below which no interval is worth its name.
MIN_FREEDOM = 10

FORMULA: Mapping[str, str] = MappingProxyType(
    {
        "version": "1",
        "value": (
            "of group g in a round of k >= 2 groups: <m_g, r_g> / <r_g, r_g>, cut to [-1, 1], and 0 where r_g is zero; m_g is the group's "
            "mean update and r_g the plain mean of the other groups' means, all of them cut to the median length of the other groups' "
            "means; from inner products in binary64, each by adding the second half of the products to the first, padded with zeros to a "
            "power of two; times 1e6, rounded half to even"
        ),
        "effects": (
            "least squares of the values, less their mean in each round, on the members' incidence divided by the group's size, less its "
            "mean in each round, under effects that sum to 0; a member's score is the mean of all values plus its effect; at least 10 "
            "degrees of freedom; decimal arithmetic of 60 digits, half to even"
        ),
        "interval": (
            "score -/+ q s_i, with s_i the standard error of the effect and q the Student quantile at which all intervals hold together "
            "(Bonferroni) with the confidence; degrees of freedom rounded down to an even number of at most 1000; q up to the next "
            "millionth; the lower end down, the upper end up, the score half to even"
        ),
        "bands": (
            "members whose intervals overlap, also by others between them, are one band; ascending from 1; a band whose upper ends all "
            "lie below floor times the mean of all values, where that is positive, is 0, as is a member that stood in no group; while "
            "there are more bands from 1 on than the plan's, the two with the smallest gap become one, the lowest first"
        ),
        "payout": "floor(min(amount * band / sum of bands, amount * cap)); what is left is not paid out",
    }
)
FORMULA_DIGEST = sha256(canonical_json(dict(FORMULA)))
