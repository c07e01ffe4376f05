"""SQL: one engine per process, one transaction per request or task, the same code on SQLite (WAL) and PostgreSQL.

Application code never commits: it flushes if it needs an id; `transaction` commits or rolls back as a whole.
The tables of the foundation live in `FoundationBase.metadata` and have one migration history of their own; each service has its own
`DeclarativeBase` and history beside it in the same database.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module, resources
from pathlib import Path
from typing import Annotated, Any

from alembic import command
from alembic.config import Config
from fastapi import Depends, Request
from sqlalchemy import Connection, DateTime, Engine, MetaData, create_engine, event, func, select
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

from rexis.errors import ConfigurationError

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class FoundationBase(DeclarativeBase):
    """Base of the tables that every service has."""

    metadata = MetaData(naming_convention=NAMING)


class Instant(TypeDecorator[datetime]):
    """A point in time, always timezone-aware UTC in Python; SQLite has no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None or value.tzinfo is not None else value.replace(tzinfo=UTC)


def now() -> datetime:
    """This instant in UTC."""
    return datetime.now(UTC)


def open_engine(url: str) -> Engine:
    """Open the process's engine. `url` is `sqlite:///file` or `postgresql+psycopg://…`.

    Raises:
        ConfigurationError: another database or driver.
    """
    # Errors of the database are logged: the values of a statement (nonces, tokens, documents) must not be in their text.
    if url.startswith("postgresql+psycopg://"):
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args={"connect_timeout": 5})
        event.listen(engine, "begin", _begin_postgresql)
    elif url.startswith("sqlite:///"):
        engine = create_engine(url, hide_parameters=True, connect_args={"timeout": 30, "check_same_thread": False})
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        raise ConfigurationError(f"a database URL starts with postgresql+psycopg:// or sqlite:///, got {url.partition(':')[0]}:…")
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions: `_begin_sqlite` does
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns from reading to writing fails at once when another writer came first,
    # whatever the busy timeout: whoever may write takes the lock at the start.
    reading = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql(f"PRAGMA query_only={'ON' if reading else 'OFF'}")
    connection.exec_driver_sql("BEGIN DEFERRED" if reading else "BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("read_only", False):
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


@contextmanager
def transaction(engine: Engine, *, read_only: bool = False) -> Iterator[Session]:
    """One unit of work: commits at the end, rolls back on any exception; the database refuses to write in a read-only one."""
    bound = engine.execution_options(read_only=read_only)
    with Session(bound, expire_on_commit=False) as session, session.begin():
        yield session


def lock(session: Session, name: str) -> None:
    """Hold the lock `name` until the end of the transaction, for rules that no single row can carry, such as a quota.

    On SQLite the transaction itself, once begun, excludes every other one that may write.
    """
    if session.connection().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


def _session(request: Request) -> Iterator[Session]:
    with transaction(request.app.state.engine, read_only=request.method in ("GET", "HEAD")) as session:
        yield session


# Scope "function": the commit happens before the response leaves, so that a 2xx is never sent for something that was not kept.
SessionDep = Annotated[Session, Depends(_session, scope="function")]


def migration_config(engine: Engine, package: str) -> Config:
    """Alembic's configuration for the history in `<package>.migrations`, e.g. `services.marketplace`.

    Each history keeps its own version table, so that the foundation and the service do not have to know each other.
    """
    scripts = Path(str(resources.files(import_module(f"{package}.migrations"))))
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["engine"] = engine
    config.attributes["version_table"] = f"alembic_version_{package.rpartition('.')[2]}"
    return config


def migrate(engine: Engine, service_package: str) -> None:
    """Bring the database to the newest revision of the foundation's and the service's history; idempotent."""
    for package in ("services.foundation", service_package):
        command.upgrade(migration_config(engine, package), "head")


def run_migrations(metadata: MetaData) -> None:
    """The body of each history's `env.py`; `metadata` is what autogenerate compares with.

    A run is one transaction on both databases, and a second one that starts meanwhile waits for it and finds nothing to do.
    """
    from alembic import context

    engine: Engine = context.config.attributes["engine"]
    sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        if sqlite:
            # Changing a table means copying and dropping it, which would delete or refuse the rows that point to it.
            # The pragma has no effect inside a transaction, and this connection never goes back to the pool.
            connection.detach()
            connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            if not sqlite:
                connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("migrations", 0))))
            context.configure(
                connection=connection,
                target_metadata=metadata,
                version_table=context.config.attributes["version_table"],
                render_as_batch=sqlite,
                include_name=lambda name, kind, _parents: kind != "table" or name in metadata.tables,
            )
            with context.begin_transaction():
                context.run_migrations()
            if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
                raise RuntimeError(f"the migration leaves rows that point to nothing in {sorted({row[0] for row in broken})}")
