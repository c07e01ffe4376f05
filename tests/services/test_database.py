"""Transactions, sessions of requests, instants: the same on SQLite and PostgreSQL."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, MetaData, String, UniqueConstraint, event, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.types import Message, Receive, Scope, Send

from rexis.errors import ConfigurationError
from services.foundation import problems
from services.foundation.database import NAMING, Instant, SessionDep, lock, open_engine, transaction
from services.foundation.problems import Problem


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class Note(Base):
    __tablename__ = "note"
    __table_args__ = (UniqueConstraint("text"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(100))
    written_at: Mapped[datetime | None] = mapped_column(Instant)


@pytest.fixture
def notes(engine: Engine) -> Engine:
    Base.metadata.create_all(engine)
    return engine


def texts(engine: Engine) -> list[str]:
    with transaction(engine, read_only=True) as session:
        return list(session.scalars(select(Note.text).order_by(Note.id)))


def test_a_transaction_commits_as_a_whole_or_not_at_all(notes: Engine) -> None:
    with transaction(notes) as session:
        session.add_all([Note(text="a"), Note(text="b")])

    def broken_off() -> None:
        with transaction(notes) as session:
            session.add(Note(text="c"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_off()
    with pytest.raises(IntegrityError), transaction(notes) as session:
        session.add_all([Note(text="d"), Note(text="a")])
    assert texts(notes) == ["a", "b"]


def test_a_read_only_transaction_can_not_write(notes: Engine) -> None:
    with pytest.raises(DBAPIError), transaction(notes, read_only=True) as session:
        session.add(Note(text="a"))
    with transaction(notes) as session:
        session.add(Note(text="the same connection writes again"))
    assert texts(notes) == ["the same connection writes again"]


def test_two_read_modify_write_transactions_do_not_lose_an_update(notes: Engine) -> None:
    with transaction(notes) as session:
        session.add(Note(text="0"))
    failures: list[SQLAlchemyError] = []

    def increment() -> None:
        for _ in range(10):
            try:
                with transaction(notes) as session:
                    note = session.scalars(select(Note).with_for_update()).one()
                    note.text = str(int(note.text) + 1)
            except SQLAlchemyError as error:
                failures.append(error)

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert texts(notes) == ["40"]


def test_a_writer_waits_for_a_writer_and_a_reader_for_nobody(notes: Engine) -> None:
    order: list[str] = []
    holding, written = threading.Event(), threading.Event()

    def second() -> None:
        holding.wait(10)
        with transaction(notes) as session:
            lock(session, "notes")
            order.append("second")
        written.set()

    thread = threading.Thread(target=second)
    thread.start()
    with transaction(notes) as session:
        lock(session, "notes")
        session.add(Note(text="first"))
        session.flush()
        holding.set()
        assert texts(notes) == []
        assert not written.wait(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_sqlite_takes_the_write_lock_at_the_start_and_no_write_is_lost_to_a_crash(notes: Engine) -> None:
    statements: list[str] = []
    event.listen(notes, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with transaction(notes) as session:
        session.execute(select(Note))
    with transaction(notes, read_only=True) as session:
        session.execute(select(Note))
        pragmas = {name: session.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert [statement for statement in statements if statement.startswith("BEGIN")] == ["BEGIN IMMEDIATE", "BEGIN DEFERRED"]
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_an_instant_is_utc_whatever_zone_it_came_in(notes: Engine) -> None:
    lagos = datetime(2026, 11, 21, 4, 30, tzinfo=timezone(timedelta(hours=1)))
    with transaction(notes) as session:
        session.add(Note(text="a", written_at=lagos))
    with transaction(notes, read_only=True) as session:
        read = session.scalars(select(Note.written_at)).one()
    assert read is not None
    assert read == lagos
    assert read.tzinfo is not None
    assert read.utcoffset() == timedelta(0)


def test_an_instant_without_zone_is_refused(notes: Engine) -> None:
    with pytest.raises(SQLAlchemyError, match="time zone"), transaction(notes) as session:
        session.add(Note(text="a", written_at=datetime(2026, 11, 21, tzinfo=UTC).replace(tzinfo=None)))


def test_an_error_of_the_database_does_not_show_values(notes: Engine) -> None:
    with pytest.raises(IntegrityError) as caught, transaction(notes) as session:
        session.add_all([Note(text="patient 4711"), Note(text="patient 4711")])
    assert "[SQL: INSERT INTO note" in str(caught.value)
    assert "[SQL parameters hidden" in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://u:secret@host/db", "postgresql://u:secret@host/db", "sqlite://"])
def test_another_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="database URL") as caught:
        open_engine(url)
    assert "secret" not in str(caught.value)


@pytest.fixture
def client(notes: Engine) -> Iterator[TestClient]:
    app = FastAPI()
    app.state.engine = notes

    @app.post("/notes/{words}", status_code=201)
    def write(words: str, session: SessionDep) -> dict[str, int]:
        note = Note(text=words)
        session.add(note)
        session.flush()
        if words == "defect":
            raise ZeroDivisionError
        if words == "refused":
            raise Problem(409, "refused", "Refused", "no")
        return {"id": note.id}

    @app.post("/late/{words}", status_code=201)
    def write_late(words: str, session: SessionDep) -> dict[str, str]:
        session.add(Note(text=words))  # only the commit sends it, and only then its rule breaks
        return {"status": "kept"}

    @app.get("/notes")
    def write_on_get(session: SessionDep) -> None:
        session.add(Note(text="from a GET"))

    problems.install(app)
    with TestClient(app) as opened:
        yield opened


def test_the_commit_comes_before_the_response(notes: Engine) -> None:
    """An observer looks into the database, on a connection of its own, at the moment in which the server sends the status."""
    seen: list[list[str]] = []
    app = FastAPI()
    app.state.engine = notes

    @app.post("/")
    def write(session: SessionDep) -> dict[str, str]:
        session.add(Note(text="kept"))
        return {"status": "kept"}

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.append(texts(notes))
            await send(message)

        await app(scope, receive, watch)

    with TestClient(observed) as client:
        assert client.post("/").json() == {"status": "kept"}
    assert seen == [["kept"]]


def test_a_response_is_not_sent_for_what_could_not_be_committed(client: TestClient, notes: Engine) -> None:
    assert client.post("/late/a").status_code == 201
    answer = client.post("/late/a")
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:rexis:problem:defect"
    assert texts(notes) == ["a"]


@pytest.mark.parametrize(("words", "status"), [("defect", 500), ("refused", 409)])
def test_a_failing_handler_keeps_nothing(words: str, status: int, client: TestClient, notes: Engine) -> None:
    assert client.post(f"/notes/{words}").status_code == status
    assert texts(notes) == []
    assert client.post("/notes/fine").status_code == 201
    assert texts(notes) == ["fine"]


def test_a_get_can_not_write(client: TestClient, notes: Engine) -> None:
    assert client.get("/notes").status_code >= 500
    assert texts(notes) == []
