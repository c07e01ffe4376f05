"""Request ids, logs, metrics and probes, in applications and processes of their own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from redis import Redis
from sqlalchemy import Engine

from services.foundation import observability, problems
from services.foundation.database import open_engine
from services.foundation.objects import open_store
from services.foundation.observability import MAX_LOGGED_TEXT, READINESS_CACHE_S, Check
from services.foundation.settings import ServiceSettings
from services.foundation.sign_in import SessionTokens
from tests.services.upload_application import ALICE, settings_for


def application(settings: ServiceSettings, engine: Engine | None, redis_url: str, checks: dict[str, Check] | None = None) -> FastAPI:
    app = FastAPI()
    app.state.settings, app.state.engine = settings, engine
    app.state.objects, app.state.redis = open_store(settings.object_store_url), Redis.from_url(redis_url, socket_timeout=1)
    router = APIRouter(prefix="/v1")

    @router.get("/things/{thing}")
    def show(thing: str) -> str:
        return thing

    @router.get("/defect")
    def fail() -> None:
        raise ZeroDivisionError

    problems.install(app)
    app.include_router(router, prefix="/prefixed")
    observability.install(app, settings, checks)
    return app


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> ServiceSettings:
    return settings_for(f"sqlite:///{tmp_path / 'unmigrated.sqlite'}", "memory://", redis_url=redis_url)


@pytest.fixture
def make(settings: ServiceSettings, redis_url: str) -> Iterator[Callable[..., TestClient]]:
    """Starts applications; each serves until the test ends."""
    started: list[TestClient] = []
    engine = open_engine(settings.database_url)

    def start(checks: dict[str, Check] | None = None) -> TestClient:
        client = TestClient(application(settings, engine, redis_url, checks))
        client.__enter__()
        started.append(client)
        return client

    yield start
    for client in started:
        client.__exit__(None, None, None)
    engine.dispose()


Make = Callable[..., TestClient]


def samples(client: TestClient, name: str) -> dict[str, float]:
    """Samples of the metric by their labels, as they stand in the text."""
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


# --- Request ids ----------------------------------------------------------------------------------------------------------------


def test_every_answer_has_a_request_id(make: Make) -> None:
    client = make()
    ids = {client.get(path).headers["x-request-id"] for path in ("/prefixed/v1/things/1", "/nothing", "/prefixed/v1/defect", "/livez")}
    assert len(ids) == 4
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)


def test_a_callers_id_is_kept_if_it_is_one(make: Make) -> None:
    client = make()
    kept = "01J9-abc.DEF_42"
    assert client.get("/nothing", headers={"X-Request-ID": kept}).json()["request_id"] == kept
    for hostile in ("short", "x" * 65, 'a"},{"event":"forged', "line\tbreak1", "a b c d e f g"):
        given = client.get("/nothing", headers={"X-Request-ID": hostile}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


# --- Metrics --------------------------------------------------------------------------------------------------------------------


def test_metrics_count_by_route_template(make: Make) -> None:
    client = make()
    for thing in range(3):
        client.get(f"/prefixed/v1/things/{thing}")
    client.get("/prefixed/v1/defect")
    client.get("/wp-admin.php")
    client.request("PROPFIND", "/prefixed/v1/things/1")
    assert samples(client, "http_requests_total") == {
        'method="GET",route="/prefixed/v1/things/{thing}",status="200"': 3,
        'method="GET",route="/prefixed/v1/defect",status="500"': 1,
        'method="GET",route="unmatched",status="404"': 1,
        'method="other",route="/prefixed/v1/things/{thing}",status="405"': 1,
    }
    assert samples(client, "http_request_duration_seconds_count")['method="GET",route="/prefixed/v1/things/{thing}"'] == 3
    assert samples(client, "http_requests_in_flight") == {"": 1}, "the request that asks"
    assert samples(client, "python_info"), "the process's own metrics"


def test_applications_of_one_process_count_apart(make: Make) -> None:
    one, other = make(), make()
    one.get("/prefixed/v1/things/1")
    label = 'method="GET",route="/prefixed/v1/things/{thing}",status="200"'
    assert samples(one, "http_requests_total")[label] == 1
    assert label not in samples(other, "http_requests_total")


# --- Probes ---------------------------------------------------------------------------------------------------------------------


def test_a_service_with_its_parts_is_ready(make: Make) -> None:
    client = make()
    assert client.get("/livez").json() == {"status": "alive"}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_a_part_that_fails_is_named_without_its_address(settings: ServiceSettings, tmp_path: Path) -> None:
    def chain() -> None:
        raise ConnectionError("rpc.example.org/v3/secret")

    elsewhere = open_engine(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder'}")
    with TestClient(application(settings, elsewhere, "redis://127.0.0.1:1/0", {"chain": chain})) as client:
        assert client.get("/livez").status_code == 200
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "not ready",
        "failures": {"database": "OperationalError", "redis": "ConnectionError", "chain": "ConnectionError"},
    }


def test_an_answer_serves_for_a_second(make: Make) -> None:
    runs: list[float] = []
    client = make({"counted": lambda: runs.append(time.monotonic())})
    deadline = time.monotonic() + READINESS_CACHE_S * 2.5
    probes = 0
    while time.monotonic() < deadline:
        client.get("/readyz")
        probes += 1
    assert probes > 10
    assert 2 <= len(runs) <= 3
    assert all(later - earlier >= READINESS_CACHE_S for earlier, later in pairwise(runs))


def test_a_check_that_hangs_is_reported_in_time_and_not_started_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough that the other checks, of the database and the chain, end in it on a busy machine.
    monkeypatch.setattr(observability, "CHECK_TIMEOUT_S", 1.5)
    monkeypatch.setattr(observability, "READINESS_CACHE_S", 0.1)
    runs: list[int] = []
    release = threading.Event()

    def hang() -> None:
        runs.append(1)
        release.wait(60)

    client = make({"hanging": hang})
    try:
        for _ in range(2):
            began = time.monotonic()
            answer = client.get("/readyz")
            assert 1.5 <= time.monotonic() - began < 10
            assert answer.json()["failures"] == {"hanging": "no answer within 1.5 s"}
            while time.monotonic() - began < 1.7:
                assert client.get("/livez").status_code == 200
        assert runs == [1]
    finally:
        release.set()
    deadline = time.monotonic() + 10
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline


DRAINED = """
import sys, uvicorn
from fastapi import FastAPI
from services.foundation import observability
from tests.services.upload_application import settings_for

