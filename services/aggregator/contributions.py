"""Scores of the members of a federation that is over.

Nothing is kept for them: what they are computed from are the values in the metrics of final rounds, whose digests stand on chain, the
survivors, and the blocks that drew the groups. Of a group there is nothing here but who was in it and what its mean was worth.
"""

import json
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.encoding import canonical_json, from_hex
from rexis.errors import BelowThresholdError
from rexis.protocol.contributions import ContributionBundle, ContributionStatement
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.scored_rounds import scored_round
from services.aggregator import attempts
from services.aggregator.attempts import Phase
from services.aggregator.models import Attempt, Federation
from services.foundation.problems import conflict, not_found

# A federation that was closed early has scores of what it finished.
OVER = ("finished", "failed")


def bundle_of(session: Session, federation: Federation) -> ContributionBundle:
    """What the federation's scores are computed from.

    Raises:
        Problem: 404 while it runs, and without scores in its config.
    """
    config = FederationConfig.parse(federation.config)
    if config.scores is None or federation.state not in OVER:
        raise not_found("scores of federation", federation.id)
    final = (Attempt.federation_id == federation.id, Attempt.stage == Phase.FINISHED.value)
    rounds = tuple(
        scored_round(config, each.round, attempts.graph_seed(session, config, each), each.survivors or (), each.metrics or {})
        for each in session.scalars(select(Attempt).where(*final).order_by(Attempt.round))
    )
    return ContributionBundle(from_hex(federation.id, 32), config.digest, rounds)


def statement_of(session: Session, federation: Federation) -> ContributionStatement:
    """The federation's scores.

    Raises:
        Problem: 404 as `bundle_of`; 409 where too few rounds were finished to tell its members apart.
    """
    bundle = bundle_of(session, federation)
    try:
        return _computed(canonical_json(federation.config), content_of(bundle))
    except BelowThresholdError as error:
        raise conflict("scores-refused", str(error)) from error


# Seconds for the largest federations, and the same for everybody who asks; few are kept, for their bundles are long.
@lru_cache(maxsize=4)
def _computed(config: bytes, bundle: bytes) -> ContributionStatement:
    return ContributionStatement.of(FederationConfig.parse(json.loads(config)), ContributionBundle.parse(json.loads(bundle)))


def content_of(document: ContributionBundle | ContributionStatement) -> bytes:
    """Canonical JSON of one of both."""
    return canonical_json(document.document())
