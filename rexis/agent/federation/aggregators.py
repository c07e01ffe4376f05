"""Several aggregators that a site names: each federation's calls go to the one that leads it, as the site's own chain node tells.

Who leads is who opened the attempt on chain. What another one shows is not looked at: it could only keep this site out of a round. When the
leader is gone and another one opens the next attempt, the site follows by itself.
"""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from rexis.agent.federation.member_results import STAGE as RESULTS
from rexis.agent.federation.registry import Registry
from rexis.client.aggregator import AggregatorClient, Federation, RoundRecord, WorkItem
from rexis.errors import ServiceError, UnavailableError
from rexis.protocol.member_results import MemberResult
from rexis.protocol.secagg_messages import Envelope, Stage

# What an aggregator shows and the node does not is looked up again after so long.
LOOK_UP_AGAIN_S = 2.0
SHOWN = frozenset({*(stage.value for stage in Stage), RESULTS})

Shown = TypeVar("Shown")


class Aggregators(AggregatorClient):
    """An aggregator to a site's agent, whichever one leads.

    Args:
        registry: on the site's own node.
        clients: signed in, in the order in which they are asked about federations of which no attempt runs.
    """

    def __init__(self, registry: Registry, clients: Sequence[AggregatorClient]) -> None:
        super().__init__(clients[0].connection)
        self._registry, self._clients = registry, tuple(clients)
        self._addresses: dict[int, str] = {}
        self._openers: dict[bytes, str] = {}
        self._looked_up: dict[bytes, float] = {}
        self._newest: dict[bytes, tuple[int, int]] = {}
        self._leaders: dict[bytes, AggregatorClient] = {}
        self._running: set[bytes] = set()

    def leading(self, federation: bytes) -> AggregatorClient:
        """The client of the federation's leader; while no attempt of it was seen, of the first that knows it."""
        if federation not in self._leaders:
            for client in self._clients:
                try:
                    client.federation(federation)
                except (UnavailableError, ServiceError):
                    continue
                self._leaders[federation] = client
                break
        return self._leaders.get(federation, self._clients[0])

    def work(self) -> tuple[WorkItem, ...]:
        """What each shows of the federations that it leads; one that does not answer keeps nobody waiting.

        Raises:
            UnavailableError, ServiceError: none of them answers.
        """
        found: list[WorkItem] = []
        failures: list[UnavailableError | ServiceError] = []
        for number, client in enumerate(self._clients):
            try:
                if number not in self._addresses:
                    self._addresses[number] = client.account()
                shown = client.work()
            except (UnavailableError, ServiceError) as error:
                failures.append(error)
                continue
            for item in shown:
                if item.stage in SHOWN and self._opener(item) == self._addresses[number]:
                    self._follow(item, client)
                    found.append(item)
        if len(failures) == len(self._clients):
            raise failures[0]
        # One that was gone may still show what it led before.
        running = tuple(item for item in found if (item.round, item.attempt) == self._newest[item.federation])
        self._running = {item.federation for item in running}
        return running

    def federation(self, federation: bytes) -> Federation:
        """From the leader, or the first that knows it."""
        return self._any(federation, lambda client: client.federation(federation))

    def join(self, federation: bytes) -> Federation:
        """At the first that leads or founds it; the others take a member as joined when a round stands on chain."""
        return self._any(federation, lambda client: client.join(federation))

    def messages(self, federation: bytes, round_number: int, attempt: int, stage: Stage) -> tuple[Envelope, ...]:
        """From the leader."""
        return self.leading(federation).messages(federation, round_number, attempt, stage)

    def send(self, federation: bytes, round_number: int, attempt: int, message: Envelope) -> None:
        """To the leader."""
        self.leading(federation).send(federation, round_number, attempt, message)

    def model(self, federation: bytes) -> bytes:
        """From the leader; between rounds from whoever answers."""
        return self._any(federation, lambda client: client.model(federation))

    def initial_model(self, federation: bytes) -> bytes:
        """As `model`."""
        return self._any(federation, lambda client: client.initial_model(federation))

    def opened_sum(self, federation: bytes, round_number: int, attempt: int, size: int) -> bytes:
        """As `model`."""
        return self._any(federation, lambda client: client.opened_sum(federation, round_number, attempt, size))

    def state_result(self, result: MemberResult) -> None:
        """To the leader."""
        self.leading(result.federation).state_result(result)

    def member_results(self, federation: bytes, round_number: int, attempt: int) -> tuple[MemberResult, ...]:
        """As `model`."""
        return self._any(federation, lambda client: client.member_results(federation, round_number, attempt))

    def server_state(self, federation: bytes) -> bytes:
        """As `model`."""
        return self._any(federation, lambda client: client.server_state(federation))

    def result(self, federation: bytes) -> bytes:
        """As `model`."""
        return self._any(federation, lambda client: client.result(federation))

    def rounds(self, federation: bytes) -> tuple[RoundRecord, ...]:
        """As `model`."""
        return self._any(federation, lambda client: client.rounds(federation))

    def _any(self, federation: bytes, ask: Callable[[AggregatorClient], Shown]) -> Shown:
        leader = self.leading(federation)
        try:
            return ask(leader)
        except (UnavailableError, ServiceError):
            if federation in self._running:
                # Another one may be a round behind, and what it shows would look like a lie.
                raise
            for client in self._clients:
                if client is not leader:
                    try:
                        return ask(client)
                    except (UnavailableError, ServiceError):
                        continue
            raise

    def _follow(self, item: WorkItem, client: AggregatorClient) -> None:
        numbers = (item.round, item.attempt)
        if numbers >= self._newest.get(item.federation, (0, 0)):
            self._newest[item.federation], self._leaders[item.federation] = numbers, client

    def _opener(self, item: WorkItem) -> str | None:
        """Who opened the attempt with this manifest on chain."""
        digest = item.manifest.digest
        if digest not in self._openers and monotonic() - self._looked_up.get(digest, float("-inf")) >= LOOK_UP_AGAIN_S:
            opener = self._registry.opener(item.federation, item.round, digest)
            self._looked_up[digest] = monotonic()
            if opener is not None:
                self._openers[digest] = opener
                del self._looked_up[digest]
        return self._openers.get(digest)
