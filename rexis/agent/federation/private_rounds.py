"""What a federation's rounds cost this site's patients: checked before joining, debited before noise is drawn, compared with the chain."""

from rexis.agent.federation.records import FederationRecords, Membership, subject_of
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.journal import Journal
from rexis.errors import UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Manifest
from rexis.secagg.privacy import GRAIN_MICRO, declared_micro, round_event


def check_budget(journal: Journal, content_root: bytes, federation: bytes, config: FederationConfig, policy: SitePolicy) -> None:
    """Check that all rounds of a federation would stay within what the site has left for a data set version.

    Args:
        content_root: of the data set version, 32 bytes.
        federation: id, 32 bytes.

    Raises:
        PrivacyBudgetExceededError: they would not.
    """
    event = round_event(config)
    if event is None or policy.privacy is None:
        return
    from rexis.agent.privacy_ledger import PrivacyLedger

    planned = {_release(federation, number): event for number in range(1, config.rounds + 1)}
    PrivacyLedger(journal).check(content_root, planned, policy.privacy)


def check_round(records: FederationRecords, registry: Registry, member: Membership, manifest: Manifest, policy: SitePolicy) -> None:
    """Before the first message of a round: the loss that stands on chain is the plan's, and this site has the budget for one round more.

    Raises:
        UnexpectedMessageError: the aggregators declared another loss for the round before.
        PrivacyBudgetExceededError: the budget is spent.
        UnavailableError: this site's node does not have that round's event.
    """
    event = round_event(member.config)
    if event is None:
        return
    if manifest.round > 1:
        before = manifest.round - 1
        check_declared(registry, member.federation, member.config, before)
    if policy.privacy is not None:
        from rexis.agent.privacy_ledger import PrivacyLedger

        planned = {_release(member.federation, manifest.round): event}
        PrivacyLedger(records.journal).check(member.content_root, planned, policy.privacy)


def check_declared(registry: Registry, federation: bytes, config: FederationConfig, round_number: int) -> None:
    """Compare the privacy loss that stands on chain after a round with what the plan costs; where it claims none, nothing is asked.

    Args:
        federation: id, 32 bytes.

    Raises:
        UnexpectedMessageError: the aggregators declared another loss.
        UnavailableError: this site's node does not have that round's event.
    """
    if round_event(config) is None:
        return
    found, expected = registry.declared_loss(federation, round_number), declared_micro(config, round_number)
    # Another version of the accountant may round to the next thousandth.
    if abs(found - expected) > GRAIN_MICRO:
        raise UnexpectedMessageError(
            f"expected a declared privacy loss of {expected} millionths after round {round_number}, the chain has {found}: the aggregators "
            "state another loss than the plan costs"
        )


def debit_round(journal: Journal, member: Membership, manifest: Manifest, policy: SitePolicy) -> None:
    """Debit a round to the data set version that it is computed on; every attempt at it is the same release, with one vector.

    Raises:
        PrivacyBudgetExceededError: the budget is spent; nothing was debited.
    """
    event = round_event(member.config)
    if event is None:
        return
    from rexis.agent.privacy_ledger import PrivacyLedger

    PrivacyLedger(journal).debit(member.content_root, _release(member.federation, manifest.round), event, policy.privacy)


def _release(federation: bytes, round_number: int) -> str:
    return f"{subject_of(federation)} round {round_number}"
