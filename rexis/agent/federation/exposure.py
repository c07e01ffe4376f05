"""What taking part in a federation gives away, for the institution's own screen and log: the protection of its updates, and its ε so far.

Members see the model of every round, and the aggregator what the protection leaves it. The figures are this site's own; they are shown
to nobody else.
"""

from typing import Any

from rexis.agent.federation.records import Membership
from rexis.agent.journal import Journal
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.plan_parts import Protection
from rexis.secagg.privacy import declared_epsilon

NO_BOUND = "no bound"
MEANINGS: dict[Protection, str] = {
    "none": "the aggregator sees the update of every single institution",
    "secagg": "the aggregator sees sums of updates only",
    "secagg+dp": "the aggregator sees sums of updates only, and they have noise in them",
    "ee": (
        "the aggregator sees norms of the institutions' updates and angles between them, and whoever has the members' key, as each member "
        "does, reads every update that the aggregator shows it"
    ),
}


PADDED = "the aggregator sees sums under pads, which members and founder alone take off, and no model"


def meaning(config: FederationConfig) -> str:
    """What the aggregator sees of the members' updates."""
    return PADDED if config.group_pad else MEANINGS[config.protection]


def protection_line(config: FederationConfig) -> str:
    """The protection of single updates, and what it means."""
    return f"{config.protection}: {meaning(config)}"


def round_exposure(journal: Journal, member: Membership, round_number: int) -> dict[str, Any]:
    """Protection and privacy loss of a round that this site takes part in, once it was debited.

    Returns:
        `protection`, `protection_means`, and `privacy`: "no bound" where no noise bounds it, else ε of this federation up to this round,
        and of everything that the ledger has of this data set version, as decimal strings at the plan's δ.
    """
    config = member.config
    facts: dict[str, Any] = {"protection": config.protection, "protection_means": meaning(config)}
    federation = declared_epsilon(config, round_number)
    if federation is None or config.privacy is None:
        return {**facts, "privacy": NO_BOUND}
    # Loads the accountant, which most sites never need.
    from rexis.agent.privacy_ledger import PrivacyLedger

    delta = config.privacy.delta
    spent = PrivacyLedger(journal).spent(member.content_root, float(delta))
    privacy = {"epsilon_federation": f"{federation:.4g}", "epsilon_dataset": f"{spent:.4g}", "delta": str(delta)}
    return {**facts, "privacy": privacy}
