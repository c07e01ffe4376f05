"""`rexis federation create`, `join`, `list`, `status` and `result`."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from rich.text import Text

from rexis.cli.aggregator import AggregatorSession, aggregator_session, federation_id, registry_of
from rexis.cli.federation_view import document_with_privacy, federation_document, print_federation, round_document
from rexis.cli.home import journal_path
from rexis.cli.identity import require_own_key
from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.client.aggregator import AggregatorClient, Federation, RoundRecord, changes_of_lead
from rexis.client.approvals import ApprovalClient, check_approvals, check_evidence
from rexis.encoding import to_hex
from rexis.errors import ConfigurationError, UnavailableError, UnexpectedMessageError
from rexis.protocol.approvals import Kind

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
    print_federation(founded, as_json)


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
        print_json([document_with_privacy(each) for each in joined])
        return
    for each in joined:
        print_federation(each, as_json)


def list_federations(limit: int, *, aggregator: str | None, as_json: bool) -> None:
    """Print the caller's newest federations."""
    with aggregator_session(aggregator) as session:
        found = list(islice(session.client.federations(), limit))
    if as_json:
        print_json([federation_document(each) for each in found])
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
        documents = [{**round_document(each), "signed": signed[each.round, each.attempt]} for each in rounds]
        print_json({**document_with_privacy(found), "equivocators": named, "taken_over": taken_over, "rounds": documents})
        return
    print_federation(found, as_json)
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


def _publish_key(session: AggregatorSession, founded: Federation, registry: "Registry") -> None:
    """The founder uses the model, and computes it with the group key that a member will deal."""
    from rexis.agent.federation.group_keys import GroupKeys
    from rexis.agent.journal import Journal

    with Journal.open(journal_path(session.signer.address), session.secret) as journal:
        GroupKeys(journal, session.signer, registry, session.client.connection).publish(founded.id, founded.config)


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
