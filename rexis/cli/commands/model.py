"""`rexis model`."""

from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.commands.options import AsJson, Trainer
from rexis.cli.output import failures

app = typer.Typer(no_args_is_help=True, help="Keyed models at a trainer: publish, share and revoke them.")

ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="Id of the model at the trainer.")]
Timeout = Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")]
Users = Annotated[list[str] | None, typer.Option("--user", metavar="ADDRESS", help="Who else may ask it (repeatable).", show_default=False)]


@app.command("publish")
def model_publish(
    file: Annotated[Path, typer.Argument(help="Keyed model (.safetensors), from `rexis ee encrypt --model`.", exists=True, dir_okay=False)],
    key: Annotated[Path, typer.Option(help="Its key file, for the label; the key stays here.", exists=True, dir_okay=False)],
    name: Annotated[str | None, typer.Option(help="Public name; default: the file's name without its ending.", show_default=False)] = None,
    description: Annotated[str, typer.Option(help="Public description.", show_default=False)] = "",
    spec: Annotated[
        Path | None, typer.Option(help="Model specification; default: that of the key.", exists=True, dir_okay=False, show_default=False)
    ] = None,
    user: Users = None,
    uri: Annotated[
        str | None, typer.Option(help="Where the description is published; default: the trainer's copy.", show_default=False)
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Privacy report from `rexis ee check --output`; only its grade, verdicts and salted digest are published.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    trainer: Trainer = None,
    wait: Annotated[bool, typer.Option(help="Wait until the chain names it.")] = True,
    timeout: Timeout = 120,
    as_json: AsJson = False,
) -> None:
    """Upload a keyed model and vouch for it on chain. Its label says whether keying protects it: see `rexis ee keygen --help`."""
    with failures(as_json):
        from rexis.cli.model import PublishOptions, publish

        options = PublishOptions(
            file=file,
            key=key,
            name=name or file.stem,
            description=description,
            spec=spec,
            users=tuple(user or ()),
            uri=uri,
            report=report,
            wait=wait,
            timeout_s=timeout,
        )
        publish(options, trainer=trainer, as_json=as_json)


@app.command("list")
def model_list(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    trainer: Trainer = None,
    as_json: AsJson = False,
) -> None:
    """List the models that you own or may use, newest first."""
    with failures(as_json):
        from rexis.cli.model import list_models

        list_models(limit, trainer=trainer, as_json=as_json)


@app.command("show")
def model_show(model: ModelId, trainer: Trainer = None, as_json: AsJson = False) -> None:
    """Show one model: what it is, how it is protected, and where it stands."""
    with failures(as_json):
        from rexis.cli.model import show

        show(model, trainer=trainer, as_json=as_json)


@app.command("share")
def model_share(model: ModelId, user: Users = None, trainer: Trainer = None, as_json: AsJson = False) -> None:
    """Name who besides you may ask a model from now on; without --user, nobody."""
    with failures(as_json):
        from rexis.cli.model import share

        share(model, tuple(user or ()), trainer=trainer, as_json=as_json)


@app.command("revoke")
def model_revoke(
    model: ModelId,
    reason: Annotated[
        str, typer.Option(help="model-withdrawn, data-withdrawn, key-compromise, audit-failed, superseded or tooling-bug.")
    ] = "model-withdrawn",
    trainer: Trainer = None,
    timeout: Timeout = 120,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before signing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take a model back on chain, for good: it answers nothing any more."""
    with failures(as_json):
        from rexis.cli.model import revoke

        revoke(model, reason, ask=not (yes or as_json), timeout_s=timeout, trainer=trainer, as_json=as_json)
