"""What an institution checks before it takes part: the config against the chain, the site's own rules, and each manifest against both.

Nothing of it is the aggregator's word: the aggregator only says where to look.
"""

from rexis.agent.federation.registry import RegisteredFederation, Registry, Status
from rexis.agent.federation.site_policy import SitePolicy
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, PolicyError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Manifest
from rexis.secagg.graph import is_complete, neighbourhood_threshold
from rexis.secagg.payloads import update_encoding
from rexis.secagg.privacy import check_claim
from rexis.secagg.terms import RoundTerms
from rexis.secagg.thresholds import Thresholds, thresholds


def check_founding(federation: bytes, config: FederationConfig, registry: Registry) -> None:
    """Compare a config with the federation that stands on chain under this id, and its thresholds with what secrecy asks for.

    Raises:
        UnexpectedMessageError: another federation's config, one that is not (or no longer) on chain, members that differ, a ring without
            room for the updates, or rounds that cost more privacy than the plan says.
        DigestMismatchError: another config than was founded.
        BelowThresholdError, ValueError: thresholds under which one update could be exposed.
    """
    if config.id(registry.chain_id, registry.address) != federation:
        raise UnexpectedMessageError(f"expected the config of federation {to_hex(federation)}, got another's: nothing was agreed to")
    seen = registry.federation(federation)
    if seen.status in (Status.ABSENT, Status.CLOSED):
        raise UnexpectedMessageError(f"federation {to_hex(federation)} is {seen.status.name.lower()} on chain: expected one that goes on")
    if seen.config_hash != config.digest:
        raise DigestMismatchError("federation config", seen.config_hash, config.digest)
    given = (config.founder, config.min_survivors, config.quorum)
    if (seen.founder, seen.min_survivors, seen.quorum) != given:
        raise UnexpectedMessageError("the chain has another founder, min_survivors or quorum than the federation's config")
    check_roster(federation, config, registry)
    strangers = [who for who in config.aggregators if not registry.is_aggregator(federation, who)]
    if strangers:
        raise UnexpectedMessageError(f"the chain does not know {', '.join(strangers)} as aggregators of this federation")
    thresholds_of(config)
    check_encoding(config)
    check_claim(config)


def check_encoding(config: FederationConfig) -> None:
    """Check that the federation's ring has room for what its sites will send.

    Raises:
        UnexpectedMessageError: it has none; the message gives the rule.
    """
    try:
        update_encoding(config)
    except ValueError as error:
        raise UnexpectedMessageError(f"training: {error}") from error


def check_roster(federation: bytes, config: FederationConfig, registry: Registry) -> None:
    """Compare the config's members with the chain's.

    Raises:
        UnexpectedMessageError: they differ.
    """
    roster = registry.roster(federation)
    if roster != config.roster:
        raise UnexpectedMessageError(f"expected the roster {', '.join(config.roster)}, the chain has {', '.join(roster) or 'none'}")


def check_grant(config: FederationConfig, member: str, registry: Registry) -> None:
    """Check that the founder may use this member's data set for the federation's purpose, by the chain.

    Raises:
        PolicyError: no active grant.
    """
    dataset = config.dataset(member)
    if not registry.has_access(dataset, config.founder, config.purpose):
        raise PolicyError(
            f"rule on access: expected a grant of data set {dataset} to {config.founder} for DUO permission {config.purpose} on chain, "
            "there is none that is active"
        )


def check_manifest(config: FederationConfig, manifest: Manifest, seen: RegisteredFederation) -> None:
    """Compare a manifest with the chain and with the config.

    Raises:
        DigestMismatchError: another manifest than stands on chain.
        UnexpectedMessageError: it does not follow from the config and the federation's present model.
    """
    if seen.config_hash != config.digest:
        raise DigestMismatchError("federation config", seen.config_hash, config.digest)
    if seen.manifest_hash != manifest.digest:
        raise DigestMismatchError(f"manifest of round {manifest.round}, attempt {manifest.attempt}", seen.manifest_hash, manifest.digest)
    manifest.check(config, federation=manifest.federation, base_model=seen.model)


def admit(
    config: FederationConfig, manifest: Manifest, seen: RegisteredFederation, registry: Registry, policy: SitePolicy, member: str
) -> RoundTerms:
    """Everything that is checked before the first message of an attempt.

    Raises:
        PolicyError: a rule of the site, or no grant.
        DigestMismatchError, UnexpectedMessageError, BelowThresholdError, ValueError: as the single checks.
    """
    policy.check(config)
    check_manifest(config, manifest, seen)
    check_roster(manifest.federation, config, registry)
    check_grant(config, member, registry)
    return round_terms(config, manifest, registry)


def round_terms(config: FederationConfig, manifest: Manifest, registry: Registry) -> RoundTerms:
    """The terms of an attempt whose manifest was checked."""
    return RoundTerms(
        chain_id=registry.chain_id,
        registry=registry.address,
        federation=manifest.federation,
        round=manifest.round,
        attempt=manifest.attempt,
        manifest_hash=manifest.digest,
        base_model=config.trained_base(manifest.federation, manifest.base_model),
        roster=config.roster,
        thresholds=thresholds_of(config),
        length=config.upload_length,
        ring_bits=config.ring_bits,
        degree=config.degree,
        masked=config.masked,
        groups=config.groups,
    )


def graph_seed(config: FederationConfig, registry: Registry, federation: bytes, seen: RegisteredFederation, *, since: int) -> bytes:
    """What orders a sparse graph or draws the groups (32 bytes), from this side's node: the hash of the block that opened the attempt.

    Groups that are kept are drawn by the block that opened the federation's first attempt. Zero for one complete graph.

    Args:
        since: a block that was the latest while the attempt's keys were announced.

    Raises:
        UnavailableError, EquivocationError: as `Registry.opening_block`.
    """
    if config.groups is not None and not config.groups.redrawn:
        return registry.first_opening(federation)
    if config.groups is None and config.degree is None:
        return bytes(32)
    return registry.opening_block(federation, seen, since=since)


def thresholds_of(config: FederationConfig) -> Thresholds:
    """The config's thresholds, if they are safe.

    Raises:
        BelowThresholdError: too few members, or too few neighbours of each, for its collusion bound.
        UnexpectedMessageError: lower than an active adversary asks for.
    """
    least = thresholds(len(config.members), config.collusion_bound)
    if config.degree is not None and not is_complete(len(config.members), config.degree):
        neighbourhood_threshold(len(config.members), config.collusion_bound, config.degree)
    if config.threshold < least.threshold or config.min_survivors < max(config.threshold, least.min_survivors):
        raise UnexpectedMessageError(
            f"expected a threshold of at least {least.threshold} and min_survivors of at least {least.min_survivors} and the threshold, "
            f"the federation has {config.threshold} and {config.min_survivors}: one update could be exposed"
        )
    return Thresholds(len(config.members), config.collusion_bound, config.threshold, config.min_survivors)
