"""The command `rexis`: names, options and help. What a command does is imported when it runs, so that `--help` stays fast."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.commands import access, agent, dataset, ee, federation, infer, key, model, query, verify
from rexis.cli.commands.options import Aggregator, AsJson, Marketplace, Trainer, Verifier
from rexis.cli.output import failures, report_defect

app = typer.Typer(
    name="rexis",
    help="Build and check AI models on biomedical data that none of the parties may show to the others.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(dataset.app, name="dataset")
app.add_typer(agent.app, name="agent")
app.add_typer(key.app, name="key")
app.add_typer(access.app, name="access")
app.add_typer(query.app, name="query")
app.add_typer(federation.app, name="federation")
app.add_typer(ee.app, name="ee")
app.add_typer(model.app, name="model")
app.command("infer")(infer.infer)
app.add_typer(verify.app, name="verify")


@app.command()
def login(
    keystore: Annotated[
        Path | None, typer.Option(help="An existing keystore v3 file.", exists=True, dir_okay=False, show_default=False)
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Make a new key, locked with the passphrase.")] = False,
    institution: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Act for this account, which delegated to the key (`rexis key delegate`).", show_default=False
        ),
    ] = None,
    marketplace: Marketplace = None,
    trainer: Trainer = None,
    aggregator: Aggregator = None,
    verifier: Verifier = None,
    chain: Annotated[
        str | None, typer.Option("--chain", metavar="URL", help="JSON-RPC node that you trust about the chain.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose or create an identity, sign in at the marketplace, and remember both, with the URLs that are given.

    The passphrase comes from REXIS_PASSPHRASE, from the file named by REXIS_PASSPHRASE_FILE, or is asked for.
    """
    with failures(as_json):
        from rexis.cli.login import login as log_in

        urls = {"marketplace": marketplace, "trainer": trainer, "aggregator": aggregator, "verifier": verifier, "chain": chain}
        log_in(
            keystore,
            create=create,
            institution=institution,
            urls={name: url for name, url in urls.items() if url is not None},
            as_json=as_json,
        )


@app.command()
def doctor(marketplace: Marketplace = None, as_json: AsJson = False) -> None:
    """Check this machine, the identity, the services and the chain; say what to do about each failure."""
    with failures(as_json):
        from rexis.cli.doctor import doctor as examine

        examine(marketplace, as_json=as_json)


def main() -> None:
    """Entry point of the command."""
    sys.excepthook = report_defect
    app()
