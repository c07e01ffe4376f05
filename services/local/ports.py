"""Which ports the platform listens on: the standard ones, or free ones where they are taken."""

import secrets
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from rexis.errors import ConfigurationError

HOST = "127.0.0.1"
STANDARD = {"marketplace": 8001, "trainer": 8002, "aggregator": 8003, "verifier": 8004, "chain": 8545}
# Below the range from which systems take ports for outgoing connections: a free port found here stays free until it is bound.
FREE_RANGE = range(20000, 32000)


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # As servers do: a port whose last connections are still closing counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    try:
        _bind(port).close()
    except OSError:
        return False
    return True


def choose(wanted: Mapping[str, int | None]) -> dict[str, int]:
    """A port for every name: the wanted one if it is free, else any free one; None asks for any.

    Raises:
        ConfigurationError: no free port was found.
    """
    with ExitStack() as held:  # each stays bound until all are chosen, so that none is chosen twice

        def take(name: str, preferred: int | None) -> int:
            for port in (*([preferred] if preferred else []), *(secrets.choice(FREE_RANGE) for _ in range(50))):
                try:
                    held.callback(_bind(port).close)
                except OSError:
                    continue
                return port
            raise ConfigurationError(
                f"no free port on {HOST} for {name}: tried {preferred} and 50 of {FREE_RANGE.start} to {FREE_RANGE.stop - 1}"
            )

        return {name: take(name, preferred) for name, preferred in wanted.items()}
