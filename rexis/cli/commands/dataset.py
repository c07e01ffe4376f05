"""`rexis dataset`."""

from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.commands.options import AsJson, Marketplace
from rexis.cli.output import failures

app = typer.Typer(no_args_is_help=True, help="Register tables as tokenised data sets, and look at the catalogue.")


@app.command("register")
def dataset_register(
    table: Annotated[Path, typer.Argument(help="CSV file with a header line; it stays here.", exists=True, dir_okay=False)],
    policy: Annotated[Path, typer.Option(help="Data-use policy (DUO codes), YAML or JSON.", exists=True, dir_okay=False)],
    title: Annotated[
        str | None, typer.Option(help="Public title; default: the file's name without its ending.", show_default=False)
    ] = None,
    description: Annotated[str, typer.Option(help="Public description.", show_default=False)] = "",
    creator: Annotated[str | None, typer.Option(help="Public name of the institution.", show_default=False)] = None,
    license_url: Annotated[
        str | None, typer.Option("--license", metavar="URL", help="Licence beside the policy.", show_default=False)
    ] = None,
    citation: Annotated[str | None, typer.Option(help="How to cite the data set.", show_default=False)] = None,
    delimiter: Annotated[str, typer.Option(help="Character between cells.")] = ",",
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Leave a column out (repeatable).", show_default=False)
    ] = None,
    quasi_identifier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="What outsiders may know of a person (repeatable); default: found by name.", show_default=False
        ),
    ] = None,
    minimum_k: Annotated[int, typer.Option("--minimum-k", min=2, help="Warn below this k-anonymity.")] = 10,
    marketplace: Marketplace = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would leave the premises, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before sending.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the token is in the catalogue.")] = True,
    timeout: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Register a table as a tokenised data set. Rows, salts and counts stay on the premises.

    Run again after an interruption it goes on where it stopped; a table is registered once per owner.
    """
    with failures(as_json):
        from rexis.cli.dataset import RegisterOptions, register

        options = RegisterOptions(
            table=table,
            policy=policy,
            title=title or table.stem,
            description=description,
            creator=creator,
            license=license_url,
            citation=citation,
            delimiter=delimiter,
            exclude=tuple(exclude or ()),
            quasi_identifiers=tuple(quasi_identifier) if quasi_identifier else None,
            minimum_k=minimum_k,
            marketplace=marketplace,
            dry_run=dry_run,
            ask=not (yes or as_json),
            wait=wait,
            timeout_s=timeout,
        )
        register(options, as_json=as_json)


@app.command("list")
def dataset_list(
    owner: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Only this owner's.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """List the catalogue, newest first."""
    with failures(as_json):
        from rexis.cli.dataset import list_entries

        list_entries(owner, limit, marketplace=marketplace, as_json=as_json)


@app.command("show")
def dataset_show(
    token_id: Annotated[int, typer.Argument(min=1, help="Token id of the data set.")],
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """Show one data set: its on-chain record, fields and terms of use. Documents are checked against their hashes."""
    with failures(as_json):
        from rexis.cli.dataset import show

        show(token_id, marketplace=marketplace, as_json=as_json)
