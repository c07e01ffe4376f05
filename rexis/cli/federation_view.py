"""How a federation and its rounds are shown: documents for programs, lines for people."""

from typing import Any

from rich.text import Text

from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.client.aggregator import Federation, RoundRecord
from rexis.encoding import to_hex
from rexis.protocol.plan_parts import GroupPlan


def document_with_privacy(federation: Federation) -> dict[str, Any]:
    from rexis.agent.federation.exposure import meaning

    protection = federation.config.protection
    shown = {"protection": protection, "protection_means": meaning(federation.config), "privacy": _privacy(federation)}
    return {**federation_document(federation), **shown}


def round_document(record: RoundRecord) -> dict[str, Any]:
    return {
        "round": record.round,
        "attempt": record.attempt,
        "leader": record.leader or None,
        "state": record.state,
        "reason": record.reason,
        "survivors": list(record.survivors),
        "base_model": to_hex(record.base_model),
        "model": None if record.model is None else to_hex(record.model),
        "aggregate": None if record.aggregate is None else to_hex(record.aggregate),
        "metrics": record.metrics,
        "transactions": record.transactions,
    }


def print_federation(federation: Federation, as_json: bool) -> None:
    if as_json:
        print_json(document_with_privacy(federation))
        return
    from rexis.agent.federation.exposure import protection_line

    lines, plan = grid("", ""), federation.config.groups
    for name, value in (
        ("federation", to_hex(federation.id)),
        ("name", federation.config.name),
        ("kind", federation.config.kind),
        ("state", f"{federation.state} {federation.reason}".strip()),
        ("round", f"{federation.round} of {federation.rounds_total}"),
        ("joined", f"{len(federation.joined)} of {len(federation.config.members)}"),
        *([("groups", _groups_line(plan))] if plan is not None else []),
        ("scores", _scores_line(federation)),
        ("aggregators", f"{federation.config.quorum} of {len(federation.config.aggregators)} sign{_led_by(federation)}"),
        ("model", to_hex(federation.model)),
        ("protection", protection_line(federation.config)),
        ("privacy", _privacy_line(federation)),
    ):
        lines.add_row(name, Text(value))
    console().print(lines)


def federation_document(federation: Federation) -> dict[str, Any]:
    return {
        "id": to_hex(federation.id),
        "name": federation.config.name,
        "kind": federation.config.kind,
        "state": federation.state,
        "reason": federation.reason,
        "founder": federation.config.founder,
        "members": list(federation.config.roster),
        "joined": list(federation.joined),
        "round": federation.round,
        "rounds_total": federation.rounds_total,
        "model": to_hex(federation.model),
        "equivocators": list(federation.equivocators),
        "leader": federation.leader or None,
        "config": federation.config.document(),
        "created_at": federation.created_at.isoformat(),
    }


def _privacy(federation: Federation) -> dict[str, Any] | None:
    """What taking part costs, since members see every round's model; None if nothing bounds it."""
    from rexis.secagg.privacy import declared_epsilon

    plan, privacy = federation.config.training, federation.config.privacy
    whole = declared_epsilon(federation.config, federation.config.rounds)
    if whole is None or privacy is None:
        return None
    patient = "row" if federation.config.features.patient is None else "patient"
    return {
        "mechanism": privacy.mechanism,
        "unit": "institution" if plan is not None and privacy.mechanism == "skellam" else patient,
        "epsilon": f"{whole:.4g}",
        "delta": str(privacy.delta),
        "standardisation_has_no_bound": plan is not None and plan.standardisation is not None,
    }


def _privacy_line(federation: Federation) -> str:
    found = _privacy(federation)
    if found is None:
        return "no bound: members see every round's sum, and there is no noise in it"
    line = f"epsilon {found['epsilon']} at delta {found['delta']} for one {found['unit']}, all rounds together ({found['mechanism']})"
    return f"{line}; the statistic that scales the inputs has no bound" if found["standardisation_has_no_bound"] else line


def _led_by(federation: Federation) -> str:
    return f", led by {federation.leader}" if federation.leader and len(federation.config.aggregators) > 1 else ""


def _groups_line(plan: GroupPlan) -> str:
    trim = f", without the {plan.trim} least and greatest" if plan.trim else ""
    return f"{plan.count} random ones, {'anew in each attempt' if plan.redrawn else 'drawn once'}; {plan.rule} of their means{trim}"


def _scores_line(federation: Federation) -> str:
    plan = federation.config.scores
    if plan is None:
        return "none"
    return f"in the end everybody here sees each member's score, at confidence {plan.confidence}, and its band of at most {plan.bands}"
