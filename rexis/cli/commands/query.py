"""`rexis query`."""

from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.commands.options import AsJson, Marketplace
from rexis.cli.output import failures

app = typer.Typer(no_args_is_help=True, help="Compute-to-data: questions that run where the data are.")


@app.command("submit")
def query_submit(
    datasets: Annotated[list[int], typer.Argument(metavar="DATASET...", min=1, help="Token ids of the data sets.")],
    query: Annotated[Path, typer.Argument(metavar="QUERY", help="The query, YAML or JSON.", exists=True, dir_okay=False)],
    purpose: Annotated[str, typer.Option(help="DUO code of your grant: NRES, GRU, HMB, DS, POA, or its number.", show_default=False)],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until each is decided, or held for review.")] = False,
    timeout: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")] = 300,
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """Hand in a query, one job for each data set. It needs an active grant for the purpose.

    The owners' agents run it on their premises; a result leaves only through their output gate, or a reviewer's hands.
    """
    with failures(as_json):
        from rexis.cli.query import submit

        submit(datasets, query, purpose, timeout_s=timeout if wait else None, marketplace=marketplace, as_json=as_json)


@app.command("show")
def query_show(
    query: Annotated[str, typer.Argument(metavar="ID", help="Id of the query.")],
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """Show one query, and its result once it is released."""
    with failures(as_json):
        from rexis.cli.query import show

        show(query, marketplace=marketplace, as_json=as_json)


@app.command("list")
def query_list(
    role: Annotated[str, typer.Option(help="consumer: your queries; owner: those about your data sets.")] = "consumer",
    state: Annotated[str | None, typer.Option(help="queued, released, held, refused, failed or expired.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """List queries, newest first."""
    with failures(as_json):
        from rexis.cli.query import list_queries

        list_queries(role, state, limit, marketplace=marketplace, as_json=as_json)
