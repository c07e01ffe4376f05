"""The client against a real server that misbehaves: problems, retries, bounds, and answers that lie."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn

from rexis.client.connection import Connection, Timeouts, origin, printable
from rexis.errors import ConfigurationError, MalformedMessageError, ServiceError, UnavailableError

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
QUICK = Timeouts(connect_s=2, read_s=0.5, write_s=2, answer_s=1.5, attempts_s=10)


class HostileServer:
    """A plain ASGI application; each path misbehaves in its own way. `calls` keeps (method, path, headers, body)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str], bytes]] = []

    def count(self, path: str) -> int:
        return sum(1 for _, called, _, _ in self.calls if called == path)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        path = scope["path"]
        self.calls.append((scope["method"], path, headers, body))
        await getattr(self, path.strip("/").replace("-", "_"))(headers, body, send)

    async def answer(self, send: Send, status: int, content: bytes, **headers: str) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": content})

    async def json(self, send: Send, status: int, value: Any, **headers: str) -> None:
        await self.answer(send, status, json.dumps(value).encode(), content_type="application/json", **headers)

    async def echo(self, headers: dict[str, str], body: bytes, send: Send) -> None:
        await self.json(send, 200, {"body": body.decode(), "headers": headers})

    async def twice_unavailable(self, _: dict[str, str], __: bytes, send: Send) -> None:
        if self.count("/twice-unavailable") < 3:
            await self.json(send, 503, {"type": "x", "title": "Unavailable", "detail": "wait"}, retry_after="0")
        else:
            await self.json(send, 200, "up")

    async def always_unavailable(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await self.json(send, 503, {"type": "x", "title": "Unavailable", "detail": "wait"})

    async def in_flight(self, _: dict[str, str], __: bytes, send: Send) -> None:
        if self.count("/in-flight") == 1:
            await self.json(send, 409, {"type": "urn:rexis:problem:request-in-flight", "title": "t", "detail": "d"})
        else:
            await self.json(send, 202, {"id": "1"})

    async def refused(self, _: dict[str, str], __: bytes, send: Send) -> None:
        problem = {"type": "urn:rexis:problem:policy", "title": "Not allowed", "status": 403, "detail": "rule NCU", "errors": [1]}
        await self.answer(send, 403, json.dumps(problem).encode(), content_type="application/problem+json")

    async def proxy_page(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await self.answer(send, 500, b"<html>bad gateway</html>", content_type="text/html")

    async def terminal_escape(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await self.json(send, 403, {"title": "\x1b[2J\x1b]0;owned\x07", "detail": ["not", "text"], "type": 7})

    async def not_json(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await self.answer(send, 200, b"{'a': 1}", content_type="application/json")

    async def deep(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await self.answer(send, 200, b"[" * 200_000, content_type="application/json")

    async def endless(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        for _step in range(200):
            await send({"type": "http.response.body", "body": b" " * 10_000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def dripping(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        for _step in range(100):
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b""})

    async def silent(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await asyncio.sleep(3)
        await self.json(send, 200, None)

    async def compressed(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await self.answer(send, 200, b"\x1f\x8b", content_type="application/json", content_encoding="gzip")

    async def elsewhere(self, _: dict[str, str], __: bytes, send: Send) -> None:
        await self.answer(send, 307, b"", location="http://127.0.0.1:1/")

    async def private(self, headers: dict[str, str], _: bytes, send: Send) -> None:
        if headers.get("authorization") == "Bearer fresh":
            await self.json(send, 200, "in")
        else:
            await self.json(send, 401, {"type": "t", "title": "Sign in", "detail": "expired"})


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[HostileServer, str]]:
    application = HostileServer()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield application, f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    listener.close()


@pytest.fixture
def server(running: tuple[HostileServer, str]) -> HostileServer:
    running[0].calls.clear()
    return running[0]


@pytest.fixture
def connection(running: tuple[HostileServer, str]) -> Iterator[Connection]:
    with Connection(running[1], service="the marketplace", timeouts=QUICK) as opened:
        yield opened


def test_a_call_carries_json_a_request_id_and_the_key(connection: Connection, server: HostileServer) -> None:
    answer = connection.post("/echo", {"a": "ü"}, idempotency_key="k1")
    assert json.loads(answer["body"]) == {"a": "ü"}
    assert answer["headers"]["idempotency-key"] == "k1"
    assert len(answer["headers"]["x-request-id"]) == 32
    assert "authorization" not in answer["headers"]
    assert connection.get("/echo")["headers"]["x-request-id"] != answer["headers"]["x-request-id"]


def test_reading_is_retried_until_the_service_is_up(connection: Connection, server: HostileServer) -> None:
    assert connection.get("/twice-unavailable") == "up"
    assert server.count("/twice-unavailable") == 3


def test_a_post_without_a_key_is_sent_once(connection: Connection, server: HostileServer) -> None:
    with pytest.raises(ServiceError) as refusal:
        connection.post("/always-unavailable", {})
    assert refusal.value.status == 503
    assert server.count("/always-unavailable") == 1


def test_a_post_with_a_key_waits_for_its_first_delivery_with_the_same_key(connection: Connection, server: HostileServer) -> None:
    assert connection.post("/in-flight", {"a": 1}, idempotency_key="k2") == {"id": "1"}
    assert [headers["idempotency-key"] for _, _, headers, _ in server.calls] == ["k2", "k2"]


def test_a_problem_is_raised_with_all_its_members_and_not_retried(connection: Connection, server: HostileServer) -> None:
    with pytest.raises(ServiceError, match=r"Not allowed: rule NCU \(HTTP 403\)") as refusal:
        connection.get("/refused")
    assert refusal.value.problem["errors"] == [1]
    assert refusal.value.problem["type"] == "urn:rexis:problem:policy"
    assert server.count("/refused") == 1


def test_an_error_without_a_problem_document_becomes_one(connection: Connection, server: HostileServer) -> None:
    with pytest.raises(ServiceError, match="HTTP 500") as refusal:
        connection.get("/proxy-page")
    assert refusal.value.problem["type"] == "about:blank"
    assert "html" not in str(refusal.value)


def test_control_characters_do_not_reach_a_terminal(connection: Connection, server: HostileServer) -> None:
    with pytest.raises(ServiceError) as refusal:
        connection.get("/terminal-escape")
    assert str(refusal.value).isprintable()
    assert refusal.value.problem["detail"] == "no problem document was sent"


@pytest.mark.parametrize("path", ["/not-json", "/deep", "/compressed", "/elsewhere"])
def test_an_answer_that_is_not_what_it_claims_is_refused(connection: Connection, server: HostileServer, path: str) -> None:
    with pytest.raises(MalformedMessageError):
        connection.get(path)


def test_an_answer_is_cut_off_at_the_limit(connection: Connection, server: HostileServer) -> None:
    with pytest.raises(MalformedMessageError, match="at most 100000 bytes"):
        connection.request("GET", "/endless", max_bytes=100_000)


def test_a_server_that_drips_is_given_up(connection: Connection, server: HostileServer) -> None:
    before = time.monotonic()
    with pytest.raises(UnavailableError, match="did not finish its answer"):
        connection.get("/dripping")
    assert time.monotonic() - before < 8


def test_a_server_that_says_nothing_is_given_up(running: tuple[HostileServer, str], server: HostileServer) -> None:
    with Connection(running[1], timeouts=QUICK, attempts=2) as connection, pytest.raises(UnavailableError, match="did not answer in time"):
        connection.get("/silent")
    assert server.count("/silent") == 2


def test_no_server_at_all_says_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Connection(url, service="the verifier", attempts=2) as connection, pytest.raises(UnavailableError, match="make up"):
            connection.get("/v1/chain")


def test_an_expired_session_is_renewed_once(running: tuple[HostileServer, str], server: HostileServer) -> None:
    asked: list[bool] = []

    def token(renew: bool) -> str:
        asked.append(renew)
        return "fresh" if renew else "stale"

    with Connection(running[1], authorise=token) as connection:
        assert connection.get("/private") == "in"
    assert asked == [False, True]
    with Connection(running[1], authorise=lambda renew: "stale") as connection, pytest.raises(ServiceError, match="HTTP 401"):
        connection.get("/private")
    assert server.count("/private") == 4


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.org", "form https"),
        ("example.org:8001", "form https"),
        ("https://example.org/path", "form https"),
        ("https://user@example.org", "form https"),
        ("https://example.org:99999", "not a URL"),
        ("http://example.org", "without TLS"),
        ("http://127.0.0.1.example.org", "without TLS"),
        ("http://[::ffff:8.8.8.8]", "without TLS"),
    ],
)
def test_urls_that_would_leak_or_mislead_are_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        origin(url)


def test_origins() -> None:
    assert origin("HTTPS://Market.Example:8443/") == "https://market.example:8443"
    assert origin("http://[::1]:8001") == "http://[::1]:8001"
    assert origin("http://localhost:8001") == "http://localhost:8001"
    assert origin("http://marketplace:8001", allow_plaintext=True) == "http://marketplace:8001"


def test_printable_keeps_letters_and_bounds() -> None:
    assert printable("Zürich\n\x1b[31m") == "Zürich  [31m"
    assert printable("x" * 5_000, 10) == "x" * 10
