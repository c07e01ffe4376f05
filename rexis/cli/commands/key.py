"""`rexis key`."""

from typing import Annotated

import typer

from rexis.cli.commands.options import AsJson, Marketplace
from rexis.cli.output import failures

app = typer.Typer(no_args_is_help=True, help="Keys of machines that may sign for your institution: its own key stays offline.")

Chain = Annotated[str | None, typer.Option("--chain", metavar="URL", help="JSON-RPC node of your own.", show_default=False)]
Institution = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Whose keys; default: the account you are logged in as.", show_default=False)
]
Timeout = Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before signing.")]


@app.command("create")
def key_create(as_json: AsJson = False) -> None:
    """Make a key on the machine that is to use it. It may do nothing until somebody delegates to it."""
    with failures(as_json):
        from rexis.cli.key import create

        create(as_json=as_json)


@app.command("delegate")
def key_delegate(
    agent: Annotated[str, typer.Option(metavar="ADDRESS", help="Address of the machine's key.", show_default=False)],
    powers: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="POWER,…",
            help="Among registration, datasets, grants, committee, models, sign-in, or Contract.function. "
            "Sign-in is always part of it: whoever acts through services signs in.",
            show_default=False,
        ),
    ],
    until: Annotated[str, typer.Option(metavar="DATE", help="Last day, such as 2027-06-30 (UTC); at most two years.", show_default=False)],
    yes: Yes = False,
    timeout: Timeout = 120,
    marketplace: Marketplace = None,
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Let a key sign for you what you name, until a day that you name; in place of what it was allowed before.

    Sign-in lets it do everything at services that takes no signature of its own, such as asking for access or answering queries.
    """
    with failures(as_json):
        from rexis.cli.key import delegate

        named = [power.strip() for power in powers.split(",")]
        delegate(agent, named, until, ask=not (yes or as_json), timeout_s=timeout, marketplace=marketplace, node=chain, as_json=as_json)


@app.command("revoke")
def key_revoke(
    agent: Annotated[str, typer.Argument(metavar="ADDRESS", help="Address of the key.")],
    timeout: Timeout = 120,
    marketplace: Marketplace = None,
    as_json: AsJson = False,
) -> None:
    """End a delegation at once. Those that you signed before are void as well, also where they have not arrived yet.

    Sessions that the key opened at services end within a quarter of an hour.
    """
    with failures(as_json):
        from rexis.cli.key import revoke

        revoke(agent, timeout_s=timeout, marketplace=marketplace, as_json=as_json)


@app.command("list")
def key_list(institution: Institution = None, chain: Chain = None, as_json: AsJson = False) -> None:
    """List the keys that have a delegation, as the chain holds them; expired ones too."""
    with failures(as_json):
        from rexis.cli.key import list_keys

        list_keys(institution, node=chain, as_json=as_json)


@app.command("show")
def key_show(
    agent: Annotated[str, typer.Argument(metavar="ADDRESS", help="Address of the key.")],
    institution: Institution = None,
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Show what one key may do, as the chain holds it."""
    with failures(as_json):
        from rexis.cli.key import show

        show(agent, institution, node=chain, as_json=as_json)
