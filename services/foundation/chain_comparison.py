"""Whether a service knows the chain row for row: its stored events against the node's, and its projected tables against the events.

Nothing is changed: projections are rebuilt in a transaction that is undone, under the lock that the chain index writes under.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.chain.connection import NODE_FAILURES
from rexis.errors import UnavailableError
from services.foundation.chain_index import INDEX_LOCK, ChainBlock, ChainEvent, ChainIndex, Progress
from services.foundation.database import lock, transaction

# The chain may be reorganised while it is read; one that is reorganised each time is not worth comparing with.
ATTEMPTS = 5

Row = tuple[Any, ...]
Report = Callable[[str], Progress]


@dataclass(frozen=True)
class TableComparison:
    """Rows of one table, by its columns.

    Attributes:
        table: by name.
        rows: how many it should have.
        missing: those that it should have and has not, sorted.
        unexpected: those that it has and should not have; a row that is wrong is in both.
    """

    table: str
    rows: int
    missing: Sequence[Row] = field(default=())
    unexpected: Sequence[Row] = field(default=())

    @property
    def equal(self) -> bool:
        """Whether no row differs."""
        return not self.missing and not self.unexpected

    @classmethod
    def of(cls, table: str, expected: Sequence[Row], got: Sequence[Row]) -> "TableComparison":
        """Compare rows, whose order does not count."""
        wanted, found = Counter(map(_hashable, expected)), Counter(map(_hashable, got))
        return cls(table, len(expected), _sorted(wanted - found), _sorted(found - wanted))


def compare(index: ChainIndex, report: Report = lambda _what: lambda _done, _total: None) -> list[TableComparison]:
    """The stored events, then each projected table.

    Args:
        report: given what is being done, where to tell the progress.

    Raises:
        UnavailableError: the node does not answer, or was reorganised again and again.
    """
    for _ in range(ATTEMPTS):
        try:
            tip = _tip(index)
            on_chain = _events_of_node(index, tip, report("blocks"))
            if on_chain is None:
                continue
            with transaction(index.engine) as session:
                lock(session, INDEX_LOCK)
                if index.hash_of(tip.number) != tip.hash or session.get(ChainBlock, (tip.chain_id, tip.number)) is None:
                    continue
                return [_compare_events(session, tip, on_chain), *_compare_projections(index, session, report("events"))]
        except NODE_FAILURES as error:
            raise UnavailableError(f"the chain does not answer ({type(error).__name__}); nothing was compared") from error
    raise UnavailableError(
        f"the chain has not the block {tip.number} that was read last, or was reorganised during each of {ATTEMPTS} comparisons: "
        "let the service's background process follow it, then try again"
    )


def projected_rows(session: Session, index: ChainIndex) -> dict[str, list[Row]]:
    """All rows of the projected tables, by table."""
    tables = dict.fromkeys(table for projection in index.projections for table in projection.tables)
    return {table.__tablename__: [tuple(row) for row in session.execute(select(table.__table__))] for table in tables}


def _tip(index: ChainIndex) -> ChainBlock:
    """The last block that is stored.

    Raises:
        UnavailableError: there is none yet.
    """
    with transaction(index.engine, read_only=True) as session:
        mine = select(ChainBlock).where(ChainBlock.chain_id == index.chain_id).order_by(ChainBlock.number.desc()).limit(1)
        tip = session.scalars(mine).one_or_none()
    if tip is None:
        raise UnavailableError("the chain index has read nothing yet; start the service's background process first")
    return tip


def _events_of_node(index: ChainIndex, tip: ChainBlock, progress: Progress) -> list[Row] | None:
    """Every event up to the block `tip`; None if the chain was reorganised meanwhile."""
    stored, stored_hash, rows = index.start_block - 1, None, list[Row]()
    while stored < tip.number:
        stretch = index.read(stored, stored_hash, tip.number)
        if stretch is None:
            return None
        rows += [_row(index.row(found)) for found in stretch.logs]
        stored, stored_hash = stretch.last, stretch.last_hash
        progress(stored - index.start_block + 1, tip.number - index.start_block + 1)
    return rows


def _compare_events(session: Session, tip: ChainBlock, on_chain: Sequence[Row]) -> TableComparison:
    # What the index has read on since is not in question.
    mine = select(ChainEvent).where(ChainEvent.chain_id == tip.chain_id, ChainEvent.block_number <= tip.number)
    return TableComparison.of(ChainEvent.__tablename__, on_chain, [_row(event) for event in session.scalars(mine)])


def _compare_projections(index: ChainIndex, session: Session, progress: Progress) -> list[TableComparison]:
    got = projected_rows(session, index)
    trial = session.begin_nested()
    index.replay(session, progress)
    session.flush()
    expected = projected_rows(session, index)
    trial.rollback()
    return [TableComparison.of(table, expected[table], got[table]) for table in expected]


def _row(event: ChainEvent) -> Row:
    return tuple(getattr(event, column.key) for column in ChainEvent.__table__.columns)


def _hashable(row: Row) -> Row:
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)


def _sorted(rows: "Counter[Row]") -> tuple[Row, ...]:
    return tuple(sorted(rows.elements(), key=repr))
