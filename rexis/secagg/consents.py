"""Where signatures of t participants may stand in for the survivor set that the chain fixes.

A participant answers for one set in all attempts of a round, and t > (n + t_c)/2: of two sets at most one finds t answers, whoever was
shown which. That holds where one threshold guards everybody. In a sparse graph, and in groups, each neighbourhood has a threshold of its
own: were the honest parts of two neighbourhoods split differently between two sets, the sum that opens could be over a third, smaller
one. There the chain alone decides, and where members make the result of a padded sum themselves.
"""

from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.graph import is_complete


def may_stand_in(config: FederationConfig) -> bool:
    """Whether t consents may open a sum of this federation while the chain is away."""
    together = config.groups is None and not config.group_pad
    return config.masked and together and is_complete(len(config.members), config.degree)
