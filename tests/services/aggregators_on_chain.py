"""Several aggregators on one chain, each with a database, a store, a key and an API of its own; their jobs are run by hand."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session

from rexis.chain.signer import LocalSigner, development_signer
from rexis.chain.silence import ChainSilence
from rexis.client.aggregator import AggregatorClient, Federation, RoundRecord
from rexis.client.approvals import ApprovalClient
from rexis.client.connection import Answer, Connection
from rexis.client.sign_in import SignInSession
from rexis.encoding import to_hex
from rexis.errors import UnavailableError
from rexis.protocol.approvals import Approval
from rexis.protocol.federation_rounds import Survivors
from services.aggregator import attempts
from services.aggregator.background import PROJECTIONS
from services.aggregator.gossip import Gossip
from services.aggregator.models import Attempt
from services.aggregator.models import Federation as FederationRow
from services.aggregator.peers import Peer
from services.aggregator.registry_calls import Calls, Registry
from services.aggregator.rounds import Rounds
from services.aggregator.settings import AggregatorSettings
from services.aggregator.takeovers import Takeovers
from services.aggregator.witnesses import Witnesses
from services.foundation.assembly import chain_jobs, connect_chain, deployment_of
from services.foundation.background import Job
from services.foundation.database import open_engine, transaction
from services.foundation.objects import ObjectStore, open_store
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.conftest import free_port
from tests.services.federations_on_chain import AGGREGATOR, TRAINING, Gathering, migrated, wait_until
from tests.services.service_applications import serving

ONE_ROUND = {"training": {**TRAINING, "rounds": 1}, "stage_s": 60}
# What a lying leader makes of an answer, by the end of the path; None leaves it as it is.
Lie = Callable[[str, Answer], Answer | None]


class Shown(Connection):
    """A connection on which a leader lies; `asked` has every path."""

    lie: Lie = staticmethod(lambda _path, _answer: None)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.asked: list[str] = []

    def request(self, method: str, path: str, **options: Any) -> Answer:
        self.asked.append(path)
        answer = super().request(method, path, **options)
        return self.lie(path, answer) or answer


class Died(BaseException):
    """What a SIGKILL leaves of an operator: nothing that was not committed."""


@dataclass
class Operator:
    """One aggregator. `alive` says whether its jobs run, `pauses` which of them do not; `shown` is what it sees of the leader.

    The first one leads; without `first_leads` any may.
    """

    settings: AggregatorSettings
    signer: LocalSigner
    engine: Engine
    objects: ObjectStore
    shown: Shown
    peers: Sequence[Peer]
    first_leads: bool
    alive: bool = True
    jobs: list[Job] = field(default_factory=list)
    pauses: set[str] = field(default_factory=set)
    viewers: dict[str, Connection] = field(default_factory=dict)
    passes: int = 0
    deaths: int = 0

    def __post_init__(self) -> None:
        # Nobody but a leader sends anything to the chain.
        idle = ("relay",) if self.first_leads and self.signer.address != AGGREGATOR.address else ()
        self.silence = ChainSilence(partial(connect_chain, self.settings))
        self.chain_jobs = [job for job in chain_jobs(self.settings, self.engine, PROJECTIONS) if job.name not in idle]
        self.start()

    def start(self) -> None:
        """Make anew what carries rounds, as a process that starts does. The leader's lies go over connections that are kept."""
        registry = Registry.of(deployment_of(self.settings))
        leaders = [peer for peer in self.peers if peer.address == AGGREGATOR.address or not self.first_leads]
        rounds = Rounds(self.engine, self.objects, registry, self.signer, self.silence)
        witness = Witnesses(self.engine, self.objects, registry, self.signer, leaders)
        gossip = Gossip(self.engine, registry, self.peers)
        own = [
            Job("silence", 0, self.silence.look),
            Job("rounds", 0, rounds.run_once),
            Job("witness", 0, witness.run_once),
            Job("gossip", 0, gossip.run_once),
        ]
        if not self.first_leads:
            takeovers = Takeovers(self.engine, self.objects, Calls(registry, self.signer, self.silence), self.peers)
            own.append(Job("takeover", 0, takeovers.run_once))
        self.jobs = [*self.chain_jobs, *own]

    def work(self) -> None:
        """One pass; peers are asked for what they know in every eighth, as seldom as in service."""
        self.passes += 1
        try:
            for job in self.jobs:
                if self.alive and job.name not in self.pauses and (job.name != "gossip" or self.passes % 8 == 0):
                    # As in service: a chain that is away is asked again.
                    with suppress(UnavailableError):
                        job.run()
        except Died:
            self.deaths += 1
            self.start()

    def approvals(self, viewer: LocalSigner) -> ApprovalClient:
        """Its API, as somebody sees it."""
        return ApprovalClient(self.connection(viewer))

    def view(self, viewer: LocalSigner) -> AggregatorClient:
        return AggregatorClient(self.connection(viewer))

    def connection(self, viewer: LocalSigner) -> Connection:
        if viewer.address not in self.viewers:
            connection = Connection(self.settings.public_url, attempts=2)
            connection.authorise = SignInSession(connection, viewer, self.settings.chain_id).token
            self.viewers[viewer.address] = connection
        return self.viewers[viewer.address]

    def let_time_pass(self, federation: str) -> None:
        """Every deadline of the attempts that it leads is over now."""
        with transaction(self.engine) as session:
            for attempt in session.query(Attempt).filter(Attempt.federation_id == federation):
                attempt.manifest = {**attempt.manifest, "deadlines": dict.fromkeys(attempt.manifest["deadlines"], 1)}
                attempt.stage_since = attempt.stage_since.replace(year=2000)


