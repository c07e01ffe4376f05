"""The part of the local platform that the campaign kills: chain, contracts, one marketplace, its relay and its chain index.

Everything is as `make up` has it, supervisor, state file and its copies included; only the background process is two.
"""

import json
import os
import secrets
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from sqlalchemy import Engine, func, select

from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.chain.signer import LOCAL_CHAIN_ID, LocalSigner
from services.foundation.chain_index import ChainBlock
from services.foundation.database import now, open_engine, transaction
from services.foundation.outbox.transactions import ChainIntent
from services.local.chain_state import Copying
from services.local.composition import ROOT, Composition
from services.local.ports import PortClaims
from services.local.process import ProcessSpec
from services.local.settings import SERVICES, LocalSettings
from services.local.supervisor import Supervisor
from tests.services.chain_process import rpc

SERVICE = "marketplace"
VICTIMS = ("chain", "relay", "index")
ENDED = ("final", "failed")
STATE_INTERVAL_S = 1.0
COMPARED_BLOCKS = 100
LONGEST_START_S = 120.0
LONGEST_WAIT_S = 5.0


@dataclass(frozen=True)
class Kill:
    """What a process was doing when it was killed, and what that cost.

    Attributes:
        torn: the chain's state file was left half written, as by a kill in the middle of a dump: a copy of seconds before is used.
        intents: promised calls by state, at the kill.
        blocks_lost: of the chain's last blocks, how many it has not when it is back.
        behind: blocks that the chain index had not read yet.
    """

    victim: str
    at_s: float
    torn: bool
    intents: dict[str, int]
    blocks_lost: int
    behind: int


