"""What an operator sees: JSON logs with request ids, metrics, liveness and readiness.

`/livez` says that the process turns; `/readyz` that what it needs answers, and that it was not told to stop; `/metrics` speaks the
Prometheus text format. Labels are route templates, never paths, because a path holds identifiers and there is no end of them.
"""

import asyncio
import logging
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import text
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.foundation.database import transaction
from services.foundation.settings import ServiceSettings

Check = Callable[[], object]

log = structlog.get_logger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OWN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
CHECK_TIMEOUT_S = 2.0
READINESS_CACHE_S = 1.0

MAX_LOGGED_TEXT = 2000
MAX_LOGGED_TRACE = 8000
SECRET_NAME = re.compile(r"authorization|cookie|token|password|passphrase|secret|private|mnemonic|(^|_)key$", re.IGNORECASE)
# Three base64url segments of a session token, wherever they stand.
SECRET_VALUE = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
REDIRECTED_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "celery.task", "celery.worker", "celery.redirected")


# --- Logs -----------------------------------------------------------------------------------------------------------------------


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    shown = {name: "***" if SECRET_NAME.search(name) else _bounded(value) for name, value in event.items() if name != "exception"}
    if "exception" in event:
        # What was raised, and where, stands at the end of a trace.
        shown["exception"] = SECRET_VALUE.sub("***", str(event["exception"]))[-MAX_LOGGED_TRACE:]
    return shown


def _bounded(value: Any) -> Any:
    match value:
        case str():
            shown = SECRET_VALUE.sub("***", value)
            return shown if len(shown) <= MAX_LOGGED_TEXT else f"{shown[:MAX_LOGGED_TEXT]}… ({len(shown)} characters)"
        case dict():
            return {str(name): "***" if SECRET_NAME.search(str(name)) else _bounded(item) for name, item in value.items()}
        case list() | tuple():
            return [_bounded(item) for item in value[:50]]
        case _:
            return value


def configure_logging(settings: ServiceSettings) -> None:
    """Send everything that this process logs, also through `logging`, to stderr as one JSON object a line.

    Uvicorn's access lines are dropped: the request middleware writes a better one.
    """

    def add_service(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**event, "service": settings.service}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
    ]
    render: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _without_secrets,
        structlog.processors.JSONRenderer(default=str),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter(), structlog.stdlib.ExtraAdder()], processors=render
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in REDIRECTED_LOGGERS:
        redirected = logging.getLogger(name)
        redirected.handlers, redirected.propagate = [], True
    logging.getLogger("uvicorn.access").disabled = True
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


# --- Requests -------------------------------------------------------------------------------------------------------------------


def route_template(scope: Scope) -> str:
    """The template of the matched route with the prefixes of its routers, `unmatched` without one."""
    included = scope.get("fastapi", {}).get("effective_route_context")
    route = included or scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", "unmatched"))


class _RequestMiddleware:
    """Gives each request an id, and counts, times and logs it."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        self._count = Counter("http_requests", "Answered requests", ["method", "route", "status"], registry=registry)
        self._seconds = Histogram("http_request_duration_seconds", "Time to the end of the answer", ["method", "route"], registry=registry)
        self._in_flight = Gauge("http_requests_in_flight", "Requests being answered", registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        status = 500  # of a request whose application raises before it answers

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id), self._in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                elapsed = time.perf_counter() - started
                method = scope["method"] if scope["method"] in METHODS else "other"
                route = route_template(scope)
                self._count.labels(method, route, status).inc()
                self._seconds.labels(method, route).observe(elapsed)
                write = log.debug if route in OWN_PATHS else log.info
                write("request", method=method, route=route, status=status, milliseconds=round(elapsed * 1000, 1))


def _request_id(scope: Scope) -> str:
    """The caller's id if it is one that can be logged as it is, else a fresh one."""
    for name, value in scope["headers"]:
        given = value.decode("latin-1")
        if name == b"x-request-id" and REQUEST_ID.fullmatch(given):
            return str(given)
    return secrets.token_hex(16)


