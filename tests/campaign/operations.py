"""A stream of operations by institutions, and a record of everything that was promised to them.

Each operation leaves a mark on the chain that no other one leaves, so that it can be counted there: an event with a root, a digest or a
number of its own, and for relayed calls the Forwarder's event with the request's nonce. Calls of the gate are the service's own: the
contract remembers nothing, and no nonce but the transaction's stops a second execution. Twins are two registrations of one content, both
admitted before either is on chain: exactly one of them may land.
"""

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine, func, select

from rexis.chain.deployments import Deployment
from rexis.chain.signer import LocalSigner
from rexis.client.connection import Connection
from rexis.client.marketplace import MarketplaceClient
from rexis.client.relayed_calls import Relay, RelayClient, SignedCall, sign_call
from rexis.client.sign_in import SignInSession
from rexis.encoding import canonical_json, sha256, to_hex
from rexis.errors import RexisError, ServiceError, UnavailableError
from services.foundation.database import transaction
from services.foundation.outbox.transactions import ChainIntent, enqueue_call
from tests.services.marketplace_on_chain import POLICY, croissant

PURPOSE = 6
TERM_S = 30 * 86_400
PAUSE_S = 0.2
# A door that stays shut so long is shut: what the chain lost comes back sooner.
PATIENCE_S = 120.0
# Above it nothing new is handed in, so that kills meet calls in every state and not only a queue.
MOST_QUEUED = 30

Mark = tuple[str, ...]


@dataclass(frozen=True)
class Promise:
    """Something that a service took on to do once.

    Attributes:
        kind: register, twin, committee, grant, revoke, or gate.
        mark: what is counted on the chain.
        key: of the outbox row: of a relayed call its sender and nonce, which the Forwarder's event names too.
    """

    kind: str
    mark: Mark
    key: str


@dataclass
class Book:
    """What was promised, and how often something was refused at the door."""

    promises: list[Promise] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, promise: Promise) -> None:
        """A service has answered that it does this."""
        with self._lock:
            self.promises.append(promise)

    def refuse(self, kind: str) -> None:
        """A service has answered that it does not."""
        with self._lock:
            self.refused[kind] += 1


