"""A federation's contribution scores, computed on this side from the chain: the aggregator's are compared with them, and not believed."""

from rexis.agent.federation.final_rounds import FinalRounds
from rexis.agent.federation.registry import Registry
from rexis.client.aggregator import AggregatorClient
from rexis.client.scores import ScoreClient
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, UnexpectedMessageError
from rexis.protocol.contributions import ContributionBundle, ContributionStatement
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.scored_rounds import scored_round


def checked_scores(registry: Registry, aggregator: AggregatorClient, federation: bytes, config: FederationConfig) -> ContributionStatement:
    """The scores of all rounds that are final on chain.

    Which groups were opened follows from the blocks that drew them and the survivors that the chain fixed; what they were worth stands
    in the rounds' metrics, whose digests are in what a quorum of aggregators signed.

    Raises:
        UnexpectedMessageError: a federation without scores, or metrics that the aggregator does not show.
        DigestMismatchError: another config or other metrics than stand on chain, or other scores than follow from them.
        BelowThresholdError: too few rounds to tell the members apart.
        ServiceError, UnavailableError: the aggregator or the node.
    """
    bundle = bundle_on_chain(registry, aggregator, federation, config)
    statement = ContributionStatement.of(config, bundle)
    shown = ScoreClient(aggregator.connection).statement(federation)
    if shown.digest != statement.digest:
        raise DigestMismatchError("scores that the aggregator shows", statement.digest, shown.digest)
    return statement


def bundle_on_chain(registry: Registry, aggregator: AggregatorClient, federation: bytes, config: FederationConfig) -> ContributionBundle:
    """What scores are computed from; raises as `checked_scores`."""
    if config.scores is None:
        raise UnexpectedMessageError(f"federation {to_hex(federation)} has no scores: its config does not ask for any")
    seen = registry.federation(federation)
    if seen.config_hash != config.digest:
        raise DigestMismatchError("federation config", seen.config_hash, config.digest)
    rounds = range(1, seen.round)
    metrics = FinalRounds(registry, aggregator).metrics(federation, rounds)
    seeds, survivors = registry.final_openings(federation, rounds), registry.final_survivors(federation, rounds)
    made = (scored_round(config, number, seeds[number], survivors[number], found) for number, found in zip(rounds, metrics, strict=True))
    return ContributionBundle(federation, config.digest, tuple(made))