@dataclass
class Stage:
    """Everybody, and what was seen on the way."""

    gathering: Gathering
    operators: list[Operator]
    rpc_url: str

    @property
    def leader(self) -> Operator:
        return self.operators[0]

    @property
    def registry(self) -> str:
        return self.gathering.chain.deployment.contracts["FederationRegistry"].address

    def found(self, name: str, quorum: int, /, **changes: Any) -> bytes:
        return self.gathering.found(name, **{**ONE_ROUND, **config_changes(self.operators, quorum), **changes})

    def work(self) -> None:
        for operator in self.operators:
            operator.work()

    def play(self, federation: bytes, then: Callable[[], None] = lambda: None) -> Federation:
        def act() -> None:
            self.work()
            then()

        return self.gathering.play(federation, then=act)[federation]

    def play_until(self, condition: Callable[[], bool]) -> None:
        """Without waiting for the federation's end."""

        def acted() -> bool:
            self.work()
            for institution in self.gathering.institutions:
                institution.act()
            return condition()

        wait_until(acted, seconds=90)

    def reason(self, operator: Operator, federation: bytes) -> str:
        with transaction(operator.engine, read_only=True) as session:
            return session.scalar(select(FederationRow.reason).where(FederationRow.id == to_hex(federation))) or ""

    def signers(self, federation: bytes, event: str) -> list[set[str]]:
        """Who signed what the chain took."""
        logs = getattr(self.gathering.chain.contract("FederationRegistry").events, event)().get_logs(from_block=0)
        return [set(log["args"]["signers"]) for log in logs if log["args"]["federation"] == federation]

    def rounds(self, federation: bytes) -> tuple[RoundRecord, ...]:
        return self.gathering.founder.rounds(federation)

    def approval(self, operator: Operator, statement: Survivors) -> Approval:
        typed = statement.typed_data(LOCAL_CHAIN_ID, self.registry)
        return Approval(statement, operator.signer.address, operator.signer.sign_typed_data(typed))


@contextmanager
def operators(folder: Path, rpc_url: str, count: int = 3, *, first_leads: bool = True) -> Iterator[list[Operator]]:
    """That many, the first of which leads; if it is not always the first, whoever's turn it is takes over from one that is gone."""
    signers = [AGGREGATOR, *(development_signer(index) for index in range(2, 1 + count))]
    urls = {signer.address: f"http://127.0.0.1:{free_port()}" for signer in signers}
    with ExitStack() as stack:
        made = []
        for number, signer in enumerate(signers):
            place = folder / f"operator-{number}"
            place.mkdir()
            peers = ",".join(f"{address}={url}" for address, url in urls.items() if address != signer.address)
            key = signer._private_key.hex()
            settings = migrated(place, rpc_url, public_url=urls[signer.address], relayer_key=key, peers=peers)
            assert isinstance(settings, AggregatorSettings)
            stack.enter_context(serving(settings))
            engine = open_engine(settings.database_url)
            stack.callback(engine.dispose)
            connections = {address: _shown(settings, signer, url) for address, url in settings.peer_urls.items()}
            seen = [Peer(address, AggregatorClient(each), ApprovalClient(each)) for address, each in connections.items()]
            shown = connections[signers[0].address if number else signers[1].address]
            made.append(Operator(settings, signer, engine, open_store(settings.object_store_url), shown, seen, first_leads))
        for operator in made:
            operator.work()
        yield made


def config_changes(made: Sequence[Operator], quorum: int) -> dict[str, Any]:
    """What makes a federation's config name them."""
    return {"aggregators": sorted((operator.signer.address for operator in made), key=str.lower), "quorum": quorum}


@contextmanager
def dying(operator: Operator, lives: Sequence[tuple[int, str]]) -> Iterator[None]:
    """The operator's jobs die again and again: each life ends at its n-th commit, before or after it. Its API lives on."""
    following = itertools.cycle(lives)
    left, when = next(following)
    committing = False

    def at_commit(connection: Any) -> None:
        nonlocal left, committing
        if not connection.get_execution_options().get("read_only", False):
            left -= 1
            if left == 0 and when == "before":
                die()
            committing = left == 0

    def at_committed(session: Session) -> None:
        if committing and session.get_bind().engine.pool is operator.engine.pool:
            die()

    def die() -> None:
        nonlocal left, when, committing
        committing, (left, when) = False, next(following)
        raise Died

    event.listen(operator.engine, "commit", at_commit)
    event.listen(Session, "after_commit", at_committed)
    yield
    event.remove(operator.engine, "commit", at_commit)
    event.remove(Session, "after_commit", at_committed)


def stage_of(operator: Operator, federation: bytes) -> str:
    """Stage of the newest attempt that an operator leads."""
    with transaction(operator.engine, read_only=True) as session:
        attempt = attempts.latest(session, session.get_one(FederationRow, to_hex(federation)))
        return "" if attempt is None else attempt.stage


def _shown(settings: AggregatorSettings, signer: LocalSigner, url: str) -> Shown:
    shown = Shown(url, attempts=1)
    shown.authorise = SignInSession(shown, signer, settings.chain_id).token
    return shown
