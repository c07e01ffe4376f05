"""`rexis-admin`: what an operator does to one service, with that service's environment.

Not part of the wheel: it is installed where the services are.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from rexis.encoding import to_hex
from rexis.errors import ConfigurationError, RexisError
from services.foundation.settings import ServiceSettings

if TYPE_CHECKING:
    from services.foundation.chain_comparison import Report, Row, TableComparison
    from services.foundation.chain_index import ChainIndex

# Rows of each kind of difference that are printed.
SHOWN_ROWS = 20

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Operate one Rexis service.")
chain = typer.Typer(no_args_is_help=True, help="What a service knows of the chain.")
app.add_typer(chain, name="chain")


class Service(StrEnum):
    """A service by name."""

    MARKETPLACE = "marketplace"
    TRAINER = "trainer"
    AGGREGATOR = "aggregator"
    VERIFIER = "verifier"


Name = Annotated[Service, typer.Argument(help="The service whose REXIS_ variables are set.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


def _settings(service: Service) -> ServiceSettings:
    settings_class = getattr(import_module(f"services.{service}.settings"), f"{service.title()}Settings")
    settings: ServiceSettings = settings_class.from_environment()
    return settings


def _report(as_json: bool, text: str, **values: object) -> None:
    print(json.dumps(values) if as_json else text)


@app.command()
def migrate(service: Name, as_json: Json = False) -> None:
    """Bring the service's database to the newest revision; does nothing where it is."""
    from services.foundation.database import migrate as bring_up_to_date
    from services.foundation.database import open_engine

    engine = open_engine(_settings(service).database_url)
    bring_up_to_date(engine, f"services.{service}")
    engine.dispose()
    _report(as_json, f"the database of the {service} is up to date", service=service.value, migrated=True)


@app.command()
def openapi(service: Name) -> None:
    """Print the service's OpenAPI document."""
    create_app: Callable[[ServiceSettings], Any] = import_module(f"services.{service}.app").create_app
    print(json.dumps(create_app(_settings(service)).openapi(), indent=2, ensure_ascii=False))


@app.command()
def settings(service: Name) -> None:
    """Print the effective settings as JSON; secrets are masked."""
    print(json.dumps(_settings(service).masked(), indent=2))


@chain.command()
def reindex(
    service: Name,
    check: Annotated[bool, typer.Option("--check", help="Change nothing: say which rows differ, and exit with 1 if any does.")] = False,
    from_chain: Annotated[bool, typer.Option("--from-chain", help="Forget the stored events first, and read all of them anew.")] = False,
    as_json: Json = False,
) -> None:
    """Rebuild the tables that are projected from chain events, from the stored events.

    With --from-chain, tables fill up again while the chain is read. With --check, the stored events are compared with the node's, and the
    tables with what the events make of them, row for row; while the tables are compared, the chain index waits, and on SQLite all writers.
    """
    from services.foundation.chain_comparison import compare

    if check and from_chain:
        raise ConfigurationError("--check changes nothing, --from-chain does: choose one of them")
    with _index(service) as index:
        if check:
            with _progress() as report:
                tables = compare(index, report)
            _report_differences(service, tables, as_json)
        else:
            with _progress() as report:
                events = index.read_anew() if from_chain else index.reindex(report("events"))
            _report(as_json, f"rebuilt from {events} event(s)", service=service.value, events=events)


@contextmanager
def _index(service: Service) -> "Iterator[ChainIndex]":
    from services.foundation.assembly import connect_chain
    from services.foundation.chain_index import ChainIndex
    from services.foundation.database import open_engine

    try:
        projections = import_module(f"services.{service}.background").PROJECTIONS
    except AttributeError:
        raise ConfigurationError(f"the {service} projects nothing from the chain") from None
    configured = _settings(service)
    connected = connect_chain(configured)
    engine = open_engine(configured.database_url)
    try:
        yield ChainIndex(engine, connected, projections, connected.deployment.start_block)
    finally:
        engine.dispose()


@contextmanager
def _progress() -> "Iterator[Report]":
    """Bars on a terminal, one for each kind of work; they go when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def report(what: str) -> "Callable[[int, int], None]":
            task = bars.add_task(what, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield report


def _report_differences(service: Service, tables: "Sequence[TableComparison]", as_json: bool) -> None:
    different = [table.table for table in tables if not table.equal]
    if as_json:
        shown = {each.table: {"rows": each.rows, "missing": _shown(each.missing), "unexpected": _shown(each.unexpected)} for each in tables}
        print(json.dumps({"service": service.value, "equal": not different, "tables": shown}))
    else:
        for each in tables:
            print(f"{each.table}: {each.rows} row(s), {len(each.missing)} missing, {len(each.unexpected)} unexpected")
            for sign, rows in (("-", each.missing), ("+", each.unexpected)):
                for row in _shown(rows)["first"]:
                    print(f"  {sign} {json.dumps(row)}")
        print(
            f"rebuild with `rexis-admin chain reindex {service}{_option(different)}`" if different else "everything is as the chain has it"
        )
    if different:
        raise typer.Exit(1)


def _option(different: Sequence[str]) -> str:
    return " --from-chain" if "chain_event" in different else ""


def _shown(rows: "Sequence[Row]") -> dict[str, Any]:
    """Rows of a difference: how many, and the first of them. They hold nothing but what is public on the chain."""
    first = [[to_hex(value) if isinstance(value, bytes) else value for value in row] for row in rows[:SHOWN_ROWS]]
    return {"count": len(rows), "first": first}


def main() -> None:
    """Run the command; an error of ours is a message, not a stack trace."""
    try:
        app()
    except RexisError as error:
        Console(stderr=True, highlight=False).print(f"[red]error:[/] {error}", soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
