"""The chain index: forwards, backwards, twice, from nothing again, and not on another chain. Read from a real node."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Integer, String, delete, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.deployer import deploy_contracts
from rexis.chain.deployments import load
from rexis.chain.signer import development_signer
from rexis.encoding import to_hex
from rexis.errors import UnavailableError, WrongChainError
from services.foundation import chain_index
from services.foundation.chain_index import ChainBlock, ChainEvent, ChainIndex, IndexedEvent
from services.foundation.database import transaction
from tests.services.chain_process import Once, Proxy, replaced, rpc, running, transact


class Base(DeclarativeBase):
    """The tables of this test's projection."""


class Registration(Base):
    """One registered data set, with a number that depends on the order of all events before it."""

    __tablename__ = "registration"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(String(42))
    content_root: Mapped[str] = mapped_column(String(66))
    state: Mapped[int] = mapped_column(Integer)
    place: Mapped[int] = mapped_column(Integer)


class Registrations:
    """Data sets by events, with their states."""

    contract = "DatasetRegistry"
    tables = (Registration,)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        given = event.arguments
        if event.name == "DatasetRegistered":
            place = len(session.scalars(select(Registration.id)).all())
            root = to_hex(given["contentRoot"])
            session.add(Registration(id=given["id"], owner=given["owner"], content_root=root, state=0, place=place))
            session.flush()
        elif event.name == "StateChanged":
            session.get_one(Registration, given["id"]).state = given["state"]

    def reset(self, session: Session) -> None:
        session.execute(delete(Registration))


