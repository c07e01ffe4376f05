"""Several nodes of one chain behind one connection: one is asked until it does not answer, then the next one, after a check."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import requests
from web3 import HTTPProvider
from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from rexis.errors import ChainError

# What changes something is not repeated here: whoever sent it finds out whether it arrived.
WRITES = frozenset({"eth_sendRawTransaction"})
TOO_MANY_REQUESTS = 429


class Endpoints(JSONBaseProvider):
    """A provider over several others.

    It stays with one node, so that answers about one moment come from one node; on a failure it moves on to the next one that
    `accept` lets pass, and asks that one the same question if it was a reading one.
    """

    def __init__(self, providers: Sequence[HTTPProvider]) -> None:
        super().__init__()
        self.providers = tuple(providers)
        self.accept: Callable[[HTTPProvider], None] = _anything
        self._current = 0
        self._moving = threading.Lock()

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Ask the current node, and those after it while they do not answer; raises the first one's failure if none does."""
        asked = self._current
        try:
            return self.providers[asked].make_request(method, params)
        except (requests.RequestException, ValueError) as failure:
            if not _is_of_node(failure):
                raise
            for _ in self.providers[1:]:
                asked = self._move_on(asked, failure)
                if method in WRITES:
                    raise
                try:
                    return self.providers[asked].make_request(method, params)
                except (requests.RequestException, ValueError) as other:
                    if not _is_of_node(other):
                        raise
            raise

    def _move_on(self, failed: int, failure: Exception) -> int:
        """Index of the node to ask now: the next one that passes, or the one to which another thread has moved meanwhile."""
        with self._moving:
            if self._current != failed:
                return self._current
            for step in range(1, len(self.providers)):
                index = (failed + step) % len(self.providers)
                try:
                    self.accept(self.providers[index])
                except (ChainError, requests.RequestException, ValueError):
                    continue
                self._current = index
                return index
            raise failure


def _anything(_provider: HTTPProvider) -> None:
    """No record to compare with."""


def _is_of_node(failure: Exception) -> bool:
    """Whether another node may do better: not where this one answered, and refused the question itself."""
    if isinstance(failure, requests.HTTPError) and failure.response is not None:
        status = failure.response.status_code
        return status >= 500 or status == TOO_MANY_REQUESTS
    return True
