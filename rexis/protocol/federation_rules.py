"""How the parts of a federation's config go together: what would expose somebody, what has no meaning, and what no code runs yet."""

from typing import TYPE_CHECKING, get_args

from rexis.contribution.effects import rounds_needed
from rexis.errors import MalformedMessageError
from rexis.protocol.plan_parts import MAX_SCORED_ROUNDS, MIN_GROUP, Protection
from rexis.protocol.statistics_plans import MomentsPlan, StatisticsPlan

if TYPE_CHECKING:
    from rexis.protocol.federation_config import FederationConfig

# Whose first model members draw from their key (protection ee).
KEYED_FAMILIES = ("logistic", "mlp")


def check_parts(config: "FederationConfig") -> None:
    """Check that the parts of a config go together.

    Raises:
        MalformedMessageError: with the rule that is broken.
    """
    if config.protection not in get_args(Protection) or type(config.group_pad) is not bool:
        raise MalformedMessageError(f"expected a protection among {', '.join(get_args(Protection))} and group_pad true or false")
    if (config.privacy is not None) != (config.protection == "secagg+dp"):
        raise MalformedMessageError("expected the protection secagg+dp with a plan for privacy, and only with it")
    if config.protection == "ee" and config.collusion_bound > 0:
        raise MalformedMessageError(
            f"protection ee: every member holds the one key, so a member that colludes with the aggregator reads every update; "
            f"expected collusion_bound 0, got {config.collusion_bound}"
        )
    if config.degree is not None and config.degree % 2:
        raise MalformedMessageError(f"degree: expected an even number of neighbours, half on each side of a ring, got {config.degree}")
    if not config.masked and (config.group_pad or config.degree is not None or config.groups is not None or config.training is None):
        raise MalformedMessageError(f"protection {config.protection}: expected training without group_pad, degree or groups")
    _check_groups(config)
    _check_scores(config)
    _check_privacy(config)
    _check_keyed(config)
    unbuilt = [name for name, is_used in _unbuilt(config).items() if is_used]
    if unbuilt:
        raise MalformedMessageError(f"this version does not run federations with {', '.join(unbuilt)}")


def _check_groups(config: "FederationConfig") -> None:
    """What would expose an update by the sums of groups, or a sum that no robust rule is known for."""
    if config.groups is None:
        return
    if config.training is None:
        raise MalformedMessageError("groups: expected training: a statistic has no robust rule")
    least = config.groups.count * max(MIN_GROUP, config.collusion_bound + 2)
    if len(config.members) < least:
        raise MalformedMessageError(
            f"groups: expected max({MIN_GROUP}, collusion_bound + 2) members to each, two of them honest whoever is drawn into it: "
            f"{least} for {config.groups.count} groups and collusion_bound {config.collusion_bound}, got {len(config.members)}"
        )
    if config.degree is not None:
        raise MalformedMessageError("groups: expected no degree: everybody in a group is everybody's neighbour")
    if config.training.strategy.name == "scaffold":
        raise MalformedMessageError("groups: expected another strategy than scaffold, whose variates are sums over all sites")
    if config.groups.redrawn and (config.training.privacy is None or config.training.privacy.mechanism != "dp-sgd"):
        raise MalformedMessageError(
            "groups: redrawn: expected a plan for privacy with dp-sgd: the sums of two draws, subtracted, can show a single update"
        )


def _check_scores(config: "FederationConfig") -> None:
    """What no score can be computed from: three groups of max(3, collusion_bound + 2) are asked for by `groups` already."""
    if config.scores is None:
        return
    plan, groups = config.training, config.groups
    if plan is None or groups is None or not groups.redrawn:
        raise MalformedMessageError(
            "scores: expected groups with redrawn: what always stands together can not be told apart, and sums over different groups "
            "take differential privacy at the sites"
        )
    least = rounds_needed(len(config.members), groups.count)
    if not least <= plan.rounds <= MAX_SCORED_ROUNDS:
        raise MalformedMessageError(
            f"scores: expected {least} to {MAX_SCORED_ROUNDS} rounds for {len(config.members)} members in {groups.count} groups to come "
            f"apart, got {plan.rounds}"
        )


