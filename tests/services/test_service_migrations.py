"""Each service's migration history makes exactly the tables of its models, and nothing starts on another database."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect

from rexis.errors import ConfigurationError
from services.foundation.assembly import require_migrated
from services.foundation.database import migrate, migration_config, open_engine
from tests.services.service_applications import SERVICES, application, environment_of, settings_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Engine]:
    engine = open_engine(empty_database_url)
    yield engine
    engine.dispose()


def test_autogenerate_finds_no_difference(service: str, engine: Engine) -> None:
    migrate(engine, f"services.{service}")
    metadata = import_module(f"services.{service}.models").Base.metadata

    def own(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in metadata.tables

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": f"alembic_version_{service}", "include_name": own, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_up_down_up(service: str, empty: Engine) -> None:
    migrate(empty, f"services.{service}")
    made = set(inspect(empty).get_table_names())
    command.downgrade(migration_config(empty, f"services.{service}"), "base")
    own = set(import_module(f"services.{service}.models").Base.metadata.tables)
    assert set(inspect(empty).get_table_names()) == made - own
    for _ in range(2):
        migrate(empty, f"services.{service}")
    assert set(inspect(empty).get_table_names()) == made
    require_migrated(empty, f"services.{service}")


@pytest.mark.parametrize("behind", ["foundation", "service"])
def test_another_revision_is_refused_with_the_command(service: str, behind: str, empty: Engine) -> None:
    migrate(empty, f"services.{service}")
    command.downgrade(migration_config(empty, f"services.{service if behind == 'service' else 'foundation'}"), "base")
    with pytest.raises(ConfigurationError, match=rf"python -m services\.{service}\.migrations"):
        require_migrated(empty, f"services.{service}")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_command_migrates_and_only_then_the_service_starts(service: str, empty_database_url: str) -> None:
    settings = settings_for(service, empty_database_url)
    environment = environment_of(settings)

    def run(module: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    refused = run(f"services.{service}.background")
    assert refused.returncode != 0
    assert f"python -m services.{service}.migrations" in refused.stderr
    assert run(f"services.{service}.migrations").returncode == 0
    engine = open_engine(empty_database_url)
    require_migrated(engine, f"services.{service}")
    engine.dispose()
    assert application(settings).title == f"Rexis {service}"
