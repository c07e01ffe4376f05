"""`rexis federation create`, `join`, `list`, `status`, `model`, `result` and `base`."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from rich.text import Text

from rexis.cli.aggregator import AggregatorSession, aggregator_session, federation_id, registry_of
from rexis.cli.home import journal_path, write_private
from rexis.cli.identity import require_own_key
from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.client.aggregator import AggregatorClient, Federation, RoundRecord, changes_of_lead
from rexis.client.approvals import ApprovalClient, check_approvals, check_evidence
from rexis.encoding import to_hex
from rexis.errors import ConfigurationError, UnavailableError, UnexpectedMessageError
from rexis.protocol.approvals import Kind
from rexis.protocol.plan_parts import GroupPlan

if TYPE_CHECKING:
    from rexis.agent.federation.registry import Registry
    from rexis.agent.federation.text_bases import TextBases

PAUSE_S = 0.25
FAILED, FINISHED = "failed", "finished"
FOUNDING = "founding"


def create(spec: Path, *, wait: bool, timeout_s: float, aggregator: str | None, chain: str | None, as_json: bool) -> None:
    """Found the federation of a file and print it."""
    from rexis.agent.federation.founding import FederationPlan

    with aggregator_session(aggregator) as session:
        plan = FederationPlan.read(spec, founder=session.signer.address, aggregator=session.client.account())
        founded = plan.found(session.client, session.signer, session.deployment)
        if founded.config.has_group_key:
            _publish_key(session, founded, registry_of(session, chain))
        if wait:
            founded = _wait_until_founded(session.client, founded, timeout_s)
            # The aggregator says that it is on chain; this side's node is asked.
            _check_founding(founded, registry_of(session, chain))
    _print(founded, as_json)


def join_federations(federations: Sequence[str], site: Path | None, *, aggregator: str | None, chain: str | None, as_json: bool) -> None:
    """Check federations in turn, join each, and print them: one JSON object, or a list if there are several."""
    from rexis.agent.federation.holding import registered_root
    from rexis.agent.federation.membership import join
    from rexis.agent.federation.records import FederationRecords
    from rexis.agent.federation.site_policy import SitePolicy
    from rexis.agent.journal import Journal
    from rexis.agent.registration import Target

    policy, bases = SitePolicy() if site is None else _policy(site), _bases(site)
    numbers = [federation_id(federation) for federation in federations]
    joined = []
    with aggregator_session(aggregator) as session, Journal.open(journal_path(session.signer.address), session.secret) as journal:
        require_own_key(session.signer, "taking part in a federation")
        contracts, owner = session.deployment.contracts, session.signer.address
        target = Target(session.deployment.chain_id, contracts["Forwarder"].address, contracts["DatasetRegistry"].address)
        records, registry = FederationRecords(journal), registry_of(session, chain)
        for number in numbers:
            config = session.client.federation(number).config
            if owner not in config.roster:
                raise UnexpectedMessageError(f"{owner} is not among the members of federation {to_hex(number)}")
            root = registered_root(journal, config.dataset(owner), owner=owner, target=target)
            joined.append(join(records, registry, session.client, number, member=owner, content_root=root, policy=policy, bases=bases))
    if as_json and len(joined) > 1:
        print_json([_document_with_privacy(each) for each in joined])
        return
    for each in joined:
        _print(each, as_json)


def list_federations(limit: int, *, aggregator: str | None, as_json: bool) -> None:
    """Print the caller's newest federations."""
    with aggregator_session(aggregator) as session:
        found = list(islice(session.client.federations(), limit))
    if as_json:
        print_json([_document(each) for each in found])
        return
    table = grid("federation", "name", "kind", "state", "round", "joined")
    for each in found:
        joined = f"{len(each.joined)} of {len(each.config.members)}"
        table.add_row(to_hex(each.id), Text(each.config.name), each.config.kind, each.state, f"{each.round} of {each.rounds_total}", joined)
    console().print(table)


