"""The command `rexis`: names, options and help. What a command does is imported when it runs, so that `--help` stays fast."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.output import failures, report_defect

app = typer.Typer(
    name="rexis",
    help="Build and check AI models on biomedical data that none of the parties may show to the others.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dataset = typer.Typer(no_args_is_help=True, help="Register tables as tokenised data sets, and look at the catalogue.")
agent = typer.Typer(no_args_is_help=True, help="The agent on the institution's own premises.")
verify = typer.Typer(no_args_is_help=True, help="Check evidence offline.")
app.add_typer(dataset, name="dataset")
app.add_typer(agent, name="agent")
app.add_typer(verify, name="verify")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
Marketplace = Annotated[str | None, typer.Option("--marketplace", metavar="URL", help="URL of the marketplace.", show_default=False)]


@app.command()
def login(
    keystore: Annotated[
        Path | None, typer.Option(help="An existing keystore v3 file.", exists=True, dir_okay=False, show_default=False)
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Make a new key, locked with the passphrase.")] = False,
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """Choose or create an identity, sign in at the marketplace, and remember both.

    The passphrase comes from REXIS_PASSPHRASE, from the file named by REXIS_PASSPHRASE_FILE, or is asked for.
    """
    with failures(as_json):
        from rexis.cli.login import login as log_in

        log_in(keystore, create=create, marketplace=marketplace, as_json=as_json)


@dataset.command("register")
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


@dataset.command("list")
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


@dataset.command("show")
def dataset_show(
    token_id: Annotated[int, typer.Argument(min=1, help="Token id of the data set.")],
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """Show one data set: its on-chain record, fields and terms of use. Documents are checked against their hashes."""
    with failures(as_json):
        from rexis.cli.dataset import show

        show(token_id, marketplace=marketplace, as_json=as_json)


@agent.command("journal")
def agent_journal(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many of the newest entries.")] = 50,
    subject: Annotated[str | None, typer.Option(help="Only entries about this, e.g. 'dataset 0x…'.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this agent did and sent. Needs no passphrase and shows no secret."""
    with failures(as_json):
        from rexis.cli.agent import show_journal

        show_journal(limit, subject, as_json=as_json)


@app.command()
def doctor(marketplace: Marketplace = None, as_json: AsJson = False) -> None:
    """Check this machine, the identity, the services and the chain; say what to do about each failure."""
    with failures(as_json):
        from rexis.cli.doctor import doctor as examine

        examine(marketplace, as_json=as_json)


@verify.command("inclusion")
def verify_inclusion(
    proof: Annotated[Path, typer.Argument(help="Proof file (JSON).", exists=True, dir_okay=False)],
    record: Annotated[
        str | None, typer.Option(metavar="HEX", help="The published record, e.g. the content root on chain.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a record commits to an item at its position."""
    with failures(as_json):
        from rexis.cli.verify import inclusion

        inclusion(proof, record, as_json=as_json)


def main() -> None:
    """Entry point of the command."""
    sys.excepthook = report_defect
    app()