# --- Readiness ------------------------------------------------------------------------------------------------------------------


class Readiness:
    """Runs the checks, each in a thread, with a time limit; an answer serves for a second.

    A check that hangs keeps its thread, so it is not started again before it has ended.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self.draining = False
        self._checks = dict(checks)
        self._running: dict[str, asyncio.Task[object]] = {}
        self._answer: dict[str, str] = {}
        self._answered_at = float("-inf")
        self._lock = asyncio.Lock()

    async def failures(self) -> dict[str, str]:
        """What does not answer, by name of the check, with the kind of failure; empty if the service is ready."""
        if self.draining:
            return {"process": "stopping"}
        async with self._lock:
            if time.monotonic() - self._answered_at > READINESS_CACHE_S:
                self._answer = await self._run()
                self._answered_at = time.monotonic()
            return self._answer

    async def _run(self) -> dict[str, str]:
        for name, check in self._checks.items():
            if name not in self._running:
                self._running[name] = asyncio.create_task(asyncio.to_thread(check))
        if self._running:
            await asyncio.wait(self._running.values(), timeout=CHECK_TIMEOUT_S)
        failed: dict[str, str] = {}
        for name, task in list(self._running.items()):
            if not task.done():
                failed[name] = f"no answer within {CHECK_TIMEOUT_S:g} s"
                continue
            del self._running[name]
            if error := task.exception():
                # The message may name addresses and accounts; it is for the log, the kind is enough for the prober.
                log.warning("not ready", check=name, error=str(error))
                failed[name] = type(error).__name__
        return failed


def standard_checks(app: FastAPI) -> dict[str, Check]:
    """The checks for what every service has on `app.state`: engine, objects, redis."""

    def database() -> None:
        with transaction(app.state.engine, read_only=True) as session:
            session.execute(text("SELECT 1"))

    def objects() -> None:
        app.state.objects.check()

    def redis() -> None:
        app.state.redis.ping()

    return {"database": database, "objects": objects, "redis": redis}


@asynccontextmanager
async def _draining_on_sigterm(readiness: Readiness, drain_s: float) -> AsyncIterator[None]:
    """On SIGTERM turn /readyz to 503 at once, and let the server close its listener `drain_s` later."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals: whoever runs the application elsewhere stops it otherwise
        return
    loop = asyncio.get_running_loop()
    server_handler = signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        again, readiness.draining = readiness.draining, True
        if not callable(server_handler):
            raise SystemExit(128 + number)
        if again or drain_s == 0:
            server_handler(number, frame)
        else:
            loop.call_soon_threadsafe(loop.call_later, drain_s, server_handler, number, frame)

    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is on_sigterm:
            signal.signal(signal.SIGTERM, server_handler)


# --- Installation ---------------------------------------------------------------------------------------------------------------


def install(app: FastAPI, settings: ServiceSettings, checks: Mapping[str, Check] | None = None) -> None:
    """Add request ids, metrics and probes to `app`. Call it last: the middleware added last sees every answer.

    Args:
        app: carries `engine`, `objects` and `redis` on its state by the time it serves.
        settings: for the time to drain.
        checks: further checks for readiness by name; each returns, or raises what is wrong.
    """
    # One registry for each application: several of them live in one process of the tests.
    registry = CollectorRegistry()
    readiness = Readiness({**standard_checks(app), **(checks or {})})
    app.add_middleware(_RequestMiddleware, registry=registry)
    inner_lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(running: FastAPI) -> AsyncIterator[Any]:
        async with inner_lifespan(running) as state, _draining_on_sigterm(readiness, settings.drain_s):
            yield state

    app.router.lifespan_context = lifespan

    @app.get("/livez", include_in_schema=False)
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz(request: Request) -> Response:
        failures = await readiness.failures()
        if not failures:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "failures": failures}, 503, {"Retry-After": "2"})

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        # The default registry holds the process's own figures and what the domain modules count.
        return Response(generate_latest(registry) + generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