def show_status(federation: str, *, aggregator: str | None, as_json: bool) -> None:
    """Print a federation and its rounds."""
    number = federation_id(federation)
    with aggregator_session(aggregator) as session:
        found, rounds = session.client.federation(number), session.client.rounds(number)
        signed, named = _approvals(session, found, rounds), _equivocators(session, found)
        rounds = _with_own_metrics(session, found, rounds)
    if as_json:
        changes = changes_of_lead(rounds)
        taken_over = [
            {"round": after.round, "attempt": after.attempt, "leader": after.leader, "before": before.leader} for before, after in changes
        ]
        documents = [{**_round_document(each), "signed": signed[each.round, each.attempt]} for each in rounds]
        print_json({**_document_with_privacy(found), "equivocators": named, "taken_over": taken_over, "rounds": documents})
        return
    _print(found, as_json)
    plan = found.config.groups
    table = grid("round", "attempt", "state", "survivors", *(["groups"] if plan else []), "signed", "loss", "model")
    for each in rounds:
        loss = "" if each.metrics is None else str(each.metrics.get("loss", ""))
        model = Text(each.reason) if each.model is None else Text(to_hex(each.model))
        signers = f"{len(signed[each.round, each.attempt]['result'])} of {len(found.config.aggregators)}"
        groups = [Text(f"{(each.metrics or {}).get('groups', '')} of {plan.count}")] if plan else []
        table.add_row(str(each.round), str(each.attempt), each.state, str(len(each.survivors)), *groups, signers, Text(loss), model)
    console().print(table)
    for before, after in changes_of_lead(rounds):
        console().print(f"From round {after.round}, attempt {after.attempt} on {after.leader} led, in the place of {before.leader}.")
    if named:
        console().print(Text(f"Signed two different statements, as both signatures prove: {', '.join(named)}", style="bold red"))


def download_model(
    federation: str, output: Path, *, own: bool, with_bias: bool, aggregator: str | None, chain: str | None, as_json: bool
) -> None:
    """Write the present global model to a file, with this institution's own tensors in it if asked for; a Cox model also as a linear layer
    with a bias, which can be keyed."""
    from rexis.agent.federation.final_rounds import FinalRounds
    from rexis.agent.federation.membership import fetch_model

    number = federation_id(federation)
    with aggregator_session(aggregator) as session:
        registry, found = registry_of(session, chain), session.client.federation(number)
        if found.config.group_pad:
            content, record = _computed_model(session, registry, found)
        else:
            content, record = fetch_model(registry, session.client, number, found.config)
        if found.state == FINISHED:
            # That it ended early is the aggregator's word until the losses on chain say the same.
            FinalRounds(registry, session.client).check_end(number, found.config, registry.federation(number).round - 1)
        if own:
            content = _own_model(session, registry, found, content, record)
        if found.config.protection == "ee":
            content = _opened_model(session, registry, found, content, record)
    if with_bias:
        content = _with_bias(found, content, record)
    write_private(output, content)
    if as_json:
        print_json({"federation": federation, "model": to_hex(record), "bytes": len(content), "output": str(output)})
    elif found.config.protection == "ee":
        console().print(f"The members' model is in {output}: what stands on chain is {to_hex(record)}, under their key.", soft_wrap=True)
    elif own:
        console().print(f"Model {to_hex(record)} with this institution's personal tensors is in {output}.", soft_wrap=True)
    else:
        console().print(f"Model {to_hex(record)}, as it stands on chain, is in {output}.", soft_wrap=True)


def show_base(folder: Path, *, as_json: bool) -> None:
    """Print what names an encoder in a plan: its digest and width."""
    from rexis.training.text_base import read_base

    base = read_base(folder)
    if as_json:
        print_json({"base": to_hex(base.digest), "hidden": base.config.hidden, "positions": base.config.positions})
        return
    console().print(
        f"base {to_hex(base.digest)}, hidden {base.config.hidden}, texts of up to {base.config.positions} tokens", soft_wrap=True
    )