class Estate:
    """Running processes; use it in a `with` statement.

    Attributes:
        service: the one service that runs.
        url: the service's.
        chain_url: the chain's.
        engine: the service's database.
    """

    service = SERVICE

    def __init__(self, folder: Path) -> None:
        self.settings = LocalSettings(data_dir=folder)
        with ExitStack() as undo:
            self._claims = PortClaims(dict.fromkeys((*SERVICES, "chain", "redis")))
            undo.callback(self._claims.release)
            composition = Composition(self.settings, self._claims.ports, f"{self.settings.folder}#{secrets.token_hex(8)}")
            self.url, self.chain_url, self.state = composition.urls[self.service], composition.urls["chain"], composition.chain_state
            self.supervisor = Supervisor(
                self._specs(composition), logs=folder / "logs", cwd=ROOT, start_timeout_s=LONGEST_START_S, stop_timeout_s=10
            )
            undo.pop_all()
        self.relayer = LocalSigner(bytes.fromhex((composition.keys / f"{self.service}-relayer").read_text())).address
        self.engine: Engine = open_engine(self.settings.database_url(self.service))

    def __enter__(self) -> Self:
        self._copying = Copying(self.state)
        self.supervisor.start()
        try:
            self.supervisor.wait_ready()
        except BaseException:
            self._stop()
            raise
        self.started = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self.supervisor.stop()
        self._copying.stop()
        self._claims.release()
        self.engine.dispose()

    def _specs(self, composition: Composition) -> list[ProcessSpec]:
        given = {spec.name: spec for spec in composition.specs()}
        schema = given["schema"]
        databases = {**schema.environment, "REXIS_LOCAL_DATABASES": f"{self.service}={self.settings.database_url(self.service)}"}
        return [
            *(given[name] for name in ("guard", "redis", "chain", "contracts", self.service)),
            replace(schema, environment=databases),
            *self._background(given[f"{self.service}-background"]),
        ]

    def _background(self, whole: ProcessSpec) -> list[ProcessSpec]:
        return [_half(whole, half) for half in ("relay", "index")]

    def connect(self) -> Chain:
        """The chain, checked."""
        return Chain.connect(self.chain_url, load(LOCAL_CHAIN_ID))

    def kill(self, victim: str, *, torn: bool) -> Kill:
        """SIGKILL, and wait until the supervisor has it running again."""
        runs, pid = self.supervisor.status[victim].runs, self.supervisor.pids()[victim]
        known, intents, at_s = self.indexed(), self.intents(), time.monotonic() - self.started
        head = self.head()
        hashes = self._hashes(head)
        os.kill(pid, signal.SIGKILL)
        if torn:
            self.wait(lambda: not _runs(pid), "the chain is dead")
            os.truncate(self.state, self.state.stat().st_size // 2)
        self.wait(lambda: self.supervisor.status[victim].runs > runs, f"the supervisor starts the {victim} again")
        if victim == "chain":
            self.supervisor.wait_ready()  # the contracts may have to be put there again
        after = self._hashes(head)
        lost = sum(after.get(number) != block_hash for number, block_hash in hashes.items())
        return Kill(victim, round(at_s, 2), torn, intents, lost, max(0, head - known))

    def is_kept(self, since: float, *, copied: bool) -> bool:
        """Whether the chain's state file, or its newest copy, was written a while after this moment of the clock."""
        file = self.state.with_name(f"{self.state.stem}.1{self.state.suffix}") if copied else self.state
        return file.exists() and file.stat().st_mtime > since + 2 * STATE_INTERVAL_S

    def head(self) -> int:
        """Number of the chain's last block."""
        return int(rpc(self.chain_url, "eth_blockNumber"), 16)

    def _hashes(self, head: int) -> dict[int, str]:
        numbers = range(max(0, head - COMPARED_BLOCKS), head + 1)
        # One request, so that hardly anything happens between it and the kill.
        asked = [{"jsonrpc": "2.0", "id": number, "method": "eth_getBlockByNumber", "params": [hex(number), False]} for number in numbers]
        request = urllib.request.Request(self.chain_url, json.dumps(asked).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            answers = json.loads(response.read())
        return {answer["id"]: answer["result"]["hash"] for answer in answers if answer["result"] is not None}

    def indexed(self) -> int:
        """Number of the last block that the index has read."""
        with transaction(self.engine, read_only=True) as session:
            return session.scalars(select(func.max(ChainBlock.number))).one() or 0

    def intents(self) -> dict[str, int]:
        """Promised calls by state."""
        with transaction(self.engine, read_only=True) as session:
            found = session.execute(select(ChainIntent.state, func.count()).group_by(ChainIntent.state)).all()
        return dict(sorted((state, count) for state, count in found))

    def meet(self, states: Collection[str]) -> None:
        """Wait until a call has just got into one of these states, but not for long."""
        asked = now()
        newest = select(func.max(ChainIntent.state_since)).where(ChainIntent.state.in_(states))
        deadline = time.monotonic() + LONGEST_WAIT_S
        while time.monotonic() < deadline:
            with transaction(self.engine, read_only=True) as session:
                latest = session.scalars(newest).one()
            if latest is not None and latest > asked:
                return
            time.sleep(0.01)

    def unsettled(self) -> int:
        """Promised calls that are neither final nor failed."""
        return sum(count for state, count in self.intents().items() if state not in ENDED)

    def settle(self, patience_s: float) -> None:
        """Wait until every promised call has ended and the index has read the chain.

        `patience_s` bounds the time in which nothing at all goes on, not the whole.
        """
        seen: tuple[Any, ...] = ()
        deadline = time.monotonic() + patience_s
        while self.unsettled() or self.indexed() < self.head():
            self.supervisor.wait_failure(lambda: True)
            stand = (self.intents(), self.indexed())
            if stand != seen:
                seen, deadline = stand, time.monotonic() + patience_s
            assert time.monotonic() < deadline, f"nothing goes on any more: calls {stand[0]}, index at {stand[1]} of {self.head()}"
            time.sleep(0.2)

    def logged(self, victim: str, event: str) -> int:
        """How many lines of a process's log hold this text."""
        log = self.settings.folder / "logs" / f"{victim}.log"
        return log.read_text(errors="replace").count(event)

    def wait(self, happened: Callable[[], bool], what: str) -> None:
        """Block until it happens; fails with the supervisor, or after `LONGEST_START_S`."""
        deadline = time.monotonic() + LONGEST_START_S
        while not happened():
            self.supervisor.wait_failure(lambda: True)
            assert time.monotonic() < deadline, f"not within {LONGEST_START_S} s: {what}"
            time.sleep(0.01)


def _half(whole: ProcessSpec, half: str) -> ProcessSpec:
    heartbeat = Path(whole.environment["REXIS_HEARTBEAT_FILE"]).with_name(half)

    def forget() -> None:
        heartbeat.parent.mkdir(parents=True, exist_ok=True)
        heartbeat.unlink(missing_ok=True)

    def beats() -> None:
        if not heartbeat.exists():
            raise OSError(f"{heartbeat} is not written yet")

    environment = {**whole.environment, "REXIS_HEARTBEAT_FILE": str(heartbeat)}
    command = (sys.executable, "-m", "tests.campaign.half_process", half)
    return replace(whole, name=half, command=command, environment=environment, before=forget, probe=beats)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
