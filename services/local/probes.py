"""How the supervisor learns that a child is ready. Each probe raises OSError or UnavailableError until it is.

The standard library is enough here, and ignores proxies: everything is on loopback.
"""

import http.client
import json
import socket
from urllib.parse import urlsplit

from rexis.errors import UnavailableError

TIMEOUT_S = 5.0
LARGEST_ANSWER = 64 << 10


def _request(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read(LARGEST_ANSWER)
    except http.client.HTTPException as error:
        raise UnavailableError(f"{url} does not speak HTTP: {error!r}") from error
    finally:
        connection.close()


def service_ready(url: str) -> None:
    """The service's own `/readyz` is green."""
    status, body = _request(url, "GET", "/readyz")
    if status != 200:
        raise UnavailableError(f"{url}/readyz answered {status}: {body.decode(errors='replace')}")


def redis_ready(port: int, password: str) -> None:
    """The server accepts the password and answers PING."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
        answer = b""
        while answer.count(b"\r\n") < 2:
            received = connection.recv(1024)
            if not received:
                raise UnavailableError("the Redis server closed the connection")
            answer += received
    if answer != b"+OK\r\n+PONG\r\n":
        raise UnavailableError(f"the Redis server on port {port} is not ready, or not ours: {answer.decode(errors='replace').strip()}")


def chain_ready(url: str, chain_id: int) -> None:
    """A chain client with this id answers."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}).encode()
    status, answer = _request(url, "POST", "/", body)
    try:
        found = int(json.loads(answer)["result"], 16)
    except (ValueError, KeyError, TypeError) as error:
        raise UnavailableError(f"{url} answered {status} with something else than a chain id") from error
    if found != chain_id:
        raise UnavailableError(f"{url} has chain id {found}, expected {chain_id}: another program listens there")