def _check_privacy(config: "FederationConfig") -> None:
    """What would leave a site beside its noisy update, or with less noise than is accounted for."""
    if config.statistics is not None:
        _check_counts(config, config.statistics)
    plan = config.training
    if plan is None or plan.privacy is None:
        return
    skellam = plan.privacy.mechanism == "skellam"
    clashes = {
        "scaffold, whose control variates have no noise": plan.strategy.name == "scaffold",
        "stopping, whose losses have no noise": plan.stopping is not None,
        "personal tensors, which are not built for it": bool(plan.personal),
        "an optimizer other than sgd, which is not built for it": plan.optimizer != "sgd",
        "ring_bits 16, which has no room for noise (skellam)": skellam and plan.ring_bits == 16,
        "groups, which have less noise than the sum over all (skellam)": skellam and config.groups is not None,
        "collusion_bound 0: a member knows its own noise (skellam)": skellam and config.collusion_bound < 1,
        "batch_size null: dp-sgd divides by it, and a site's own number of patients is a secret": not skellam and plan.batch_size is None,
        "min_survivors of no more than collusion_bound: nobody's noise would be left": config.min_survivors <= config.collusion_bound,
    }
    found = [reason for reason, is_so in clashes.items() if is_so]
    if found:
        raise MalformedMessageError(f"privacy does not go with {'; '.join(found)}")


def _check_keyed(config: "FederationConfig") -> None:
    """What does not go through an orthogonal map of the update, and what would tell the aggregator a model."""
    plan = config.training
    if config.protection != "ee" or plan is None:
        return
    clashes = {
        f"{plan.strategy.name}: expected fedavg or fedavgm, which commute with the key; it is no map of single coordinates": (
            plan.strategy.name not in ("fedavg", "fedavgm")
        ),
        "personal tensors, which the aggregator's file has in clear": bool(plan.personal),
        "stopping, which is not built for it": plan.stopping is not None,
        f"a model of the family {plan.model.family}: expected {' or '.join(KEYED_FAMILIES)}, whose first model members can draw": (
            plan.model.family not in KEYED_FAMILIES
        ),
    }
    found = [reason for reason, is_so in clashes.items() if is_so]
    if found:
        raise MalformedMessageError(f"protection ee does not go with {'; '.join(found)}")


def _check_counts(config: "FederationConfig", plan: StatisticsPlan) -> None:
    """What would make a count say more of a patient than its rule allows."""
    if isinstance(plan, MomentsPlan):
        return
    if config.features.patient is not None:
        raise MalformedMessageError("counts are of rows, each of which is one patient: expected features without patient")
    if plan.rule.privacy is not None and not 1 <= config.collusion_bound < config.min_survivors:
        raise MalformedMessageError(
            "noise in counts: expected a collusion_bound of at least 1, for a member knows its own noise, and below min_survivors, for "
            "else nobody's noise would be left"
        )


def _unbuilt(config: "FederationConfig") -> dict[str, bool]:
    plan, witnessed = config.training, len(config.aggregators) > 1
    found = {
        f"several aggregators and protection {config.protection}": witnessed and not config.masked,
        # The aggregator would see no mean to score.
        "scores and group_pad": config.scores is not None and config.group_pad,
        # Witnesses compute the same means, and keep none.
        "scores and several aggregators": config.scores is not None and witnessed,
        # Several aggregators would each have to have the members' word on what a sum is.
        "group_pad and several aggregators": config.group_pad and witnessed,
        # Only members could say when training has ended.
        "group_pad and stopping": config.group_pad and plan is not None and plan.stopping is not None,
        "group_pad and statistics": config.group_pad and plan is None,
        # Members would have to combine the groups' sums, which the aggregator can not read.
        "groups and group_pad": config.groups is not None and config.group_pad,
    }
    if plan is None:
        return found
    return found | {
        "ring_bits 16 and group_pad": plan.ring_bits == 16 and config.group_pad,
        "ring_bits 16 without masks": plan.ring_bits == 16 and not config.masked,
    }
