"""An agent with one registered table and a marketplace that hands it queries: what tests of the query duty have in common.

The marketplace here is no stand-in for the real one (`tests/services/test_agent_queries.py`): it dies, forgets and repeats on command. Run
as a program, it polls once in a process that can be killed.
"""

import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from rexis.agent.duty import Event
from rexis.agent.execution.duty import QueryDuty
from rexis.agent.execution.ledger import DisclosureLedger
from rexis.agent.execution.query_rules import QueryRules
from rexis.agent.federation.holding import hold
from rexis.agent.journal import Journal
from rexis.agent.premises import ServedTable
from rexis.agent.registration import Target, advance, prepare
from rexis.agent.table import Table
from rexis.client.connection import Connection
from rexis.client.queries import QueryClient
from rexis.encoding import to_hex
from rexis.policy.conditions import Conditions
from rexis.policy.duo import DataUsePolicy, Permission, Purpose
from rexis.protocol.queries import TableQuery

PASSPHRASE = "a passphrase for tests"
OWNER, CONSUMER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
TARGET = Target(31337, OWNER, CONSUMER)
DATASET = 7
POLICY = DataUsePolicy.parse({"version": 1, "permission": "HMB", "modifiers": {"NCU": []}})
RULES = QueryRules(frozenset({"num"}))
GROUPS = (("f", 0, 30), ("f", 1, 20), ("m", 0, 35), ("m", 1, 15))
TABLE = Table(("sex", "age", "num"), tuple((sex, str(30 + index), str(num)) for sex, num, count in GROUPS for index in range(count)))
SICK = {"column": "num", "above": "0"}
SEX = {"column": "sex", "levels": ["f", "m"]}


def conditions(**changes: Any) -> Conditions:
    """What the consumer declared for its grant."""
    purpose = Purpose(Permission.HMB, date(2099, 1, 1), commercial=False)
    fields = {"request": 32 * "a", "dataset": DATASET, "consumer": CONSUMER, "policy_hash": POLICY.digest(), "purpose": purpose, "days": 30}
    return Conditions(**{**fields, "text": "", **changes})


@dataclass
class Grants:
    """What the chain says."""

    found: Callable[[], bytes] = lambda: conditions().digest()

    def conditions_hash(self, _dataset: int, _consumer: str, _purpose: Permission) -> bytes:
        return self.found()


@dataclass
class QueryServer:
    """Queries that wait, and every outcome that was put: id and raw body."""

    work: list[dict[str, Any]] = field(default_factory=list)
    puts: list[tuple[str, bytes]] = field(default_factory=list)
    answer_put: Callable[[str], JSONResponse | None] = lambda _query: None
    before_put: Callable[[], None] = lambda: None

    def hand_in(self, *dimensions: dict[str, Any], filters: Any = (), declared: Conditions | None = None, dataset: int = DATASET) -> str:
        """A new query; its id."""
        query = TableQuery.parse({"version": 1, "kind": "table", "dimensions": list(dimensions), "filters": list(filters)})
        view = {
            "id": secrets.token_hex(16),
            "dataset": dataset,
            "consumer": CONSUMER,
            "purpose": 6,
            "query": query.document(),
            "query_digest": to_hex(query.digest),
            "conditions": (declared or conditions()).document(),
            "state": "queued",
            "created_at": "2026-11-21T00:00:00Z",
            "state_since": "2026-11-21T00:00:00Z",
        }
        self.work.append(view)
        return str(view["id"])

    def application(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/queries/work")
        def queued() -> dict[str, Any]:
            return {"items": self.work}

        @app.put("/v1/queries/{query_id}/outcome", response_model=None)
        async def outcome(query_id: str, request: Request) -> JSONResponse:
            self.puts.append((query_id, await request.body()))
            self.before_put()
            refusal = self.answer_put(query_id)
            if refusal is not None:
                return refusal
            view = next(view for view in self.all_views if view["id"] == query_id)
            self.work = [each for each in self.work if each["id"] != query_id]
            return JSONResponse(view)

        return app

    @property
    def all_views(self) -> list[dict[str, Any]]:
        """Views by which `outcome` answers, also of queries that wait no more."""
        self._views = {**getattr(self, "_views", {}), **{view["id"]: view for view in self.work}}
        return list(self._views.values())


def problem(status: int, kind: str) -> JSONResponse:
    body = {"type": f"urn:rexis:problem:{kind}", "title": "Refused", "detail": "for the test", "status": status}
    return JSONResponse(body, status, media_type="application/problem+json")


def registered_journal(path: Path) -> Journal:
    """A journal with the table registered as data set `DATASET`."""
    journal = Journal.open(path, PASSPHRASE, work_factor=2)
    row = prepare(journal, TABLE, {"name": "A table"}, POLICY.document(), owner=OWNER, target=TARGET)
    if row.token_id is None:
        advance(journal, row, "registered", {}, token_id=DATASET)
    return journal


@contextmanager
def query_duty(
    path: Path, url: str, *, rules: QueryRules = RULES, grants: Grants | None = None, events: list[Event] | None = None
) -> Iterator[QueryDuty]:
    """The duty on the journal at `path`."""
    report = (events if events is not None else []).append
    with registered_journal(path) as journal, Connection(url, attempts=1) as connection:
        served = ServedTable(hold(journal, TABLE, owner=OWNER, target=TARGET), POLICY, None)
        yield QueryDuty([served], rules, DisclosureLedger(journal), QueryClient(connection), grants or Grants(), report)


@contextmanager
def serving(server: QueryServer) -> Iterator[str]:
    """The URL of a running server."""
    import uvicorn

    running = uvicorn.Server(uvicorn.Config(server.application(), port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()


if __name__ == "__main__":
    with query_duty(Path(sys.argv[1]), sys.argv[2]) as polled:
        polled.poll()
