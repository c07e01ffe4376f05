"""The present model of a federation with the group pad, for who has its key: a member, or the founder, from the sums and the chain."""

from rexis.agent.federation.group_keys import GroupKeys
from rexis.agent.federation.private_rounds import check_declared
from rexis.agent.federation.recomputed import GlobalState, RecomputedRounds
from rexis.agent.federation.registry import Registry
from rexis.agent.journal import Journal
from rexis.chain.signer import Signer
from rexis.client.aggregator import AggregatorClient
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig


def compute_model(
    journal: Journal, signer: Signer, registry: Registry, aggregator: AggregatorClient, federation: bytes, config: FederationConfig
) -> GlobalState:
    """The global model after the rounds that are final on chain, each of them gone through here.

    Args:
        journal: of this institution, opened with its passphrase; the key that it published is in it.
        config: as the aggregator shows it.

    Raises:
        UnexpectedMessageError: this institution is to have no key, or nobody has dealt one yet; or the privacy loss on chain is not what
            the plan costs.
        DigestMismatchError, FalseResultError: the aggregator shows something else than stands on chain, or the chain has another model
            than follows from the sums.
        ServiceError, UnavailableError: the aggregator, or the node, does not answer.
    """
    seen = registry.federation(federation)
    if seen.config_hash != config.digest:
        raise DigestMismatchError("federation config", seen.config_hash, config.digest)
    if GroupKeys(journal, signer, registry, aggregator.connection).agree(federation, config) is None:
        raise UnexpectedMessageError(f"nobody has dealt the group key of federation {to_hex(federation)} yet: let the members' agents run")
    if seen.round > 1:
        check_declared(registry, federation, config, seen.round - 1)
    return RecomputedRounds(journal, registry, aggregator).after(federation, config, seen.round - 1)
