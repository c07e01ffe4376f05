"""Events of our contracts in SQL, and tables projected from them, following the chain also backwards.

Stored are the blocks that carry events and the end of each pass. A stored block that the node still has under the same hash proves
everything before it, so a pass walks back over the stored blocks to the last one that both know, forgets what is above, and reads on
from there. Raw topics and data are kept, so that projections can be rebuilt row for row, also after an ABI was corrected.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import requests
import structlog
from sqlalchemy import JSON, BigInteger, LargeBinary, String, delete, exists, func, select, tuple_
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from web3.exceptions import BlockNotFound, Web3RPCError
from web3.types import LogReceipt

from rexis.chain.connection import NODE_FAILURES, Chain
from rexis.chain.events import decode_event
from rexis.encoding import from_hex, to_hex
from rexis.errors import UnavailableError, WrongChainError
from services.foundation.database import FoundationBase, lock, transaction

log = structlog.get_logger(__name__)

# Blocks asked for at once; halved while a provider refuses the span.
SPAN = 5_000
# HTTP answers of providers to a span that has too much in it.
TOO_MUCH = frozenset({400, 413, 422})
# Ends of passes older than this many blocks are forgotten: no reorganisation reaches back so far.
KEPT_BLOCKS = 4_096
# Events held in memory at once while projections are rebuilt.
PAGE = 1_000
# Held while events and projections are written.
INDEX_LOCK = "chain index"

# Told how many of how many events (or blocks) are done.
Progress = Callable[[int, int], None]


class ChainBlock(FoundationBase):
    """A block that was on the chain when it was read."""

    __tablename__ = "chain_block"

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(String(66))


class ChainEvent(FoundationBase):
    """One log of one of our contracts; the same transaction in another block is another event."""

    __tablename__ = "chain_event"

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    block_hash: Mapped[str] = mapped_column(String(66), primary_key=True)
    log_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    block_number: Mapped[int] = mapped_column(BigInteger, index=True)
    transaction_hash: Mapped[str] = mapped_column(String(66), index=True)
    contract: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(42))
    topics: Mapped[list[str]] = mapped_column(JSON)
    data: Mapped[bytes] = mapped_column(LargeBinary)


@dataclass(frozen=True)
class IndexedEvent:
    """A decoded event; `arguments` as the ABI names them, bytes as bytes."""

    contract: str
    name: str
    arguments: Mapping[str, Any]
    block_number: int
    block_hash: str
    transaction_hash: str
    log_index: int


class Projection(Protocol):
    """Tables that are a function of one contract's events.

    Attributes:
        contract: by name.
        tables: everything that `apply` writes; nothing else writes them.
    """

    contract: str
    tables: Sequence[type[DeclarativeBase]]

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain, each once."""

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""


@dataclass(frozen=True)
class Stretch:
    """What one pass read: the events up to and including the block `last`."""

    last: int
    last_hash: str
    logs: Sequence[LogReceipt]


def _is_too_much(error: requests.HTTPError) -> bool:
    return error.response is not None and error.response.status_code in TOO_MUCH


