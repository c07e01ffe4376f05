"""`rexis verify`."""

from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.commands.options import AsJson, Verifier
from rexis.cli.output import failures

app = typer.Typer(no_args_is_help=True, help="Check evidence offline.")


@app.command("inclusion")
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


@app.command("receipt")
def verify_receipt(
    bundle: Annotated[Path, typer.Argument(help="Receipt bundle (JSON), from `rexis verify fetch`.", exists=True, dir_okay=False)],
    issuer: Annotated[str | None, typer.Option(metavar="ADDRESS", help="The provider that must have signed.", show_default=False)] = None,
    owner: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Whose model must have answered.", show_default=False)] = None,
    record: Annotated[
        str | None, typer.Option(metavar="HEX", help="The batch's record, as you read it from the chain.", show_default=False)
    ] = None,
    rpc: Annotated[
        str | None, typer.Option(metavar="URL", help="A node that you trust; without it nothing is asked.", show_default=False)
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Encrypted model file.", exists=True, dir_okay=False, show_default=False)] = None,
    spec: Annotated[Path | None, typer.Option(help="Its model spec (JSON).", exists=True, dir_okay=False, show_default=False)] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="Encrypted batch file with the input.", exists=True, dir_okay=False, show_default=False)
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option(help="Encrypted output file with the answer.", exists=True, dir_okay=False, show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a provider gave this answer and can not take it back. Offline, unless --rpc names a node.

    Every claim is PASS, FAIL, or NOT CHECKED for want of evidence. The result is PASS only with the issuer whom you expect and the chain's
    record. The exit code is 1 if a claim failed.
    """
    with failures(as_json):
        from rexis.cli.receipt_claims import Evidence
        from rexis.cli.verify import receipt
        from rexis.encoding import checksum_address, from_hex

        evidence = Evidence(
            issuer=checksum_address(issuer) if issuer is not None else None,
            owner=checksum_address(owner) if owner is not None else None,
            record=from_hex(record, 32) if record is not None else None,
            rpc_url=rpc,
            model=model,
            spec=spec,
            inputs=inputs,
            outputs=outputs,
        )
        receipt(bundle, evidence, as_json=as_json)


@app.command("fetch")
def verify_fetch(
    receipt: Annotated[str, typer.Argument(help="Digest of a receipt that you issued or handed in, or a receipt file to hand in first.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the bundle goes.", dir_okay=False)],
    issuer: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Chooses where several providers signed the same.", show_default=False)
    ] = None,
    verifier: Verifier = None,
    timeout: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long to wait for a batch on chain.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Download the bundle of a receipt once it is in a batch on chain. It opens a commitment: keep it like the data."""
    with failures(as_json):
        from rexis.cli.verify import fetch

        fetch(receipt, output, issuer=issuer, verifier=verifier, timeout_s=timeout, as_json=as_json)
