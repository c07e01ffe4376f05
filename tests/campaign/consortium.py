"""Many institutions and their aggregator as processes: `rexis agent run` for each, the API, the background process and the chain.

A supervisor starts again whatever dies, as a service manager would, and nothing else is done for it.
"""

import json
import os
import random
import secrets
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from eth_account import Account as EthereumAccount
from sqlalchemy import select

from rexis.agent.federation.founding import FederationPlan
from rexis.agent.table import read_table
from rexis.chain.deployments import load
from rexis.chain.signer import LOCAL_CHAIN_ID, LocalSigner
from rexis.cli.home import Profile, write_private
from rexis.client.aggregator import AggregatorClient
from rexis.client.connection import Connection
from rexis.client.sign_in import SignInSession
from rexis.encoding import to_hex
from rexis.errors import RexisError
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.thresholds import thresholds
from services.aggregator.attempts import Phase
from services.aggregator.models import Attempt, Federation
from services.foundation.database import transaction
from services.local.composition import ROOT, Composition
from services.local.process import ProcessSpec
from services.local.supervisor import Supervisor
from services.local.sweep import MARK
from tests.campaign.estate import Estate
from tests.services.chain_process import ETHER, rpc
from tests.services.federation_stand_in import FOUNDER, PASSPHRASE, Hospital, config_of, rows_of

AGENT = "from rexis.cli.command import main; main()"
SITE = """
poll_interval_s = 1.0

[[datasets]]
table = "table.csv"
policy = "policy.yaml"

[federations]
"""
POLICY = "version: 1\npermission: HMB\n"
STARTED = b'"agent started"'
# Twenty interpreters that load torch on two busy cores.
LONGEST_AGENT_START_S = 600.0


@dataclass(frozen=True)
class Strike:
    """What was going on when a process was killed, and how long it was away.

    Attributes:
        round, attempt, stage: of the federation, when the signal was sent.
    """

    victim: str
    at_s: float
    round: int
    attempt: int
    stage: str
    away_s: float


@dataclass
class Site:
    """One institution: its rows and journal, and the folder that its agent works in."""

    hospital: Hospital
    folder: Path


