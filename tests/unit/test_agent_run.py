"""The agent's loop: adaptive pauses, outages of one service, one agent for a journal, and an end that is clean or is none."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rexis.agent.duty import Event
from rexis.agent.run import BUSY_PAUSE_S, LONGEST_BACKOFF_S, Agent, StopRequest, only_agent, wait_until_opened
from rexis.errors import ConfigurationError, RexisError, UnavailableError

AWAY = UnavailableError("the marketplace does not answer")


@dataclass
class Scripted:
    """A duty that does what the script says: busy or idle, or an error; idle at the end."""

    script: list[bool | Exception]
    name: str = "scripted"
    polls: int = 0

    def poll(self) -> bool:
        self.polls += 1
        step = self.script.pop(0) if self.script else False
        if isinstance(step, Exception):
            raise step
        return step


@dataclass
class Clock:
    now: float = 0.0
    events: list[Event] = field(default_factory=list)

    def agent(self, *duties: Scripted, poll_interval_s: float = 5.0) -> Agent:
        return Agent(duties, poll_interval_s=poll_interval_s, report=self.events.append, clock=lambda: self.now)

    def turns(self, agent: Agent, count: int) -> list[float]:
        pauses = []
        for _ in range(count):
            pauses.append(agent.turn())
            self.now += pauses[-1]
        return pauses


def test_pauses_are_short_while_something_runs_and_never_longer_than_the_site_says() -> None:
    clock = Clock()
    pauses = clock.turns(clock.agent(Scripted([True, True, False, False, True])), 30)
    assert pauses[:2] == [BUSY_PAUSE_S, BUSY_PAUSE_S]
    assert BUSY_PAUSE_S < pauses[2] < pauses[3]
    assert pauses[4] == BUSY_PAUSE_S
    assert pauses[-1] == 5.0
    assert max(clock.turns(clock.agent(Scripted([]), poll_interval_s=0.2), 10)) == 0.2


def test_an_outage_is_one_line_and_does_not_hold_up_the_others() -> None:
    clock = Clock()
    broken, well = Scripted([AWAY] * 6, name="queries"), Scripted([True] * 1000, name="federations")
    clock.turns(clock.agent(broken, well), 400)
    assert well.polls == 400
    # Tried again after 1, 2, 4, 8, 16 and 30 seconds, and then in every turn.
    assert [event.what for event in clock.events] == ["waiting", "going on"]
    assert clock.events[0].detail["why"] == str(AWAY)
    waited = 1 + 2 + 4 + 8 + 16 + LONGEST_BACKOFF_S
    assert 400 * BUSY_PAUSE_S - waited > (broken.polls - 7) * BUSY_PAUSE_S > 400 * BUSY_PAUSE_S - waited - 10


def test_another_failure_is_another_line_and_a_mistake_in_the_configuration_ends_it() -> None:
    clock = Clock()
    agent = clock.agent(Scripted([AWAY, RexisError("something else"), ConfigurationError("the site file")]))
    with pytest.raises(ConfigurationError):
        clock.turns(agent, 100)
    assert [event.detail["why"] for event in clock.events] == [str(AWAY), "something else"]


def test_asking_to_stop_ends_a_pause_at_once() -> None:
    stop = StopRequest()
    threading.Timer(0.1, stop.ask).start()
    began = time.monotonic()
    Agent([Scripted([])], poll_interval_s=3600, report=lambda _event: None).run(stop)
    assert time.monotonic() - began < 5
    stop.ask()
    stop.wait(3600)


def test_opening_goes_on_to_the_next_node_and_tries_again() -> None:
    tried: list[str] = []

    def node(name: str, successes: int) -> str:
        tried.append(name)
        if tried.count(name) <= successes:
            raise UnavailableError("the chain does not answer")
        return name

    events: list[Event] = []
    opened = wait_until_opened("chain node", [lambda: node("first", 9), lambda: node("second", 1)], StopRequest(), events.append)
    assert opened == "second"
    assert tried == ["first", "second", "first", "second"]
    assert len(events) == 1
    stop = StopRequest()
    stop.ask()
    assert wait_until_opened("chain node", [lambda: node("first", 9)], stop, events.append) is None


HOLDER = """
import sys, time
from pathlib import Path
from rexis.agent.run import only_agent

with only_agent(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_only_one_agent_works_on_a_journal_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    journal = tmp_path / "agents" / "journal.sqlite"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(journal)], stdout=subprocess.PIPE, env=dict(os.environ)) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigurationError, match=f"process {other.pid}"), only_agent(journal):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=30)
    with only_agent(journal):
        pass
    with only_agent(journal):
        pass
