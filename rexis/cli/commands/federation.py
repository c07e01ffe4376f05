"""`rexis federation`."""

from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.commands.options import Aggregator, AsJson
from rexis.cli.output import failures

app = typer.Typer(no_args_is_help=True, help="Train models, and sum statistics, with others who show nobody their data.")

FederationId = Annotated[str, typer.Argument(metavar="FEDERATION", help="Id of the federation, 0x and 64 hexadecimal digits.")]
Chain = Annotated[str | None, typer.Option("--chain", metavar="URL", help="JSON-RPC node of your own.", show_default=False)]


@app.command("create")
def federation_create(
    spec: Annotated[Path, typer.Argument(help="YAML file that describes it.", exists=True, dir_okay=False)],
    wait: Annotated[bool, typer.Option(help="Wait until it is on chain.")] = True,
    timeout: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")] = 120,
    aggregator: Aggregator = None,
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Found a federation: its first model is built here and uploaded, its config is fixed on chain. Safe to repeat."""
    with failures(as_json):
        from rexis.cli.federation import create

        create(spec, wait=wait, timeout_s=timeout, aggregator=aggregator, chain=chain, as_json=as_json)


@app.command("join")
def federation_join(
    federations: Annotated[
        list[str], typer.Argument(metavar="FEDERATION...", help="Ids of the federations, 0x and 64 hexadecimal digits.")
    ],
    site: Annotated[
        Path | None,
        typer.Option(help="Site file with this institution's rules.", exists=True, dir_okay=False, show_default=False),
    ] = None,
    aggregator: Aggregator = None,
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Take part with the data set that the federation names: checked against your own chain node and your site's rules first."""
    with failures(as_json):
        from rexis.cli.federation import join_federations

        join_federations(federations, site, aggregator=aggregator, chain=chain, as_json=as_json)


@app.command("list")
def federation_list(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    aggregator: Aggregator = None,
    as_json: AsJson = False,
) -> None:
    """List the federations that you founded or are a member of, newest first."""
    with failures(as_json):
        from rexis.cli.federation import list_federations

        list_federations(limit, aggregator=aggregator, as_json=as_json)


@app.command("status")
def federation_status(federation: FederationId, aggregator: Aggregator = None, as_json: AsJson = False) -> None:
    """Show a federation and its rounds."""
    with failures(as_json):
        from rexis.cli.federation import show_status

        show_status(federation, aggregator=aggregator, as_json=as_json)


@app.command("model")
def federation_model(
    federation: FederationId,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (safetensors).", dir_okay=False)],
    own: Annotated[bool, typer.Option("--own", help="Put in the personal tensors that stayed here, from the journal.")] = False,
    with_bias: Annotated[bool, typer.Option("--with-bias", help="Write a Cox model as a logistic one with a bias of zero.")] = False,
    aggregator: Aggregator = None,
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Download the present global model; its record, and that training may have ended, are compared with the chain."""
    with failures(as_json):
        from rexis.cli.federation_models import download_model

        download_model(federation, output, own=own, with_bias=with_bias, aggregator=aggregator, chain=chain, as_json=as_json)


@app.command("base")
def federation_base(
    folder: Annotated[Path, typer.Argument(help="HuggingFace folder of a BERT encoder.", exists=True, file_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Show the digest that names an encoder in the plan of a text classifier."""
    with failures(as_json):
        from rexis.cli.federation_models import show_base

        show_base(folder, as_json=as_json)


@app.command("result")
def federation_result(
    federation: FederationId,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw survival curves to this file (SVG).", dir_okay=False)] = None,
    aggregator: Aggregator = None,
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Show the result of a statistic and what follows from it; its digest is compared with the chain."""
    with failures(as_json):
        from rexis.cli.federation import show_result

        show_result(federation, plot=plot, aggregator=aggregator, chain=chain, as_json=as_json)


@app.command("scores")
def federation_scores(federation: FederationId, aggregator: Aggregator = None, chain: Chain = None, as_json: AsJson = False) -> None:
    """Show what each member contributed, with intervals and bands: computed here from the chain, and compared with the aggregator's."""
    with failures(as_json):
        from rexis.cli.rewards import show_scores

        show_scores(federation, aggregator=aggregator, chain=chain, as_json=as_json)


@app.command("rewards")
def federation_rewards(
    federation: FederationId,
    epoch: Annotated[str, typer.Argument(metavar="REWARD", help="Id of the reward that was paid in, 0x and 64 hexadecimal digits.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the shares, one file for each payee.", file_okay=False)],
    publish: Annotated[bool, typer.Option("--publish", help="Publish them on chain; for the reward's publisher.")] = False,
    uri: Annotated[
        str | None, typer.Option(help="Where members find out more; by default the digest of the scores.", show_default=False)
    ] = None,
    timeout: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait for the chain.")] = 120,
    aggregator: Aggregator = None,
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Divide a reward by the members' bands, write the shares with their proofs, and publish them. Safe to repeat."""
    with failures(as_json):
        from rexis.cli.rewards import PublishOptions, publish_rewards

        options = PublishOptions(epoch, output, publish, uri, timeout)
        publish_rewards(federation, options, aggregator=aggregator, chain=chain, as_json=as_json)


@app.command("claim")
def federation_claim(
    share: Annotated[Path, typer.Argument(help="File with this account's share.", exists=True, dir_okay=False)],
    timeout: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait for the chain.")] = 120,
    aggregator: Aggregator = None,
    chain: Chain = None,
    as_json: AsJson = False,
) -> None:
    """Claim one's share of a reward: checked against the publication on chain and against scores computed here first."""
    with failures(as_json):
        from rexis.cli.rewards import claim

        claim(share, timeout_s=timeout, aggregator=aggregator, chain=chain, as_json=as_json)
