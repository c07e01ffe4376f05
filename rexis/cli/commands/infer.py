"""`rexis infer`."""

from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.commands.options import AsJson, Trainer, Verifier
from rexis.cli.output import failures


def infer(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Id of the model at the trainer.")],
    inputs: Annotated[
        Path, typer.Argument(help="Plain rows, .csv, .parquet, .safetensors or .npy; they stay here.", exists=True, dir_okay=False)
    ],
    key: Annotated[Path, typer.Option(help="Key file of the model; opens with your passphrase.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Predictions, .csv or .safetensors.", dir_okay=False)] = Path(
        "predictions.csv"
    ),
    receipts: Annotated[
        Path | None, typer.Option(help="Receipts of the answers; default: beside the output.", dir_okay=False, show_default=False)
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Account that must have signed the receipts.", show_default=False)
    ] = None,
    deposit: Annotated[bool, typer.Option(help="Deposit the receipts at the verifier.")] = True,
    trainer: Trainer = None,
    verifier: Verifier = None,
    timeout: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Ask a keyed model about rows: encrypt them here, check the receipt of every answer, decrypt here.

    Where anyone but the owner holds the model's plain weights, the rows are protected by obfuscation only; the result says so.
    """
    with failures(as_json):
        from rexis.cli.infer import InferOptions
        from rexis.cli.infer import infer as ask

        options = InferOptions(
            model=model,
            inputs=inputs,
            key=key,
            output=output,
            receipts=receipts or output.with_suffix(".receipts.json"),
            issuer=issuer,
            deposit=deposit,
            timeout_s=timeout,
        )
        ask(options, trainer=trainer, verifier=verifier, as_json=as_json)
