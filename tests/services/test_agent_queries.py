"""`rexis agent run` as a process of its own between the real marketplace and a real chain: what it answers, holds, refuses and survives."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rexis.agent.execution.grants import GrantReader
from rexis.agent.site import read_site
from rexis.chain.connection import Chain, open_web3
from rexis.chain.deployments import load
from rexis.encoding import to_hex
from rexis.errors import PolicyError, UnavailableError
from rexis.policy.duo import Permission
from services.foundation.database import migrate, open_engine
from services.foundation.settings import LOCAL_CHAIN_ID
from services.marketplace.settings import MarketplaceSettings
from tests.services.command_parties import PASSPHRASE, Party, background
from tests.services.conftest import free_port
from tests.services.marketplace_on_chain import RELAYER_KEY, running_chain
from tests.services.service_applications import serving, settings_for
from tests.services.test_access_commands import DECLARED

SITE = """
poll_interval_s = 0.2

[services]
chain = ["http://127.0.0.1:1", "{rpc_url}"]

[[datasets]]
table = "table.csv"
policy = "policy.yaml"

[queries]
sensitive = ["num"]
budget = 2
"""
POLICY = "version: 1\npermission: HMB\nmodifiers: {IRB: []}\n"
GROUPS = (("f", 0, 30), ("f", 1, 20), ("m", 0, 35), ("m", 1, 15))
QUERIES: dict[str, list[dict[str, Any]]] = {
    "table": [{"column": "sex", "levels": ["f", "m"]}, {"column": "num", "above": 0}],
    "patient": [{"column": "num", "above": 0}],
    "third": [{"column": "age", "bands": [40]}],
}
FILTERS: dict[str, list[dict[str, Any]]] = {"patient": [{"column": "age", "from": 64}]}

HMB, DS = Permission.HMB, Permission.DS


@dataclass
class RunningAgent:
    """The process, and the events that it printed."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)

    def until(self, what: str) -> dict[str, Any]:
        """The next event of this kind."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["what"] == what:
                return self.events[-1]
        raise AssertionError(f"the agent ended with {self.process.wait()} before it said {what!r}: {self.events}")


@contextmanager
def agent(hospital: Party) -> Iterator[RunningAgent]:
    """`rexis agent run` in a process that is killed in the end, if it is there still."""
    command = [sys.executable, "-c", "from rexis.cli.command import main; main()", "agent", "run", "site.toml", "--json"]
    secrets = {"REXIS_HOME": str(hospital.home), "REXIS_PASSPHRASE": PASSPHRASE}
    surroundings = {**os.environ, **secrets, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=surroundings, stdout=subprocess.PIPE, text=True) as process:
        # A test that waits for what never comes sees the end of its output.
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        try:
            yield RunningAgent(process)
        finally:
            watchdog.cancel()
            process.kill()


@pytest.fixture
def parties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Party, Party]]:
    """A hospital with data set 1, and a researcher with access to it."""
    monkeypatch.chdir(tmp_path)
    with running_chain(tmp_path) as rpc_url:
        url = f"http://127.0.0.1:{free_port()}"
        settings = settings_for(
            "marketplace", f"sqlite:///{tmp_path / 'rows.sqlite'}", public_url=url, chain_rpc_url=rpc_url, relayer_key=RELAYER_KEY
        )
        assert isinstance(settings, MarketplaceSettings)
        engine = open_engine(settings.database_url)
        migrate(engine, "services.marketplace")
        with serving(settings), background(settings, engine):
            hospital, researcher = (Party(tmp_path / name, settings.public_url) for name in ("hospital", "researcher"))
            rows = [f"{sex},{30 + index},{num}\n" for sex, num, count in GROUPS for index in range(count)]
            (tmp_path / "table.csv").write_text("sex,age,num\n" + "".join(rows))
            (tmp_path / "policy.yaml").write_text(POLICY)
            (tmp_path / "site.toml").write_text(SITE.format(rpc_url=rpc_url))
            for name, dimensions in QUERIES.items():
                query = {"version": 1, "kind": "table", "dimensions": dimensions, "filters": FILTERS.get(name, [])}
                (tmp_path / f"{name}.json").write_text(json.dumps(query))
            assert hospital.json("dataset", "register", "table.csv", "--policy", "policy.yaml")["token_id"] == 1
            hospital.json("access", "grant", researcher.json("access", "request", "1", *DECLARED)["id"])
            yield hospital, researcher
        engine.dispose()


def ask(researcher: Party, name: str) -> Any:
    [query] = researcher.json("query", "submit", "1", f"{name}.json", "--purpose", "HMB", "--wait", "--timeout", "60")
    return query


def test_queries_are_answered_held_decided_and_refused_on_the_premises(parties: tuple[Party, Party]) -> None:
    hospital, researcher = parties
    with agent(hospital) as running:
        assert running.until("agent started")["detail"] == {"datasets": [1], "duties": ["queries"]}
        answered, held = ask(researcher, "table"), ask(researcher, "patient")
        assert (answered["state"], answered["result"]["cells"]) == ("released", [30, 20, 35, 15])
        assert (held["state"], held["rule"], held["result"]) == ("held", None, None)
        assert ask(researcher, "table")["result"] == answered["result"]
        refused = ask(researcher, "third")
        assert (refused["state"], "rule query budget" in refused["rule"]) == ("refused", True)

        # Only one agent on a journal.
        assert "another agent" in hospital.failure("agent", "run", "site.toml")
        [waiting] = hospital.json("agent", "held")
        assert (waiting["id"], "minimum number of subjects" in waiting["rule"]) == (held["id"], True)
        assert waiting["result"]["rules"] == {"minimum_cell": None, "rounding": 5}
        assert hospital.json("agent", "decide", held["id"], "--refuse")["state"] == "refused"
        running.until("query refused on review")
        decided = researcher.json("query", "show", held["id"])
        assert (decided["state"], decided["rule"], decided["result"]) == ("refused", None, None)
        assert "does not wait" in hospital.failure("agent", "decide", held["id"], "--release")
        assert hospital.json("agent", "held") == []

        running.process.send_signal(signal.SIGTERM)
        running.until("agent stopped")
        assert running.process.wait(timeout=20) == 0
    stages = [entry["stage"] for entry in hospital.json("agent", "journal") if entry["subject"] == f"query {held['id']}"]
    assert stages == ["held", "told held", "refused", "told refused"]


def test_the_grant_is_what_this_sides_node_says(parties: tuple[Party, Party]) -> None:
    hospital, researcher = parties
    _, node = read_site(Path("site.toml")).services.chain
    chain = Chain.connect(node, load(LOCAL_CHAIN_ID))
    reader = GrantReader(chain)
    [request] = hospital.json("access", "list", "--role", "owner")
    assert to_hex(reader.conditions_hash(1, researcher.address, HMB)) == request["conditions_hash"]
    for dataset, consumer, purpose in ((1, researcher.address, DS), (1, hospital.address, HMB), (2, researcher.address, HMB)):
        with pytest.raises(PolicyError, match="rule grant on chain"):
            reader.conditions_hash(dataset, consumer, purpose)
    hospital.json("access", "revoke", "1", researcher.address, "--purpose", "HMB")
    with pytest.raises(PolicyError, match="rule grant on chain"):
        reader.conditions_hash(1, researcher.address, HMB)
    with pytest.raises(UnavailableError):
        GrantReader(Chain(open_web3("http://127.0.0.1:1"), chain.deployment)).conditions_hash(1, researcher.address, HMB)


def test_an_agent_that_was_killed_goes_on_where_it_stopped(parties: tuple[Party, Party]) -> None:
    hospital, researcher = parties
    with agent(hospital) as first:
        first.until("agent started")
        answered = ask(researcher, "table")
        first.process.kill()
        first.process.wait(timeout=20)
    [query] = researcher.json("query", "submit", "1", "table.json", "--purpose", "HMB")
    with agent(hospital) as second:
        second.until("query released")
        assert researcher.json("query", "show", query["id"])["result"] == answered["result"]
    # A table that changed since is not served under the old name.
    table = Path("table.csv")
    table.write_text(table.read_text().replace("f,30,0", "f,31,0", 1))
    assert "rule registered table" in hospital.failure("agent", "run", "site.toml")