def show_result(federation: str, *, plot: Path | None, aggregator: str | None, chain: str | None, as_json: bool) -> None:
    """Print the result of a statistic."""
    from rexis.agent.federation.membership import fetch_result
    from rexis.cli.statistics import print_result

    number = federation_id(federation)
    with aggregator_session(aggregator) as session:
        config = session.client.federation(number).config
        result = fetch_result(registry_of(session, chain), session.client, number, config)
    print_result(federation, config, result, plot=plot, as_json=as_json)


def _approvals(session: AggregatorSession, found: Federation, rounds: Sequence[RoundRecord]) -> dict[tuple[int, int], dict[str, list[str]]]:
    """Whose signatures each attempt has, by kind; every signature is checked here."""
    registry = session.deployment.contracts["FederationRegistry"].address
    client = ApprovalClient(session.client.connection)
    signed = {}
    for each in rounds:
        approvals = client.approvals(found.id, each.round, each.attempt)
        check_approvals(approvals, found.config, session.deployment.chain_id, registry)
        signed[each.round, each.attempt] = {
            kind.value: [approval.signer for approval in approvals if approval.kind is kind] for kind in Kind
        }
    return signed


def _equivocators(session: AggregatorSession, found: Federation) -> list[str]:
    """Aggregators that signed two different statements, by evidence that is checked here."""
    registry = session.deployment.contracts["FederationRegistry"].address
    evidence = ApprovalClient(session.client.connection).equivocations(found.id)
    for each in evidence:
        check_evidence(each, found.config, session.deployment.chain_id, registry)
    return sorted({each.signer for each in evidence}, key=str.lower)


def _with_bias(found: Federation, content: bytes, record: bytes) -> bytes:
    from rexis.agent.federation.linear_form import linear_form

    if found.config.training is None:
        raise UnexpectedMessageError("a statistic has no model: leave --with-bias out")
    return linear_form(found.config.training, content, record)


def _own_model(session: AggregatorSession, registry: "Registry", found: Federation, content: bytes, record: bytes) -> bytes:
    from rexis.agent.federation.local_rounds import LocalRounds
    from rexis.agent.federation.records import FederationRecords
    from rexis.agent.federation.site_policy import SitePolicy
    from rexis.agent.journal import Journal

    plan = found.config.training
    if plan is None or not plan.personal:
        raise UnexpectedMessageError("nothing of this federation's model stays at its members: leave --own out")
    with Journal.open(journal_path(session.signer.address), session.secret) as journal:
        rounds = LocalRounds(FederationRecords(journal), registry, session.client, session.signer.address, SitePolicy())
        return rounds.own_model(found.id, plan, content, record)


def _opened_model(session: AggregatorSession, registry: "Registry", found: Federation, content: bytes, record: bytes) -> bytes:
    from rexis.agent.federation.group_keys import GroupKeys
    from rexis.agent.federation.keyed_updates import opened_model
    from rexis.agent.journal import Journal

    assert found.config.training is not None
    with Journal.open(journal_path(session.signer.address), session.secret) as journal:
        # A founder who is no member has no agent that opens what was dealt to it.
        GroupKeys(journal, session.signer, registry, session.client.connection).agree(found.id, found.config)
        return opened_model(journal, found.id, found.config.training, content, record)


def _publish_key(session: AggregatorSession, founded: Federation, registry: "Registry") -> None:
    """The founder uses the model, and computes it with the group key that a member will deal."""
    from rexis.agent.federation.group_keys import GroupKeys
    from rexis.agent.journal import Journal

    with Journal.open(journal_path(session.signer.address), session.secret) as journal:
        GroupKeys(journal, session.signer, registry, session.client.connection).publish(founded.id, founded.config)