class Registry:
    """A chain of this test's own with the contracts, and one owner."""

    def __init__(self, url: str) -> None:
        self.url, self.owner = url, development_signer(0)
        self.deployment = deploy_contracts(url, self.owner, load(31337))
        self.address = self.deployment.contracts["DatasetRegistry"].address

    def connect(self, url: str | None = None) -> Chain:
        return Chain.connect(url or self.url, self.deployment)

    def index(self, engine: Engine, url: str | None = None) -> ChainIndex:
        return ChainIndex(engine, self.connect(url), [Registrations()], self.deployment.start_block)

    def register(self, count: int = 1) -> None:
        for _ in range(count):
            registration = {
                "contentRoot": secrets.token_bytes(32),
                "policyHash": secrets.token_bytes(32),
                "metadataHash": secrets.token_bytes(32),
                "uri": "https://example.org/d",
                "parents": [],
                "royaltyBps": 0,
            }
            self._send(encode_call("DatasetRegistry", "register", registration))

    def set_state(self, id_: int, state: int) -> None:
        self._send(encode_call("DatasetRegistry", "setState", id_, state))

    def mine(self, blocks: int) -> None:
        rpc(self.url, "anvil_mine", hex(blocks))

    def reorganise(self, depth: int) -> None:
        """Replace the last blocks by empty ones."""
        rpc(self.url, "anvil_reorg", depth, [])

    def events(self) -> list[tuple[str, int]]:
        """(block hash, log index) of every event on the chain, in order."""
        query = {"fromBlock": "0x0", "toBlock": "latest", "address": self.address}
        return [(log["blockHash"], int(log["logIndex"], 16)) for log in rpc(self.url, "eth_getLogs", query)]

    def roots(self) -> list[str]:
        """Content roots of the data sets on the chain, by id."""
        contract = self.connect().contract("DatasetRegistry")
        return [to_hex(found["args"]["contentRoot"]) for found in contract.events.DatasetRegistered().get_logs(from_block=0)]

    def _send(self, data: bytes) -> None:
        transact(self.url, **{"from": self.owner.address, "to": self.address, "data": to_hex(data)})


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Fresh for every test: a reorganisation can not be undone, and works on a young chain only."""
    with running(tmp_path) as chain:
        yield Registry(chain.url)


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    opened = Proxy(registry.url)
    yield opened
    opened.close()


@pytest.fixture
def indexed(engine: Engine) -> Engine:
    Base.metadata.create_all(engine)
    return engine


def stored(engine: Engine) -> list[tuple[str, int]]:
    with transaction(engine, read_only=True) as session:
        in_order = select(ChainEvent.block_hash, ChainEvent.log_index).order_by(ChainEvent.block_number, ChainEvent.log_index)
        return [tuple(row) for row in session.execute(in_order)]


def table(engine: Engine, name: str) -> list[Any]:
    with transaction(engine, read_only=True) as session:
        return sorted(tuple(row) for row in session.execute(text(f"SELECT * FROM {name}")))


def roots(engine: Engine) -> list[str]:
    with transaction(engine, read_only=True) as session:
        return list(session.scalars(select(Registration.content_root).order_by(Registration.place)))


def test_it_reads_every_event_once(indexed: Engine, registry: Registry) -> None:
    index = registry.index(indexed)
    registry.register(3)
    registry.set_state(2, 1)
    added = index.run_once()
    assert added == len(registry.events()) > 4
    assert stored(indexed) == registry.events()
    assert roots(indexed) == registry.roots()
    before = {name: table(indexed, name) for name in ("chain_block", "chain_event", "registration")}
    assert index.run_once() == 0
    assert registry.index(indexed).run_once() == 0
    assert {name: table(indexed, name) for name in before} == before
    registry.register()
    assert index.run_once() > 0
    assert stored(indexed) == registry.events()


def test_reindexing_gives_the_same_rows(indexed: Engine, registry: Registry) -> None:
    index = registry.index(indexed)
    registry.register(4)
    registry.set_state(3, 1)
    registry.set_state(3, 0)
    registry.set_state(1, 2)
    index.run_once()
    before = table(indexed, "registration")
    assert [row[3] for row in before] == [2, 0, 0, 0]
    with transaction(indexed) as session:
        session.execute(text("UPDATE registration SET state = 9, place = place + 100 WHERE id < 3"))
        session.execute(text("DELETE FROM registration WHERE id = 4"))
    assert index.reindex() == len(registry.events())
    assert table(indexed, "registration") == before


def test_a_reorganisation_is_followed_back_and_forth(indexed: Engine, registry: Registry) -> None:
    index = registry.index(indexed)
    registry.register(3)
    index.run_once()
    registry.register(4)
    index.run_once()
    assert len(roots(indexed)) == 7
    registry.reorganise(5)
    assert len(registry.roots()) == 2
    index.run_once()
    assert stored(indexed) == registry.events()
    assert roots(indexed) == registry.roots()
    registry.register(2)
    registry.set_state(3, 1)
    index.run_once()
    assert stored(indexed) == registry.events()
    assert roots(indexed) == registry.roots()
    assert [row[3] for row in table(indexed, "registration")] == [0, 0, 1, 0]


def test_a_chain_that_became_shorter_is_followed(indexed: Engine, registry: Registry) -> None:
    """As after a SIGKILL: the node has fewer blocks than before, and no others instead."""
    registry.register(2)
    earlier = rpc(registry.url, "evm_snapshot")
    registry.register(2)
    registry.index(indexed).run_once()
    assert rpc(registry.url, "evm_revert", earlier) is True
    registry.index(indexed).run_once()
    assert stored(indexed) == registry.events()
    assert len(roots(indexed)) == 2


def test_a_reorganisation_below_everything_stored_starts_anew(indexed: Engine, registry: Registry) -> None:
    first = rpc(registry.url, "evm_snapshot")
    registry.register(3)
    registry.index(indexed).run_once()
    assert rpc(registry.url, "evm_revert", first) is True
    registry.mine(1)
    registry.register(1)
    registry.index(indexed).run_once()
    assert stored(indexed) == registry.events()
    assert roots(indexed) == registry.roots()


@pytest.mark.parametrize("moment", ["eth_blockNumber", "eth_getLogs"])
def test_a_reorganisation_in_the_middle_of_a_pass_leaves_no_event_behind(
    indexed: Engine, registry: Registry, proxy: Proxy, moment: str
) -> None:
    index = registry.index(indexed, proxy.url)
    registry.register(2)
    index.run_once()
    registry.register(2)
    # Deeper than what is stored: its last block disappears after the walk back has found it.
    proxy.before[moment] = Once(lambda: registry.reorganise(3))
    index.run_once()
    index.run_once()
    assert stored(indexed) == registry.events()
    assert roots(indexed) == registry.roots()


def test_two_indexes_at_once_store_nothing_twice(indexed: Engine, registry: Registry) -> None:
    registry.register(8)
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(registry.index(indexed).run_once) for _ in range(3)]:
            done.result()
    registry.index(indexed).run_once()
    assert stored(indexed) == registry.events()
    assert roots(indexed) == registry.roots()


def test_long_stretches_are_read_in_parts_and_forgotten_where_nothing_happened(
    indexed: Engine, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_index, "SPAN", 16)
    monkeypatch.setattr(chain_index, "KEPT_BLOCKS", 32)
    index = registry.index(indexed)
    registry.register(1)
    registry.mine(100)
    registry.register(1)
    index.run_once()
    assert stored(indexed) == registry.events()
    with transaction(indexed, read_only=True) as session:
        numbers = list(session.scalars(select(ChainBlock.number).order_by(ChainBlock.number)))
    head = int(rpc(registry.url, "eth_blockNumber"), 16)
    with_events = {int(rpc(registry.url, "eth_getBlockByHash", block_hash, False)["number"], 16) for block_hash, _ in stored(indexed)}
    assert set(numbers) >= {0, head} | with_events
    assert all(number in with_events | {0} or number > head - 32 for number in numbers)


@pytest.mark.parametrize("dialect", ["sqlite"])
@pytest.mark.parametrize("status", [200, 400, 413])
def test_a_span_that_the_node_refuses_is_halved(indexed: Engine, registry: Registry, proxy: Proxy, status: int) -> None:
    """Some providers say so in JSON-RPC, others with an HTTP status."""
    asked: list[int] = []

    def more_than_four_blocks(parameters: list[Any]) -> bool | dict[str, Any]:
        asked.append(int(parameters[0]["toBlock"], 16) - int(parameters[0]["fromBlock"], 16) + 1)
        return {"code": -32602, "message": "block range too large", "status": status} if asked[-1] > 4 else False

    proxy.refuses["eth_getLogs"] = more_than_four_blocks
    registry.mine(20)
    registry.register(2)
    registry.index(indexed, proxy.url).run_once()
    assert min(asked) <= 4 < max(asked)
    assert stored(indexed) == registry.events()


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_node_that_is_away_is_not_asked_for_less(indexed: Engine, registry: Registry, proxy: Proxy) -> None:
    registry.register(2)
    proxy.refuses["eth_getLogs"] = lambda _: {"code": -32603, "message": "bad gateway", "status": 502}
    index = registry.index(indexed, proxy.url)
    with pytest.raises(UnavailableError, match="logs of block"):
        index.run_once()
    assert index._span == chain_index.SPAN
    proxy.refuses.clear()
    index.run_once()
    assert stored(indexed) == registry.events()


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_it_asks_nothing_that_a_pruned_node_has_not(indexed: Engine, registry: Registry, proxy: Proxy) -> None:
    """States of old blocks, and blocks before the contracts, are what nodes of an L2 leave out; block 0 they have."""
    registry.mine(20)
    registry.register(2)
    registry.mine(20)
    chain = registry.connect(proxy.url)
    start = int(rpc(registry.url, "eth_blockNumber"), 16) - 25
    index = ChainIndex(indexed, chain, [Registrations()], start)
    index.run_once()
    registry.reorganise(3)
    registry.register(1)
    index.run_once()
    assert roots(indexed) == registry.roots()
    blocks = [int(number, 16) for number, _ in proxy.passed["eth_getBlockByNumber"] if number.startswith("0x")]
    assert all(number == 0 or number >= start for number in blocks)
    assert all(int(query["fromBlock"], 16) >= start for (query,) in proxy.passed["eth_getLogs"])
    assert set(proxy.passed) <= {"eth_chainId", "eth_blockNumber", "eth_getBlockByNumber", "eth_getLogs", "eth_getCode"}


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_node_that_gives_no_logs_is_unavailable(indexed: Engine, registry: Registry, proxy: Proxy) -> None:
    registry.register(2)
    proxy.refuses["eth_getLogs"] = lambda _: True
    index = registry.index(indexed, proxy.url)
    with pytest.raises(UnavailableError, match="logs of block"):
        index.run_once()
    proxy.refuses.clear()
    index.run_once()
    assert stored(indexed) == registry.events()


@pytest.mark.parametrize("dialect", ["sqlite"])
@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "eth_blockNumber"])
def test_a_node_over_its_limit_is_unavailable(indexed: Engine, registry: Registry, proxy: Proxy, method: str) -> None:
    registry.register(2)
    index = registry.index(indexed, proxy.url)
    proxy.refuses[method] = lambda _: True
    with pytest.raises(UnavailableError, match="goes on later"):
        index.run_once()
    proxy.refuses.clear()
    index.run_once()
    assert stored(indexed) == registry.events()


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_another_genesis_is_refused_and_nothing_is_changed(indexed: Engine, registry: Registry, tmp_path: Path) -> None:
    registry.register(2)
    registry.index(indexed).run_once()
    before = table(indexed, "chain_event")
    (tmp_path / "other").mkdir()
    with replaced(tmp_path / "other", registry.url) as other:
        index = Registry(other.url).index(indexed)
        with pytest.raises(WrongChainError, match="replaced"):
            index.run_once()
    assert table(indexed, "chain_event") == before


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_dead_node_is_unavailable_and_keeps_the_index(indexed: Engine, tmp_path: Path) -> None:
    with running(tmp_path) as chain:
        registry = Registry(chain.url)
        index = registry.index(indexed)
        registry.register(1)
        index.run_once()
        before = table(indexed, "registration")
        chain.kill()
        with pytest.raises(UnavailableError):
            index.run_once()
    assert table(indexed, "registration") == before
