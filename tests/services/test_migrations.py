"""The foundation's migration history: complete, repeatable, all or nothing, safe to start twice."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from services.foundation.database import FoundationBase, migration_config, open_engine, transaction

FOUNDATION = "services.foundation"


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_the_history_makes_exactly_the_tables_of_the_models(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "alembic_version_foundation"})
        assert compare_metadata(context, FoundationBase.metadata) == []


def test_up_down_up(empty_database_url: str) -> None:
    engine = open_engine(empty_database_url)
    config = migration_config(engine, FOUNDATION)
    command.upgrade(config, "head")
    made = tables(engine)
    command.upgrade(config, "head")
    command.downgrade(config, "base")
    assert tables(engine) == {"alembic_version_foundation"}
    command.upgrade(config, "head")
    assert tables(engine) == made
    engine.dispose()


MIGRATING = """
import sys
from alembic import command
from services.foundation import idempotency, uploads
from services.foundation.database import migration_config, open_engine

engine = open_engine(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
command.upgrade(migration_config(engine, "services.foundation"), "head")
"""


def test_runs_at_the_same_time_make_one_history(empty_database_url: str) -> None:
    arguments = [sys.executable, "-c", MIGRATING, empty_database_url]
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    errors = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], errors
    engine = open_engine(empty_database_url)
    with transaction(engine, read_only=True) as session:
        assert len(session.execute(text("SELECT version_num FROM alembic_version_foundation")).all()) == 1
    assert "upload" in tables(engine)
    engine.dispose()


@pytest.fixture
def clinic_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A history of another package beside the foundation's: patients and their visits, then a change to patients that fails."""
    package = tmp_path / "clinic"
    (package / "migrations" / "versions").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "migrations" / "__init__.py").touch()
    (package / "migrations" / "env.py").write_text(
        "from sqlalchemy import MetaData\nfrom services.foundation.database import run_migrations\nrun_migrations(MetaData())\n"
    )
    head = "import sqlalchemy as sa\nfrom alembic import op\nrevision = {!r}\ndown_revision = {!r}\n\n\ndef upgrade():\n"
    bodies = {
        "0001": """
    op.create_table("patient", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(10)))
    op.create_table("visit", sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("patient_id", sa.Integer, sa.ForeignKey("patient.id", ondelete="CASCADE")))
    op.execute("INSERT INTO patient VALUES (1, 'a')")
    op.execute("INSERT INTO visit VALUES (1, 1)")
""",
        "0002": """
    with op.batch_alter_table("patient") as patient:
        patient.alter_column("name", type_=sa.String(20), existing_type=sa.String(10))
""",
        "0003": """
    op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("INSERT INTO nothing VALUES (1)")
""",
    }
    for revision, before in (("0001", None), ("0002", "0001"), ("0003", "0002")):
        (package / "migrations" / "versions" / f"{revision}.py").write_text(head.format(revision, before) + bodies[revision])
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("clinic", "clinic.migrations"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "clinic"


def test_changing_a_table_keeps_the_rows_that_point_to_it(engine: Engine, clinic_history: str) -> None:
    command.upgrade(migration_config(engine, clinic_history), "0002")
    with transaction(engine) as session:
        assert session.execute(text("SELECT count(*) FROM visit")).scalar() == 1
        with pytest.raises(SQLAlchemyError):
            session.execute(text("INSERT INTO visit VALUES (2, 99)"))
        session.rollback()


def test_a_failing_run_changes_nothing(engine: Engine, clinic_history: str) -> None:
    before = tables(engine)
    with pytest.raises(SQLAlchemyError):
        command.upgrade(migration_config(engine, clinic_history), "head")
    assert tables(engine) == before
    assert {"upload", "alembic_version_foundation"} <= before