class ChainIndex:
    """Reads the events of the contracts that `projections` are about.

    Any number of processes may run it on one database: each pass compares, under a lock, with where the last one ended.
    """

    def __init__(self, engine: Engine, chain: Chain, projections: Sequence[Projection], start_block: int) -> None:
        self.engine, self.chain, self.projections, self.start_block = engine, chain, projections, start_block
        self.chain_id = chain.deployment.chain_id
        self._names = {chain.contract(name).address: name for name in {projection.contract for projection in projections}}
        self._span = SPAN

    def run_once(self) -> int:
        """Read what is new, after forgetting what is no longer on the chain. Returns the number of new events.

        Raises:
            UnavailableError: the node does not answer; everything read so far is kept.
            WrongChainError: block 0 is another one than before: the chain was replaced.
        """
        try:
            added, done = 0, False
            while not done:
                stored, stored_hash = self._walk_back()
                stretch = self.read(stored, stored_hash, int(self.chain.web3.eth.block_number))
                if stretch is None:
                    return added
                count, done = self._store(stored, stretch)
                added += count
            return added
        except NODE_FAILURES as error:
            raise UnavailableError(f"the chain does not answer ({type(error).__name__}); the index goes on later") from error

    def reindex(self, progress: Progress = lambda _done, _total: None) -> int:
        """Rebuild all projections from the stored events. Returns the number of events."""
        with transaction(self.engine) as session:
            lock(session, INDEX_LOCK)
            return self.replay(session, progress)

    def read_anew(self) -> int:
        """Forget all stored events, and read them from the node again; raises and returns as `run_once`.

        If it is killed in between, or another process indexes beside it, the next pass goes on where it ended.
        """
        self._forget_above(0)
        return self.run_once()

    def replay(self, session: Session, progress: Progress = lambda _done, _total: None) -> int:
        """As `reindex`, in the transaction of the caller, who holds `INDEX_LOCK`."""
        for projection in self.projections:
            projection.reset(session)
        mine = select(ChainEvent).where(ChainEvent.chain_id == self.chain_id)
        total = session.scalars(select(func.count()).select_from(mine.subquery())).one()
        place, done = (-1, -1), 0
        order = (ChainEvent.block_number, ChainEvent.log_index)
        while rows := session.scalars(mine.where(tuple_(*order) > place).order_by(*order).limit(PAGE)).all():
            for row in rows:
                self._apply(session, row)
            place, done = (rows[-1].block_number, rows[-1].log_index), done + len(rows)
            progress(done, total)
        return done

    # Backwards.

    def _walk_back(self) -> tuple[int, str | None]:
        """Forget blocks that the node does not have any more.

        Returns the highest block that both know; one below `start_block`, and no hash, if there is none.
        """
        with transaction(self.engine, read_only=True) as session:
            mine = select(ChainBlock).where(ChainBlock.chain_id == self.chain_id).order_by(ChainBlock.number.desc())
            tip, tip_hash = self.start_block - 1, None
            gone = False
            for block in session.scalars(mine).yield_per(100):
                if self.hash_of(block.number) == block.hash:
                    if block.number >= self.start_block:
                        tip, tip_hash = block.number, block.hash
                    break
                if block.number == 0:
                    raise WrongChainError(
                        f"chain {self.chain_id} began with block {block.hash} before, now with {self.hash_of(0)}: it was replaced; "
                        "give this service the database that belongs to the chain, or an empty one"
                    )
                gone = True
        if gone:
            log.warning("the chain was reorganised", from_block=tip + 1)
            self._forget_above(tip)
        return tip, tip_hash

    def _forget_above(self, number: int) -> None:
        with transaction(self.engine) as session:
            lock(session, INDEX_LOCK)
            session.execute(delete(ChainBlock).where(ChainBlock.chain_id == self.chain_id, ChainBlock.number > number))
            above = delete(ChainEvent).where(ChainEvent.chain_id == self.chain_id, ChainEvent.block_number > number)
            forgotten = len(session.scalars(above.returning(ChainEvent.log_index)).all())
            log.info("events were forgotten", from_block=number + 1, events=forgotten)
            if forgotten or number == 0:
                self.replay(session)

    # Forwards.

    def read(self, stored: int, stored_hash: str | None, head: int) -> Stretch | None:
        """The next stretch after block `stored`, up to `head`; None if there is none, or if the chain changed while it was read."""
        if head <= stored:
            return None
        while True:
            last = min(head, stored + self._span)
            last_hash = self.hash_of(last)
            try:
                logs = self.chain.web3.eth.get_logs({"fromBlock": stored + 1, "toBlock": last, "address": list(self._names)})
            except (Web3RPCError, requests.HTTPError, requests.Timeout) as error:
                # Too many logs is a JSON-RPC error for some providers, a refusal in HTTP for others, and an answer that never comes.
                if self._span == 1 or (isinstance(error, requests.HTTPError) and not _is_too_much(error)):
                    raise UnavailableError(f"the node does not give the logs of block {last} ({type(error).__name__})") from error
                self._span //= 2
                if isinstance(error, requests.Timeout):
                    raise UnavailableError("the node did not give the logs in time; fewer blocks at once are asked for later") from error
                continue
            # Read again: the logs are those between the two blocks only if both were on the chain before and after.
            if last_hash is None or self.hash_of(last) != last_hash or (stored_hash and self.hash_of(stored) != stored_hash):
                return None
            self._span = min(self._span * 2, SPAN)
            return Stretch(last, last_hash, sorted(logs, key=lambda found: (found["blockNumber"], found["logIndex"])))

    def _store(self, stored: int, stretch: Stretch) -> tuple[int, bool]:
        """Keep a stretch in one transaction. Returns the number of events, and whether the pass is over."""
        genesis = self.hash_of(0)
        with transaction(self.engine) as session:
            lock(session, INDEX_LOCK)
            mine = select(ChainBlock.number).where(ChainBlock.chain_id == self.chain_id).order_by(ChainBlock.number.desc()).limit(1)
            if max((*session.scalars(mine).all(), self.start_block - 1)) != stored:
                return 0, True  # another process was faster
            blocks = {0: genesis, stretch.last: stretch.last_hash}
            rows = [self.row(found) for found in stretch.logs]
            blocks |= {row.block_number: row.block_hash for row in rows}
            for number, block_hash in blocks.items():
                session.merge(ChainBlock(chain_id=self.chain_id, number=number, hash=block_hash))
            session.add_all(rows)
            session.flush()
            for row in rows:
                self._apply(session, row)
            self._prune(session, stretch.last)
            return len(rows), False

    def _prune(self, session: Session, last: int) -> None:
        has_events = exists().where(ChainEvent.chain_id == ChainBlock.chain_id, ChainEvent.block_number == ChainBlock.number)
        old = ChainBlock.number.between(1, last - KEPT_BLOCKS)
        session.execute(delete(ChainBlock).where(ChainBlock.chain_id == self.chain_id, old, ~has_events))

    # Events.

    def row(self, found: LogReceipt) -> ChainEvent:
        """A log of the node as it is stored."""
        return ChainEvent(
            chain_id=self.chain_id,
            block_hash=to_hex(found["blockHash"]),
            log_index=found["logIndex"],
            block_number=found["blockNumber"],
            transaction_hash=to_hex(found["transactionHash"]),
            contract=self._names[found["address"]],
            address=found["address"],
            topics=[to_hex(topic) for topic in found["topics"]],
            data=bytes(found["data"]),
        )

    def _apply(self, session: Session, row: ChainEvent) -> None:
        decoded = decode_event(row.contract, [from_hex(topic) for topic in row.topics], row.data)
        if decoded is None:
            return
        event = IndexedEvent(row.contract, *decoded, row.block_number, row.block_hash, row.transaction_hash, row.log_index)
        for projection in self.projections:
            if projection.contract == row.contract:
                projection.apply(session, event)

    def hash_of(self, number: int) -> str | None:
        """Hash of a block of the node; None if it has no such block."""
        try:
            return to_hex(self.chain.web3.eth.get_block(number)["hash"])
        except BlockNotFound:
            return None