class Consortium(Estate):
    """Running processes; use it in a `with` statement."""

    service = "aggregator"

    def __init__(self, folder: Path, agents: int, seed: int) -> None:
        super().__init__(folder)
        self.folder, self._count, self._choice = folder, agents, random.Random(seed)
        self._undo = ExitStack()
        self.sites: list[Site] = []
        self.agents: Supervisor | None = None

    def _specs(self, composition: Composition) -> list[ProcessSpec]:
        specs = super()._specs(composition)
        # With the mark in it, so that the guard ends what this process leaves.
        self._surroundings = {MARK: composition.mark, **_inherited()}
        return specs

    def _background(self, whole: ProcessSpec) -> list[ProcessSpec]:
        return [whole]

    def _stop(self) -> None:
        if self.agents is not None:
            self.agents.stop()
        self._undo.close()
        super()._stop()

    def gather(self) -> None:
        """Give every institution a key, rows that are registered on chain, a grant for the founder, and a running agent."""
        chain = self.connect()
        for number in range(self._count):
            folder = self.folder / "sites" / f"{number:02d}"
            folder.mkdir(parents=True)
            key = secrets.token_bytes(32)
            signer = LocalSigner(key)
            rpc(self.chain_url, "anvil_setBalance", signer.address, hex(ETHER))
            columns, rows = ("age", "sex", "num"), rows_of(number, self._choice.randint(20, 60)).rows
            (folder / "table.csv").write_text("\n".join(",".join(row) for row in (columns, *rows)) + "\n")
            (folder / "policy.yaml").write_text(POLICY)
            (folder / "site.toml").write_text(SITE)
            home = folder / "home"
            # A key file that costs a restarted agent no second.
            write_private(home / "key.json", json.dumps(EthereumAccount.encrypt(key, PASSPHRASE, iterations=2)).encode())
            profile = Profile(signer.address, str(home / "key.json"), LOCAL_CHAIN_ID, {"aggregator": self.url, "chain": self.chain_url})
            write_private(home / "profile.json", json.dumps(asdict(profile)).encode())
            connection = self._signed_in(signer)
            journal = home / "agents" / signer.address / "journal.sqlite"
            hospital = Hospital(chain, signer, read_table(folder / "table.csv"), journal, connection)
            self._undo.callback(hospital.stop)
            hospital.register()
            hospital.grant()
            self.sites.append(Site(hospital, folder))
        specs = [self._agent(number, site) for number, site in enumerate(self.sites)]
        self.agents = Supervisor(specs, logs=self.folder / "logs", cwd=ROOT, start_timeout_s=LONGEST_AGENT_START_S, stop_timeout_s=10)
        self.agents.start()
        self.agents.wait_ready()

    def found(self, *, rounds: int, stage_s: int, seed: int) -> tuple[bytes, FederationPlan]:
        """Found the federation and let everybody join it; its first round then begins."""
        founder = AggregatorClient(self._signed_in(FOUNDER))
        self.wait(lambda: _account(founder) is not None, "the aggregator has an account")
        bound = max(1, (self._count - 2) // 3)
        needed = thresholds(self._count, bound)
        config = config_of(
            [site.hospital for site in self.sites],
            "training",
            name="campaign",
            aggregators=[_account(founder)],
            collusion_bound=bound,
            threshold=needed.threshold,
            min_survivors=needed.min_survivors,
            stage_s=stage_s,
            rounds=rounds,
            batch_size=8,
        )
        plan = FederationPlan(FederationConfig.parse(config), seed=seed)
        federation = plan.found(founder, FOUNDER, load(LOCAL_CHAIN_ID)).id
        self.wait(lambda: founder.federation(federation).state != "founding", "the federation is on chain")
        for site in self.sites:
            site.hospital.join(federation)
        return federation, plan

    def standing(self, federation: bytes) -> tuple[str, int, int, str]:
        """State of the federation, and round, attempt and stage of its newest attempt."""
        newest = select(Attempt).where(Attempt.federation_id == to_hex(federation))
        newest = newest.order_by(Attempt.round.desc(), Attempt.number.desc()).limit(1)
        with transaction(self.engine, read_only=True) as session:
            state = session.get_one(Federation, to_hex(federation)).state
            attempt = session.scalar(newest)
            return (state, 0, 0, "") if attempt is None else (state, attempt.round, attempt.number, attempt.stage)

    def follow(self, federation: bytes, patience_s: float, *, until: tuple[int, Phase] | None = None) -> None:
        """Wait until the federation has ended, or has got to a stage of a round.

        `patience_s` bounds the time in which it stays where it is, not the whole.
        """
        seen: tuple[Any, ...] = ()
        deadline = time.monotonic() + patience_s
        while True:
            self.supervisor.wait_failure(lambda: True)
            self._running_agents().wait_failure(lambda: True)
            standing = self.standing(federation)
            state, round_number, _, stage = standing
            if state in ("finished", "failed"):
                return
            if until is not None and stage and (round_number > until[0] or (round_number == until[0] and _reached(stage, until[1]))):
                return
            if standing != seen:
                seen, deadline = standing, time.monotonic() + patience_s
            assert time.monotonic() < deadline, f"nothing goes on any more: {standing}"
            time.sleep(0.05)

    def strike(self, victim: str, federation: bytes) -> Strike:
        """SIGKILL, and wait until the supervisor has it running again."""
        supervisor = self.supervisor if victim in self.supervisor.specs else self._running_agents()
        _, round_number, attempt, stage = self.standing(federation)
        runs, began = supervisor.status[victim].runs, time.monotonic()
        os.kill(supervisor.pids()[victim], signal.SIGKILL)
        deadline = began + LONGEST_AGENT_START_S
        while supervisor.status[victim].runs == runs:
            supervisor.wait_failure(lambda: True)
            assert time.monotonic() < deadline, f"{victim} was not started again"
            time.sleep(0.01)
        now = time.monotonic()
        return Strike(victim, round(began - self.started, 2), round_number, attempt, stage, round(now - began, 2))

    def restarts(self) -> dict[str, int]:
        """How often each process that died was started again."""
        status = {**self.supervisor.status, **self._running_agents().status}
        return {name: each.restarts for name, each in status.items() if each.restarts}

    def largest_agent_mb(self) -> float:
        """Resident memory of the largest agent."""
        return max(psutil.Process(pid).memory_info().rss for pid in self._running_agents().pids().values()) / 2**20

    def left_at_sites(self) -> dict[str, int]:
        """Attempts whose secrets a site still keeps, by its agent's name."""
        left = {_name(number): len(site.hospital.records.unended()) for number, site in enumerate(self.sites)}
        return {name: count for name, count in left.items() if count}

    def _running_agents(self) -> Supervisor:
        assert self.agents is not None, "nobody gathered"
        return self.agents

    def _signed_in(self, signer: LocalSigner) -> Connection:
        connection = Connection(self.url, service="the aggregator")
        self._undo.callback(connection.close)
        connection.authorise = SignInSession(connection, signer, LOCAL_CHAIN_ID).token
        return connection

    def _agent(self, number: int, site: Site) -> ProcessSpec:
        name = _name(number)
        log = self.folder / "logs" / f"{name}.log"
        environment = {
            **self._surroundings,
            "REXIS_HOME": str(site.folder / "home"),
            "REXIS_PASSPHRASE": PASSPHRASE,
            "OMP_NUM_THREADS": "1",
        }

        def forget() -> None:
            if log.exists():
                # What an earlier life said must not count for this one.
                log.replace(log.with_name(f"{name}.{secrets.token_hex(4)}.log"))

        def says_so() -> None:
            if STARTED not in log.read_bytes():
                raise OSError(f"{name} is not at work yet")

        command = (sys.executable, "-c", AGENT, "agent", "run", str(site.folder / "site.toml"), "--json")
        return ProcessSpec(name, command, environment, before=forget, probe=says_so)


def _name(number: int) -> str:
    return f"agent-{number:02d}"


def _reached(stage: str, wanted: Phase) -> bool:
    return stage == wanted or Phase(stage).is_behind(wanted)


def _account(client: AggregatorClient) -> str | None:
    try:
        return client.account()
    except RexisError:
        return None


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("REXIS_")}