def _computed_model(session: AggregatorSession, registry: "Registry", found: Federation) -> tuple[bytes, bytes]:
    from rexis.agent.federation.padded_models import compute_model
    from rexis.agent.journal import Journal

    with Journal.open(journal_path(session.signer.address), session.secret) as journal:
        state = compute_model(journal, session.signer, registry, session.client, found.id, found.config)
    return state.model, state.record


def _with_own_metrics(session: AggregatorSession, found: Federation, rounds: tuple[RoundRecord, ...]) -> tuple[RoundRecord, ...]:
    """Metrics that only members and founder have, as far as they were computed here; the aggregator shows none."""
    if not found.config.group_pad or not journal_path(session.signer.address).exists():
        return rounds
    from rexis.agent.federation.recomputed import kept_metrics
    from rexis.agent.journal import Journal

    with Journal.open(journal_path(session.signer.address), session.secret) as journal:
        known = {each.round: kept_metrics(journal, found.id, each.round) for each in rounds}
    return tuple(replace(each, metrics=known[each.round]) if each.state == FINISHED else each for each in rounds)


def _check_founding(founded: Federation, registry: "Registry") -> None:
    from rexis.agent.federation.admission import check_founding

    check_founding(founded.id, founded.config, registry)


def _policy(site: Path) -> Any:
    from rexis.agent.site import read_site

    policy = read_site(site).federations
    if policy is None:
        raise ConfigurationError(f"{site.name} has no section [federations]: this site takes part in none")
    return policy


def _bases(site: Path | None) -> "TextBases":
    from rexis.agent.federation.text_bases import TextBases
    from rexis.agent.site import read_site

    return TextBases(() if site is None else read_site(site).models)


def _wait_until_founded(client: AggregatorClient, founded: Federation, timeout_s: float) -> Federation:
    deadline = monotonic() + timeout_s
    while founded.state == FOUNDING:
        if monotonic() > deadline:
            raise UnavailableError(f"federation {to_hex(founded.id)} is not on chain after {timeout_s:.0f} s; run the same command again")
        sleep(PAUSE_S)
        founded = client.federation(founded.id)
    if founded.state == FAILED:
        raise UnexpectedMessageError(f"federation {to_hex(founded.id)} failed: {founded.reason}")
    return founded


def _document(federation: Federation) -> dict[str, Any]:
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


def _document_with_privacy(federation: Federation) -> dict[str, Any]:
    from rexis.agent.federation.exposure import MEANINGS

    protection = federation.config.protection
    shown = {"protection": protection, "protection_means": MEANINGS[protection], "privacy": _privacy(federation)}
    return {**_document(federation), **shown}


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


def _led_by(federation: Federation) -> str:
    return f", led by {federation.leader}" if federation.leader and len(federation.config.aggregators) > 1 else ""


def _privacy_line(federation: Federation) -> str:
    found = _privacy(federation)
    if found is None:
        return "no bound: members see every round's sum, and there is no noise in it"
    line = f"epsilon {found['epsilon']} at delta {found['delta']} for one {found['unit']}, all rounds together ({found['mechanism']})"
    return f"{line}; the statistic that scales the inputs has no bound" if found["standardisation_has_no_bound"] else line


def _groups_line(plan: GroupPlan) -> str:
    trim = f", without the {plan.trim} least and greatest" if plan.trim else ""
    return f"{plan.count} random ones, {'anew in each attempt' if plan.redrawn else 'drawn once'}; {plan.rule} of their means{trim}"


def _scores_line(federation: Federation) -> str:
    plan = federation.config.scores
    if plan is None:
        return "none"
    return f"in the end everybody here sees each member's score, at confidence {plan.confidence}, and its band of at most {plan.bands}"


def _round_document(record: RoundRecord) -> dict[str, Any]:
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


def _print(federation: Federation, as_json: bool) -> None:
    if as_json:
        print_json(_document_with_privacy(federation))
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
