"""`rexis agent run`: the site file, the journal, the key and the connections, put together and kept running."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from rexis.agent.duty import Duty, Event
from rexis.agent.execution.duty import QueryDuty
from rexis.agent.execution.grants import GrantReader
from rexis.agent.execution.ledger import DisclosureLedger
from rexis.agent.federation.holding import Holding
from rexis.agent.journal import Journal
from rexis.agent.premises import ServedTable, open_premises
from rexis.agent.registration import Target
from rexis.agent.run import Agent, StopRequest, only_agent, wait_until_opened
from rexis.agent.site import Site, read_site
from rexis.agent.table import Table
from rexis.chain.connection import Chain
from rexis.chain.signer import Signer
from rexis.cli.agent_screen import AgentScreen, JsonLog, Terminal
from rexis.cli.home import Profile, journal_path, require_profile, service_url
from rexis.cli.identity import connect, open_signer, require_own_key, trusted_deployment
from rexis.client.connection import Connection
from rexis.client.queries import QueryClient
from rexis.client.sign_in import SignInSession

# A service that is away must not keep the others waiting; the loop comes back anyway.
ATTEMPTS = 2


def run_agent(path: Path, *, as_json: bool) -> None:
    """Run until SIGTERM or SIGINT."""
    site, profile = read_site(path), require_profile()
    signer, secret = open_signer(profile)
    if site.federations is not None:
        require_own_key(signer, "taking part in federations")
    deployment = trusted_deployment(profile.chain_id)
    contracts = deployment.contracts
    target = Target(profile.chain_id, contracts["Forwarder"].address, contracts["DatasetRegistry"].address)
    stop = StopRequest()
    screen: AgentScreen = JsonLog() if as_json else Terminal()
    report = screen.report
    with (
        only_agent(journal_path(profile.address)),
        Journal.open(journal_path(profile.address), secret) as journal,
        ExitStack() as stack,
        _ends_on(stop),
    ):
        premises = open_premises(site, journal, owner=signer.address, target=target)
        nodes = site.services.chain or (service_url("chain", None, profile),)
        chain = wait_until_opened("chain node", [partial(Chain.connect, node, deployment) for node in nodes], stop, report)
        if chain is None:
            return
        duties = _duties(site, profile, signer, journal, chain, premises, stack, screen)
        datasets = [served.holding.dataset for served in premises]
        report(Event("agent started", signer.address, {"datasets": datasets, "duties": [duty.name for duty in duties]}))
        with screen.at_work():
            Agent(duties, poll_interval_s=site.poll_interval_s, report=report).run(stop)
        report(Event("agent stopped", signer.address))


def _duties(
    site: Site,
    profile: Profile,
    signer: Signer,
    journal: Journal,
    chain: Chain,
    premises: Sequence[ServedTable],
    stack: ExitStack,
    screen: AgentScreen,
) -> list[Duty]:
    duties: list[Duty] = []

    def open_session(service: str, given: str | None) -> Connection:
        connection = stack.enter_context(connect(service, service_url(service, given, profile), attempts=ATTEMPTS))
        connection.authorise = SignInSession(connection, signer, profile.chain_id).token
        return connection

    if site.queries is not None:
        client = QueryClient(open_session("marketplace", site.services.marketplace))
        duties.append(QueryDuty(premises, site.queries, DisclosureLedger(journal), client, GrantReader(chain), screen.report))
    if site.federations is not None:
        # Loads torch, which an agent that only answers queries does not need.
        from rexis.agent.federation.aggregators import Aggregators
        from rexis.agent.federation.duty import FederationDuty
        from rexis.agent.federation.registry import Registry
        from rexis.agent.federation.text_bases import TextBases
        from rexis.client.aggregator import AggregatorClient

        named = [AggregatorClient(open_session("aggregator", url)) for url in site.services.aggregators or (None,)]
        # One that is alone leads whatever it shows, and is not looked up.
        aggregator = named[0] if len(named) == 1 else Aggregators(Registry(chain), named)
        bases = TextBases(site.models)
        holdings = {served.holding.dataset: _training_part(served) for served in premises}
        federations = FederationDuty(
            journal,
            signer,
            chain,
            aggregator,
            holdings,
            site.federations,
            bases=bases,
            report=screen.report,
            on_step=screen.on_step,
        )
        duties.append(federations)
    return duties


def _training_part(served: ServedTable) -> Holding:
    if served.training_rows is None:
        return served.holding
    table = served.holding.table
    return replace(served.holding, table=Table(table.columns, tuple(table.rows[index] for index in served.training_rows)))


@contextmanager
def _ends_on(stop: StopRequest) -> Iterator[None]:
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {each: signal.signal(each, stop.ask) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
