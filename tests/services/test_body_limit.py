"""Bounds on bodies, against a real server: what is too large, too slow, or not wanted."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from rexis.protocol.uploads import PART_SIZE, content_digest_header
from services.foundation.database import open_engine, transaction
from services.foundation.objects import open_store
from services.foundation.settings import ServiceSettings
from services.foundation.uploads import UploadPart
from tests.services.upload_application import authorised, settings_for, upload_application

READ_TIMEOUT_S = 0.5
MAX_BODY_BYTES = 100_000

pytestmark = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> ServiceSettings:
    folder = (tmp_path / "objects").as_uri()
    return settings_for(database_url, folder, read_timeout_s=READ_TIMEOUT_S, max_body_bytes=MAX_BODY_BYTES)


@pytest.fixture
def server(settings: ServiceSettings) -> Iterator[int]:
    """The port of a real server in a thread."""
    engine, objects = open_engine(settings.database_url), open_store(settings.object_store_url)
    app = upload_application(settings, engine, objects)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    running = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    yield int(listener.getsockname()[1])
    running.should_exit = True
    thread.join(10)
    listener.close()
    engine.dispose()


@pytest.fixture
def client(server: int, settings: ServiceSettings) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server}", headers=authorised(settings), timeout=30) as opened:
        yield opened


def head(settings: ServiceSettings, method: str, path: str, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"{name}: {value}" for name, value in authorised(settings).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; reads until the server closes the connection or the body is whole."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536) or pytest.fail(f"the connection ended after {received!r}")
    top, _, body = received.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(status.split()[1]), headers, body


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        yield connection


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def opened(client: httpx.Client, total_bytes: int) -> str:
    return str(client.post("/v1/uploads", json={"total_bytes": total_bytes}).raise_for_status().json()["id"])


def test_an_announced_length_is_refused_before_a_byte_is_read(server: int, settings: ServiceSettings) -> None:
    with connected(server) as connection:
        announced = {"Content-Type": "application/json", "Content-Length": str(1 << 40)}
        connection.sendall(head(settings, "POST", "/v1/uploads", **announced))
        status, headers, body = answer_of(connection)
        assert (status, headers["content-type"], headers["connection"]) == (413, "application/problem+json", "close")
        assert b"body-too-large" in body
        assert headers["x-request-id"].encode() in body
        assert is_closed(connection)


@pytest.mark.parametrize(
    ("method", "path", "limit", "answered"),
    [
        ("POST", "/v1/uploads", MAX_BODY_BYTES, (413, "body-too-large")),
        # Its handler complains before it looks at the body; the rest is read no further than a part is long.
        ("PUT", "/v1/uploads/{}/parts/1", PART_SIZE, (411, "length-required")),
    ],
)
def test_a_body_without_length_is_counted(
    method: str, path: str, limit: int, answered: tuple[int, str], client: httpx.Client, server: int, settings: ServiceSettings
) -> None:
    path = path.format(opened(client, PART_SIZE))
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked", "Content-Digest": content_digest_header(bytes(32))}
    with connected(server) as connection:
        connection.sendall(head(settings, method, path, **headers))
        sent = 0
        while sent <= limit:
            connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            sent += 0x10000
        status, headers, body = answer_of(connection)
        assert (status, headers["connection"]) == (answered[0], "close")
        assert answered[1].encode() in body
        assert is_closed(connection)


def test_a_client_that_sends_a_large_body_anyway_still_gets_the_answer(client: httpx.Client) -> None:
    answer = client.post("/v1/uploads", content=bytes(20 * PART_SIZE), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_the_limit_of_a_part_is_for_parts_only(client: httpx.Client) -> None:
    for path in ("/v1/uploads/a/parts/1/more", "/v1/uploads", "/v1/other"):
        assert client.put(path, content=bytes(MAX_BODY_BYTES + 1)).status_code == 413
    assert client.post("/v1/uploads/a/parts/1", content=bytes(MAX_BODY_BYTES + 1)).status_code == 413


@pytest.mark.parametrize("path", ["/v1/uploads", "/v1/uploads/{}/parts/1"])
def test_a_client_that_stops_is_let_go(path: str, client: httpx.Client, server: int, settings: ServiceSettings) -> None:
    size = PART_SIZE if "parts" in path else 1000
    path = path.format(opened(client, PART_SIZE))
    headers = {"Content-Type": "application/json", "Content-Length": str(size), "Content-Digest": content_digest_header(bytes(32))}
    with connected(server) as connection:
        connection.sendall(head(settings, "PUT" if "parts" in path else "POST", path, **headers) + b"half")
        began = time.monotonic()
        status, headers, body = answer_of(connection)
        assert (status, headers["connection"]) == (408, "close")
        assert b"body-timeout" in body
        assert headers["x-request-id"].encode() in body
        assert time.monotonic() - began >= READ_TIMEOUT_S
        assert is_closed(connection)


def test_a_client_that_trickles_is_let_go(server: int, settings: ServiceSettings) -> None:
    """Never silent for long, but never done either."""
    stopped = threading.Event()
    with connected(server) as connection, ThreadPoolExecutor(1) as pool:
        connection.sendall(head(settings, "POST", "/v1/uploads", **{"Content-Type": "application/json", "Content-Length": "90000"}))

        def trickle() -> None:
            try:
                while not stopped.wait(READ_TIMEOUT_S / 10):
                    connection.sendall(b"1")
            except OSError:
                return

        pool.submit(trickle)
        assert answer_of(connection)[0] == 408
        stopped.set()


def test_a_client_that_goes_away_leaves_nothing(client: httpx.Client, server: int, settings: ServiceSettings, tmp_path: Path) -> None:
    upload_id = opened(client, PART_SIZE)
    headers = {"Content-Length": str(PART_SIZE), "Content-Digest": content_digest_header(bytes(32))}
    with connected(server) as connection:
        connection.sendall(head(settings, "PUT", f"/v1/uploads/{upload_id}/parts/1", **headers) + bytes(3 << 20))
    route = 'route="/v1/uploads/{upload_id}/parts/{number}",status="499"'
    deadline = time.monotonic() + 10
    while route not in client.get("/metrics").text:
        assert time.monotonic() < deadline, "the server did not notice"
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
    assert client.get(f"/v1/uploads/{upload_id}").json()["parts"] == []


def test_a_refusal_reaches_a_client_that_is_still_sending_and_the_connection_lives_on(client: httpx.Client, server: int) -> None:
    data = os.urandom(PART_SIZE)
    headers = {"Content-Digest": content_digest_header(hashlib.sha256(data).digest())}
    for _ in range(3):
        answer = client.put(f"/v1/uploads/{'0' * 32}/parts/1", content=data, headers=headers)
        assert answer.status_code == 404
        answer = httpx.put(f"http://127.0.0.1:{server}/v1/uploads/{'0' * 32}/parts/1", content=data, headers=headers)
        assert (answer.status_code, "connection" in answer.headers) == (401, False)


def test_a_client_that_asks_first_is_refused_without_sending(server: int, settings: ServiceSettings) -> None:
    headers = {"Content-Length": str(PART_SIZE), "Content-Digest": content_digest_header(bytes(32)), "Expect": "100-continue"}
    with connected(server) as connection:
        connection.sendall(head(settings, "PUT", f"/v1/uploads/{'0' * 32}/parts/1", **headers))
        status, answered, _ = answer_of(connection)
        assert (status, answered["connection"]) == (404, "close")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_what_is_uploaded(settings: ServiceSettings) -> None:
    """8 clients at once, 32 MiB each: the server's peak grows by no more than 40 MB."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **{f"REXIS_{name.upper()}": str(value) for name, value in settings.model_dump(exclude_none=True).items()}}
    environment["REXIS_SESSION_KEY"] = settings.session_key.get_secret_value()
    environment["REXIS_READ_TIMEOUT_S"] = "30"
    arguments = ["--factory", "tests.services.upload_application:create_app", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", *arguments], env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=authorised(settings), timeout=60) as client:
            wait_for(client)
            part = os.urandom(PART_SIZE)
            put_parts(client, part, 1)  # what the first upload loads is not what this measures
            before = peak_rss_mb(server.pid)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: put_parts(client, part, 4), range(8)))
            growth = peak_rss_mb(server.pid) - before
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    with transaction(open_engine(settings.database_url), read_only=True) as session:
        assert session.query(UploadPart).count() == 33
    assert growth <= 40, f"the peak grew by {growth:.0f} MB"


def wait_for(client: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            client.get("/livez").raise_for_status()
            return
        except httpx.ConnectError:
            assert time.monotonic() < deadline, "the server did not start"


def put_parts(client: httpx.Client, part: bytes, count: int) -> None:
    upload_id = opened(client, count * len(part))
    headers = {"Content-Digest": content_digest_header(hashlib.sha256(part).digest())}
    for number in range(1, count + 1):
        client.put(f"/v1/uploads/{upload_id}/parts/{number}", content=part, headers=headers).raise_for_status()


def peak_rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