port, drain_s = int(sys.argv[1]), float(sys.argv[2])
app = FastAPI()
settings = settings_for("sqlite:///unused", "memory://", drain_s=drain_s)
observability.configure_logging(settings)
observability.install(app, settings)
class Fine:
    def check(self): pass
    def ping(self): pass
from sqlalchemy import create_engine
app.state.engine, app.state.objects, app.state.redis = create_engine("sqlite://"), Fine(), Fine()
uvicorn.run(app, host="127.0.0.1", port=port, timeout_graceful_shutdown=2)
"""


@pytest.mark.parametrize("drain_s", [0.0, 1.5])
def test_sigterm_ends_readiness_first_and_then_the_process(drain_s: float) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", DRAINED, str(port), str(drain_s)], stderr=subprocess.PIPE, text=True)
    try:
        statuses: set[int] = set()
        deadline = time.monotonic() + 30
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            while not statuses:
                try:
                    statuses.add(client.get("/readyz").status_code)
                except httpx.ConnectError:
                    assert time.monotonic() < deadline
            assert statuses == {200}
            process.send_signal(signal.SIGTERM)
            sent, last_answer = time.monotonic(), 0.0
            after: list[int] = []
            with suppress(httpx.TransportError):
                while time.monotonic() < deadline:
                    # A connection of its own each time: the listener must still be open.
                    after.append(httpx.get(f"http://127.0.0.1:{port}/readyz").status_code)
                    last_answer = time.monotonic()
        process.wait(10)
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGTERM)
    if drain_s:
        assert 503 in after
        assert after[-1] == 503
        assert last_answer - sent >= drain_s * 0.8
    else:
        assert time.monotonic() - sent < 5


# --- Logs -----------------------------------------------------------------------------------------------------------------------

LOGGING = """
import logging, sys, structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient
from services.foundation import observability, problems
from tests.services.upload_application import settings_for

