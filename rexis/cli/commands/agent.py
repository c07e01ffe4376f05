"""`rexis agent`."""

from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.commands.options import AsJson
from rexis.cli.output import failures

app = typer.Typer(no_args_is_help=True, help="The agent on the institution's own premises.")


@app.command("run")
def agent_run(
    site: Annotated[Path, typer.Argument(metavar="SITE", help="The site file (TOML).", exists=True, dir_okay=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value for each event.")] = False,
) -> None:
    """Answer queries and take part in federations, until stopped. Outbound connections only; one agent for each journal."""
    with failures(as_json):
        from rexis.cli.agent_run import run_agent

        run_agent(site, as_json=as_json)


@app.command("held")
def agent_held(as_json: AsJson = False) -> None:
    """Show the queries that wait for a person's decision, and what a release would send."""
    with failures(as_json):
        from rexis.cli.agent import show_held

        show_held(as_json=as_json)


@app.command("decide")
def agent_decide(
    query: Annotated[str, typer.Argument(metavar="ID", help="Id of a held query.")],
    release: Annotated[bool, typer.Option("--release/--refuse", help="Whether its result may leave.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Decide about a held query. The consumer of a refused one learns that, and no reason."""
    with failures(as_json):
        from rexis.cli.agent import decide

        decide(query, release=release, as_json=as_json)


@app.command("journal")
def agent_journal(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many of the newest entries.")] = 50,
    subject: Annotated[str | None, typer.Option(help="Only entries about this, e.g. 'dataset 0x…'.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this agent did and sent. Needs no passphrase and shows no secret."""
    with failures(as_json):
        from rexis.cli.agent import show_journal

        show_journal(limit, subject, as_json=as_json)
