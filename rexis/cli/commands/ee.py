"""`rexis ee`."""

from pathlib import Path
from typing import Annotated

import typer

from rexis.cli.commands.options import AsJson
from rexis.cli.output import failures

app = typer.Typer(
    no_args_is_help=True,
    help="Key models, rows and answers on the premises (equivariant encryption: obfuscation only, where others hold the plain weights).",
)

KeyFile = Annotated[Path, typer.Option("--key", help="Key file; opens with your passphrase.", exists=True, dir_okay=False)]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.", dir_okay=False, show_default=False)]
FileOrFolder = Annotated[Path, typer.Option("--output", "-o", help="File to write, or new folder for a folder.", show_default=False)]


@app.command("keygen")
def ee_keygen(
    model_spec: Annotated[Path, typer.Argument(help="Model specification, JSON or YAML, or a HuggingFace folder.", exists=True)],
    knowledge: Annotated[
        str, typer.Option(help="Who holds the plain weights: private (you only), members (of a federation) or public.", show_default=False)
    ],
    output: Output,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="Plain weights, a .safetensors file or a folder of them: compared with known public models.", exists=True
        ),
    ] = None,
    mode: Annotated[str, typer.Option(help="infer, or train.")] = "infer",
    suite: Annotated[str, typer.Option(help="dense, permutation, or inputs (rows only: the model stays plain).")] = "dense",
    scheme: Annotated[str, typer.Option(help="keyed, or noise: Gaussian noise on rows before the key.")] = "keyed",
    sigma: Annotated[
        float | None, typer.Option(help="Standard deviation of the noise, in the unit of the rows.", show_default=False)
    ] = None,
    records: Annotated[
        int | None, typer.Option(min=1, help="How many rows may be keyed in all; beyond them it refuses.", show_default=False)
    ] = None,
    accept_known_base_risk: Annotated[
        bool, typer.Option("--accept-known-base-risk", help="Make a key for a public model, although it is recovered in seconds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key for one model and one job, in a new file that your passphrase opens.

    Whoever holds the plain weights recovers the key from the keyed ones: with members or public knowledge, keying is obfuscation only.
    A model that comes from a known public one and is called private is refused, here with --model and again when it is keyed.
    """
    with failures(as_json):
        from rexis.cli.ee import keygen

        made = {"mode": mode, "suite": suite, "knowledge": knowledge, "accept_known_base_risk": accept_known_base_risk}
        keygen(model_spec, output, {**made, "records": records, "scheme": scheme, "sigma": sigma}, model=model, as_json=as_json)


@app.command("show")
def ee_show(key: KeyFile, as_json: AsJson = False) -> None:
    """Show what a key is for; no secret is printed."""
    with failures(as_json):
        from rexis.cli.ee import show

        show(key, as_json=as_json)


@app.command("encrypt")
def ee_encrypt(
    key: KeyFile,
    output: FileOrFolder,
    model: Annotated[
        Path | None, typer.Option("--model", help="Plain model: .safetensors, or a HuggingFace folder.", exists=True, show_default=False)
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            help="Plain rows (.csv, .parquet, .safetensors, .npy), or token ids of a tokenizer (.safetensors, .parquet, .npy).",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the keyed copy of a model, or of rows or token ids.

    Token ids of a BERT or Llama model are those that its own tokenizer gives: input_ids [n, length], and attention_mask where there is
    padding. A Parquet file has them as columns of lists. The mask goes out as it is.
    """
    with failures(as_json):
        from rexis.cli.ee import encrypt

        encrypt(key, output, model=model, inputs=inputs, as_json=as_json)


@app.command("encrypt-model")
def ee_encrypt_model(
    model: Annotated[Path, typer.Argument(help="Plain model: .safetensors, or a HuggingFace folder.", exists=True)],
    key: KeyFile,
    output: FileOrFolder,
    as_json: AsJson = False,
) -> None:
    """Write the keyed copy of a model: the same as `encrypt --model`."""
    with failures(as_json):
        from rexis.cli.ee import encrypt

        encrypt(key, output, model=model, inputs=None, as_json=as_json)


@app.command("decrypt")
def ee_decrypt(
    key: KeyFile,
    output: FileOrFolder,
    model: Annotated[
        Path | None, typer.Option("--model", help="Keyed model: .safetensors, or a HuggingFace folder.", exists=True, show_default=False)
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option("--outputs", help="Keyed answers (.safetensors).", exists=True, dir_okay=False, show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the plain copy of a keyed model, or of keyed answers (.csv, or .safetensors by the name of the output).

    Answers are y, one row or one vector a token, or the token ids that a keyed Llama generated, which become input_ids again.
    """
    with failures(as_json):
        from rexis.cli.ee import decrypt

        decrypt(key, output, model=model, outputs=outputs, as_json=as_json)


@app.command("check")
def ee_check(
    model: Annotated[Path, typer.Argument(help="Plain model: .safetensors, or a HuggingFace folder.", exists=True)],
    key: KeyFile,
    data: Annotated[
        Path,
        typer.Option(
            help="Your data: rows (.csv, .parquet, .safetensors, .npy) or token ids (.safetensors, .parquet, .npy).",
            exists=True,
            dir_okay=False,
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Data of the same kind that an attacker may hold; default: half of yours.", exists=True, dir_okay=False, show_default=False
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Classes of your records, .csv, .parquet or .npy.", exists=True, dir_okay=False, show_default=False)
    ] = None,
    unseen: Annotated[
        Path | None,
        typer.Option(help="Records that it was not trained on, if it was on yours.", exists=True, dir_okay=False, show_default=False),
    ] = None,
    unseen_labels: Annotated[
        Path | None, typer.Option(help="Classes of those, .csv, .parquet or .npy.", exists=True, dir_okay=False, show_default=False)
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="The model that yours came from, if others hold it: file or folder.", exists=True, show_default=False),
    ] = None,
    earlier: Annotated[
        Path | None, typer.Option(help="A keyed model that went out before, for linking: file or folder.", exists=True, show_default=False)
    ] = None,
    known: Annotated[
        int | None, typer.Option(min=0, help="How many records may be known in plain; default: one in a hundred.", show_default=False)
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(min=0.0, help="Standard deviation of the noise on the job's rows; default: the key's.", show_default=False),
    ] = None,
    budget: Annotated[float, typer.Option(min=0.0, metavar="SECONDS", help="Time for all attacks.")] = 60.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a report.", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the report, for `rexis model publish --report`.", dir_okay=False)
    ] = None,
    html: Annotated[Path | None, typer.Option(help="File for the report as a page.", dir_okay=False, show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Attack your own job before it goes out: a privacy report, which stays with you.

    A pass means that this attack in this version read nothing; it is no proof. What did not fit into the time is no pass.
    """
    with failures(as_json):
        from rexis.cli.privacy import CheckOptions, check

        options = CheckOptions(
            model=model,
            key=key,
            data=data,
            reference=reference,
            labels=labels,
            unseen=unseen,
            unseen_labels=unseen_labels,
            base=base,
            earlier=earlier,
            known=known,
            noise=noise,
            budget_s=budget,
            seed=seed,
            output=output,
            html=html,
        )
        check(options, as_json=as_json)
