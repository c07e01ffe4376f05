"""Joining a federation, and what its members share: the present global model and the results of statistics, each checked on chain."""

from rexis.agent.federation.admission import check_founding, check_grant
from rexis.agent.federation.asked_statistics import AskedStatistics
from rexis.agent.federation.contribution import read_model
from rexis.agent.federation.holding import check_root
from rexis.agent.federation.private_rounds import check_budget, check_declared
from rexis.agent.federation.records import FederationRecords, Membership
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.federation.text_bases import TextBases
from rexis.client.aggregator import AggregatorClient, Federation
from rexis.encoding import parse_canonical_json, to_hex
from rexis.errors import DigestMismatchError, EncodingError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.statistics_plans import MomentsPlan
from rexis.secagg.statistics import Moments, Result, parse_statistic

MAX_RESULT_BYTES = 1 << 20
# A statistic has one round; the model of the next one is its result.
AFTER_THE_RESULT = 2


def join(
    records: FederationRecords,
    registry: Registry,
    aggregator: AggregatorClient,
    federation: bytes,
    *,
    member: str,
    content_root: bytes,
    policy: SitePolicy,
    bases: TextBases | None = None,
) -> Federation:
    """Check a federation, remember it in the journal, and tell the aggregator; again, it changes nothing.

    Args:
        federation: id, 32 bytes.
        member: checksum address of this institution.
        content_root: of the data set that the config names for it, as this side registered it; 32 bytes.
        policy: of this site.
        bases: encoders that this site has for text classifiers.

    Raises:
        PolicyError: a rule of the site, or no grant on chain.
        ConfigurationError: the site file names no folder with the base that the model is trained on.
        PrivacyBudgetExceededError: its rounds would cost more than the site has left for this data set.
        UnexpectedMessageError, DigestMismatchError, BelowThresholdError: see `admission.check_founding`; or not a member, or
            standardised by a statistic that this institution has no part in.
        ServiceError, UnavailableError: the aggregator or the node.
    """
    config = aggregator.federation(federation).config
    if member not in config.roster:
        raise UnexpectedMessageError(f"{member} is not among the members of federation {to_hex(federation)}")
    check_founding(federation, config, registry)
    policy.check(config)
    dataset = config.dataset(member)
    check_root(dataset, content_root, registry.content_root(dataset))
    check_grant(config, member, registry)
    (bases or TextBases()).check(config)
    check_budget(records.journal, content_root, federation, config, policy)
    AskedStatistics(records.journal).check(config, content_root, federation, policy)
    records.check_base_model(config.trained_base(federation, registry.federation(federation).model), federation)
    statistic = standardisation(records, config)
    if statistic is not None:
        checked_moments(records, registry, aggregator, statistic)
    records.join(federation, config, content_root)
    return aggregator.join(federation)


def standardisation(records: FederationRecords, config: FederationConfig) -> Membership | None:
    """The statistic that a federation's inputs are scaled with, None for raw inputs.

    Raises:
        UnexpectedMessageError: it is one that this institution has no part in, or of other features.
    """
    if config.training is None or config.training.standardisation is None:
        return None
    federation = config.training.standardisation
    found = records.membership(federation)
    if found is None:
        raise UnexpectedMessageError(f"its inputs are scaled by federation {to_hex(federation)}: expected one that this institution joined")
    if not isinstance(found.config.statistics, MomentsPlan) or found.config.features != config.features:
        raise UnexpectedMessageError(f"its inputs are scaled by federation {to_hex(federation)}: expected moments of the same features")
    return found


def checked_moments(records: FederationRecords, registry: Registry, aggregator: AggregatorClient, statistic: Membership) -> Moments:
    """The moments that inputs are scaled with, compared with the chain once and then kept in the journal.

    Raises:
        UnexpectedMessageError: there is no result yet, or it is of another statistic.
        DigestMismatchError: the aggregator shows another one than stands on chain.
        MalformedMessageError: not a result of these features.
    """
    result = statistic.result
    if result is None:
        result = fetch_result(registry, aggregator, statistic.federation, statistic.config)
        records.keep_result(statistic.federation, result)
    if not isinstance(result, Moments):
        raise UnexpectedMessageError(
            f"expected moments as the result of federation {to_hex(statistic.federation)}, it sums another statistic"
        )
    return result


def fetch_result(registry: Registry, aggregator: AggregatorClient, federation: bytes, config: FederationConfig) -> Result:
    """The result of a statistic, compared with the chain.

    Raises:
        UnexpectedMessageError: there is none yet, or the privacy loss on chain is not what the plan costs.
        DigestMismatchError, MalformedMessageError: as `checked_moments`.
    """
    seen = registry.federation(federation)
    if seen.config_hash != config.digest or seen.round != AFTER_THE_RESULT:
        raise UnexpectedMessageError(f"federation {to_hex(federation)} has no result on chain yet: wait until its round is final")
    try:
        result = parse_statistic(config, parse_canonical_json(aggregator.result(federation), max_bytes=MAX_RESULT_BYTES))
    except EncodingError as error:
        raise MalformedMessageError(f"result of federation {to_hex(federation)}: {error}") from error
    if result.digest != seen.model:
        raise DigestMismatchError("result of the statistic", seen.model, result.digest)
    check_declared(registry, federation, config, seen.round - 1)
    return result


def fetch_model(registry: Registry, aggregator: AggregatorClient, federation: bytes, config: FederationConfig) -> tuple[bytes, bytes]:
    """The present global model as a file, and its record (32 bytes), which was compared with the chain.

    Raises:
        UnexpectedMessageError: a statistic has no model; or the privacy loss on chain is not what the plan costs.
        DigestMismatchError, MalformedMessageError: another model than stands on chain, or no model file.
    """
    if config.training is None:
        raise UnexpectedMessageError(f"federation {to_hex(federation)} sums a statistic: it has a result, and no model")
    seen = registry.federation(federation)
    if seen.config_hash != config.digest:
        raise DigestMismatchError("federation config", seen.config_hash, config.digest)
    if seen.round > 1:
        check_declared(registry, federation, config, seen.round - 1)
    content = aggregator.model(federation)
    read_model(config.training, content, seen.model)
    return content, seen.model
