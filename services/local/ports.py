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
ATTEMPTS = 50


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


class PortClaims:
    """A port for every name in `wanted`: the wanted one if it is free, else any free one; None asks for any.

    A server binds its port seconds after it was chosen, so each is claimed until `release`: whoever holds UDP port n may listen on TCP
    port n. The kernel grants that once on a machine, and takes it back from a process that was killed.
    """

    def __init__(self, wanted: Mapping[str, int | None]) -> None:
        """
        Raises:
            ConfigurationError: no free port was found.
        """
        self._held = ExitStack()
        try:
            self.ports = {name: self._take(name, preferred) for name, preferred in wanted.items()}
        except BaseException:
            self.release()
            raise

    def _take(self, name: str, preferred: int | None) -> int:
        for port in (*([preferred] if preferred else []), *(secrets.choice(FREE_RANGE) for _ in range(ATTEMPTS))):
            claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                claim.bind((HOST, port))
                _bind(port).close()
            except OSError:
                claim.close()
            else:
                self._held.callback(claim.close)
                return port
        raise ConfigurationError(
            f"no free port on {HOST} for {name}: tried {preferred} and {ATTEMPTS} of {FREE_RANGE.start} to {FREE_RANGE.stop - 1}"
        )

    def release(self) -> None:
        """Let others have the ports."""
        self._held.close()
