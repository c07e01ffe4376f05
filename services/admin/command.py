"""`rexis-admin`: what an operator does to one service, with that service's environment.

Not part of the wheel: it is installed where the services are.
"""

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.console import Console

from rexis.errors import ConfigurationError, RexisError
from services.foundation.settings import ServiceSettings

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
def reindex(service: Name, as_json: Json = False) -> None:
    """Rebuild the tables that are projected from chain events, from the stored events."""
    from services.foundation.assembly import connect_chain
    from services.foundation.chain_index import ChainIndex
    from services.foundation.database import open_engine

    try:
        projections = import_module(f"services.{service}.background").PROJECTIONS
    except AttributeError:
        raise ConfigurationError(f"the {service} projects nothing from the chain") from None
    configured = _settings(service)
    engine = open_engine(configured.database_url)
    connected = connect_chain(configured)
    events = ChainIndex(engine, connected, projections, connected.deployment.start_block).reindex()
    engine.dispose()
    _report(as_json, f"rebuilt from {events} event(s)", service=service.value, events=events)


def main() -> None:
    """Run the command; an error of ours is a message, not a stack trace."""
    try:
        app()
    except RexisError as error:
        Console(stderr=True, highlight=False).print(f"[red]error:[/] {error}", soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