class Institution:
    """One account with its client; used by one thread at a time."""

    def __init__(self, url: str, deployment: Deployment, book: Book, choice: random.Random, signer: LocalSigner | None = None) -> None:
        self.signer = signer or LocalSigner.generate()
        self.deployment, self.book, self.choice = deployment, book, choice
        self._session = Connection(url)
        self.connection = Connection(url, service="the marketplace", attempts=2)
        self.connection.authorise = SignInSession(self._session, self.signer, deployment.chain_id).token
        self.marketplace, self.relays = MarketplaceClient(self.connection), RelayClient(self.connection)
        self.waiting: list[str] = []
        self.datasets: list[int] = []
        self.granted: list[tuple[int, str]] = []
        self.committees: Counter[int] = Counter()

    def close(self) -> None:
        self.connection.close()
        self._session.close()

    def act(self) -> None:
        """One operation, of a kind that is possible now."""
        self._look()
        kinds: list[Callable[[], None]] = [self.register, self.register, self.twins]
        if self.datasets:
            kinds += [self.committee, self.grant, self.grant, self.grant]
        if self.granted:
            kinds += [self.revoke]
        self.choice.choice(kinds)()

    def register(self) -> None:
        self._register(secrets.token_bytes(32), "register", parents=self.datasets[-1:] if self.choice.random() < 0.5 else [])

    def twins(self) -> None:
        root = secrets.token_bytes(32)
        for _ in range(2):
            self._register(root, "twin", parents=[])

    def committee(self) -> None:
        dataset, members = self.choice.choice(self.datasets), sorted((_stranger() for _ in range(2)), key=lambda each: int(each, 16))
        version = self.committees[dataset]
        mark = ("CommitteeSet", str(dataset), str(version + 1))
        if self._relay("committee", mark, self._sign("AccessManager", "setCommittee", dataset, members, version)):
            self.committees[dataset] += 1

    def grant(self) -> None:
        dataset, consumer, conditions = self.choice.choice(self.datasets), _stranger(), secrets.token_bytes(32)
        terms = {
            "dataset": dataset,
            "consumer": consumer,
            "purpose": PURPOSE,
            "until": int(time.time()) + TERM_S,
            "policyVersion": 1,
            "grantEpoch": 0,
            "conditionsHash": conditions,
        }
        if self._relay("grant", ("AccessGranted", to_hex(conditions)), self._sign("AccessManager", "grant", terms)):
            self.granted.append((dataset, consumer))

    def revoke(self) -> None:
        dataset, consumer = self.granted.pop(self.choice.randrange(len(self.granted)))
        mark = ("AccessRevoked", str(dataset), consumer)
        self._relay("revoke", mark, self._sign("AccessManager", "revoke", dataset, consumer, PURPOSE))

    def _register(self, root: bytes, kind: str, parents: Sequence[int]) -> None:
        metadata = croissant(name=to_hex(root))
        digest = sha256(canonical_json(metadata))
        registration = {
            "contentRoot": root,
            "policyHash": sha256(canonical_json(POLICY)),
            "metadataHash": digest,
            "uri": f"{self.connection.base_url}/v1/documents/{to_hex(digest)}",
            "parents": parents,
            "royaltyBps": 100,
        }
        signed, key = self._sign("DatasetRegistry", "register", registration), secrets.token_hex(16)

        def hand_over() -> Relay:
            return self.marketplace.register_dataset(metadata, POLICY, signed.call, signed.signature, idempotency_key=key)

        relay = self._hand_in(kind, hand_over)
        if relay is not None:
            self.book.write(Promise(kind, ("DatasetRegistered", to_hex(root)), _key(signed)))
            if kind == "register":
                self.waiting.append(relay.id)

    def _sign(self, contract: str, function: str, *arguments: object) -> SignedCall:
        return sign_call(self.signer, self.deployment, contract, function, *arguments, gas=600_000)

    def _relay(self, kind: str, mark: Mark, signed: SignedCall) -> bool:
        if self._hand_in(kind, lambda: self.relays.hand_in(signed)) is None:
            return False
        self.book.write(Promise(kind, mark, _key(signed)))
        return True

    def _hand_in(self, kind: str, hand_over: Callable[[], Relay]) -> Relay | None:
        """Hand a call in until there is an answer; a refusal is one only after a while: the chain may lack what it had."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return hand_over()
            except ServiceError as error:
                final = kind == "twin" and error.problem.get("error") == "ContentAlreadyRegistered"
                if error.status not in (409, 425, 429, 502, 503, 504) or time.monotonic() > deadline or final:
                    self.book.refuse(f"{kind}: {error.problem.get('error', error.problem.get('title'))}")
                    return None
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_S)

    def _look(self) -> None:
        """Learn the token ids of registrations that the catalogue has."""
        for relay_id in self.waiting[:4]:
            try:
                relay = self.marketplace.relay(relay_id)
            except (ServiceError, UnavailableError):
                return
            if relay.token_id is not None and relay.state == "final":
                self.waiting.remove(relay_id)
                self.datasets.append(relay.token_id)


class Stream:
    """Threads that hand operations in until `stop`.

    Args:
        gate: address of the gate, for the service's own calls.
        rate: operations a second, of all threads together.
    """

    def __init__(self, institutions: Sequence[Institution], engine: Engine, gate: str, book: Book, *, threads: int, rate: float) -> None:
        self.institutions, self.engine, self.gate, self.book = institutions, engine, gate, book
        self._pause, self._stopped = threads / rate, threading.Event()
        self.errors: list[RexisError] = []
        self._threads = [threading.Thread(target=self._run, args=(number, threads), name=f"stream {number}") for number in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every thread finish what it is handing in."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def burst(self, count: int) -> None:
        """Calls of the service's own, in one transaction."""
        data = [secrets.token_bytes(16) for _ in range(count)]
        with transaction(self.engine) as session:
            for each in data:
                enqueue_call(session, key=each.hex(), to=self.gate, data=each, gas=100_000, label="count")
        for each in data:
            self.book.write(Promise("gate", ("Gate", each.hex()), each.hex()))

    def _backlog(self) -> int:
        with transaction(self.engine, read_only=True) as session:
            return session.scalars(select(func.count()).select_from(ChainIntent).where(ChainIntent.state == "queued")).one()

    def _run(self, number: int, threads: int) -> None:
        mine = self.institutions[number::threads]
        turn = 0
        try:
            while not self._stopped.wait(self._pause * mine[0].choice.uniform(0.2, 1.8)):
                if self._backlog() > MOST_QUEUED:
                    continue
                mine[turn % len(mine)].act()
                turn += 1
                if turn % 4 == 0:
                    self.burst(1)
        except RexisError as error:
            self.errors.append(error)


def _key(signed: SignedCall) -> str:
    return f"{signed.call.sender}:{signed.call.nonce}"


def _stranger() -> str:
    return LocalSigner.generate().address