settings = settings_for("sqlite:///unused", "memory://", debug=True)
observability.configure_logging(settings)
observability.configure_logging(settings)  # twice is once
log = structlog.get_logger("example")
token = sys.argv[1]

log.info("secrets", authorization="Bearer abc", session_key="k" * 64, nested={"password": "hunter2", "fine": 1}, text=f"Bearer {token}")
log.info("long", text="x" * 100_000)
log.debug("not shown")
logging.getLogger("uvicorn.error").info("from %s", "uvicorn")
logging.getLogger("uvicorn.access").info("dropped")
logging.getLogger("celery.task").warning("from celery")
logging.getLogger("library").error("from a library", extra={"batch": 7, "token": token})
logging.getLogger("library").info("newline\\nand quote\\" in one line")
try:
    raise ValueError("inside " + token)
except ValueError:
    log.exception("failed")

app = FastAPI()
problems.install(app)
observability.install(app, settings)

@app.get("/things/{thing}")
def show(thing: str):
    log.info("in the handler", thing=thing)
    logging.getLogger("library").info("in a library")

@app.get("/defect")
def fail():
    raise ZeroDivisionError

with TestClient(app) as client:
    client.get("/things/1", headers={"X-Request-ID": "request-0001", "Authorization": f"Bearer {token}"})
    client.get("/defect", headers={"X-Request-ID": "request-0002"})
"""


@pytest.fixture(scope="module")
def logged() -> tuple[str, list[dict[str, Any]]]:
    """What a process wrote to stderr: the text, and its lines."""
    token = SessionTokens(settings_for("sqlite:///unused", "memory://")).issue(ALICE).token
    ended = subprocess.run(
        [sys.executable, "-c", LOGGING, token], capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "NO_COLOR": ""}
    )
    assert ended.stdout == ""
    assert token not in ended.stderr
    return ended.stderr, [json.loads(line) for line in ended.stderr.splitlines()]


Logged = tuple[str, list[dict[str, Any]]]


def line(logged: Logged, event: str) -> dict[str, Any]:
    (found,) = [entry for entry in logged[1] if entry["event"] == event]
    return found


def test_every_line_is_one_json_object_that_says_where_it_is_from(logged: Logged) -> None:
    for entry in logged[1]:
        assert entry["service"] == "uploads"
        assert entry["timestamp"].endswith("Z")
        assert entry["level"] in ("info", "warning", "error")
        assert entry["logger"]


def test_other_libraries_write_the_same_lines(logged: Logged) -> None:
    assert line(logged, "from uvicorn")["logger"] == "uvicorn.error"
    assert line(logged, "from celery")["level"] == "warning"
    assert line(logged, "from a library")["batch"] == 7
    assert line(logged, 'newline\nand quote" in one line')["level"] == "info"
    assert not any("dropped" in entry["event"] or "not shown" in entry["event"] for entry in logged[1])


def test_no_secret_and_no_flood(logged: Logged) -> None:
    for secret in ("hunter2", "Bearer abc", "k" * 64):
        assert secret not in logged[0]
    entry = line(logged, "secrets")
    assert (entry["authorization"], entry["session_key"], entry["nested"]) == ("***", "***", {"password": "***", "fine": 1})
    assert entry["text"] == "Bearer ***"
    assert len(line(logged, "long")["text"]) < MAX_LOGGED_TEXT + 50


def test_exceptions_are_one_field(logged: Logged) -> None:
    assert "ValueError: inside ***" in line(logged, "failed")["exception"]


def test_a_request_is_followed_by_its_id(logged: Logged) -> None:
    first = [entry["event"] for entry in logged[1] if entry.get("request_id") == "request-0001"]
    assert first == ["in the handler", "in a library", "request"]
    (done,) = [entry for entry in logged[1] if entry["event"] == "request" and entry["request_id"] == "request-0001"]
    assert (done["method"], done["route"], done["status"]) == ("GET", "/things/{thing}", 200)
    assert done["milliseconds"] > 0
    second = [entry for entry in logged[1] if entry.get("request_id") == "request-0002"]
    assert [entry["event"] for entry in second] == ["unexpected error", "request"]
    assert "ZeroDivisionError" in second[0]["exception"]
    assert second[1]["status"] == 500
