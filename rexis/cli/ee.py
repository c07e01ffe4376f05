"""`rexis ee keygen`, `show`, `encrypt` and `decrypt`. Nothing here speaks to anybody."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from rexis import ee
from rexis.agent.inputs import Tokens, read_inputs
from rexis.agent.keyed_models import decrypt_model_file, encrypt_model_file
from rexis.agent.model_files import read_outputs, read_spec, read_tensors, write_inputs, write_outputs
from rexis.cli.home import passphrase
from rexis.cli.output import console, print_json
from rexis.ee.checkpoints import Progress, decrypt_checkpoint, encrypt_checkpoint, keygen_checkpoint
from rexis.ee.records import SUFFIX
from rexis.ee.schemes import Noise
from rexis.encoding import to_hex
from rexis.errors import ConfigurationError
from rexis.models.public_bases import listed_shapes, refuse_public_base

# What a key file alone is enough for.
FILED_SCHEMES = ("keyed", "noise")


def keygen(spec: Path, output: Path, chosen: dict[str, Any], *, model: Path | None, as_json: bool) -> None:
    """Make a key file and print what the key is for; `chosen` are arguments of `ee.keygen`."""
    if chosen["scheme"] not in FILED_SCHEMES:
        raise ConfigurationError(
            f"--scheme: expected one of {', '.join(FILED_SCHEMES)}, got {chosen['scheme']!r:.40}; client_encoder and ckks need the encoder "
            "or the running process beside the key: call rexis.ee.keygen"
        )
    if model is not None and chosen["knowledge"] == "private":
        refuse_public_base(read_tensors(model, listed_shapes()))
    try:
        key = keygen_checkpoint(spec, **chosen) if spec.is_dir() else ee.keygen(read_spec(spec), **chosen)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if output.exists():
        raise ConfigurationError(f"{output} exists; a key is never overwritten")
    try:
        key.save(output, passphrase(confirm=True))
    except FileExistsError as error:
        raise ConfigurationError(f"{error.filename or output} exists; a key and its count are never overwritten") from error
    _print_key(key, output, as_json)
    if not as_json:
        console().print(f"Next: `rexis ee check MODEL --key {output} --data FILE` attacks your own job before it goes out.", soft_wrap=True)


def show(path: Path, *, as_json: bool) -> None:
    """Print what a key is for."""
    _print_key(ee.Key.load(path, passphrase()), path, as_json)


def encrypt(key_file: Path, output: Path, *, model: Path | None, inputs: Path | None, as_json: bool) -> None:
    """Write the keyed copy of a model, or of rows or token ids."""
    source = _one(model=model, inputs=inputs)
    _check_output(source, output)
    key = ee.Key.load(key_file, passphrase())
    if source.is_dir():
        with _bar("encrypting", as_json) as progress:
            encrypt_checkpoint(source, output, key, progress=progress)
        _print_written(key, output, as_json, tensors=len(key.spec.shapes))
        return
    if model is not None:
        _print_written(key, output, as_json, record=to_hex(encrypt_model_file(source, output, key)))
        return
    inputs_found = read_inputs(source, key.spec)
    _print_written(key, output, as_json, **_encrypt_inputs(inputs_found, key, key_file, output))


def decrypt(key_file: Path, output: Path, *, model: Path | None, outputs: Path | None, as_json: bool) -> None:
    """Write the plain copy of a keyed model or of keyed answers."""
    source = _one(model=model, outputs=outputs)
    _check_output(source, output)
    key = ee.Key.load(key_file, passphrase())
    if source.is_dir():
        with _bar("decrypting", as_json) as progress:
            decrypt_checkpoint(source, output, key, progress=progress)
        _print_written(key, output, as_json, tensors=len(key.spec.shapes))
        return
    if model is not None:
        _print_written(key, output, as_json, record=to_hex(decrypt_model_file(source, output, key)))
        return
    answers = read_outputs(source, key.spec)
    if isinstance(answers, Tokens):
        write_outputs(output, Tokens(ee.decrypt_outputs(answers.ids, key), answers.mask))
        _print_written(key, output, as_json, texts=len(answers.ids))
        return
    write_outputs(output, ee.decrypt_outputs(answers, key))
    _print_written(key, output, as_json, rows=len(answers))


def _encrypt_inputs(inputs: Tensor | Tokens, key: ee.Key, key_file: Path, output: Path) -> dict[str, Any]:
    """Key a batch and write it; what is said of it: its record, and how much it holds."""
    plain = inputs.ids if isinstance(inputs, Tokens) else inputs
    try:
        keyed = ee.encrypt_inputs(plain, key, counter=record_counter(key, key_file, plain))
    except ValueError as error:
        # A scheme that does not take such inputs: noise on token ids.
        raise ConfigurationError(str(error)) from error
    if isinstance(inputs, Tokens):
        record = write_inputs(output, key.spec, Tokens(keyed, inputs.mask)).record
        return {"record": to_hex(record), "texts": len(plain), "tokens": int(inputs.mask.sum())}
    return {"record": to_hex(write_inputs(output, key.spec, keyed).record), "rows": len(plain)}


def record_counter(key: ee.Key, key_file: Path, x: Tensor) -> ee.RecordCounter | None:
    """What counts the rows or token ids that are about to be keyed; None if the key has no budget of records."""
    if key.records is None:
        return None
    rows = x.flatten(0, -2)
    return key.counter(key_file, rank=ee.effective_rank(rows) if x.is_floating_point() and len(rows) > 1 else None)


def protection_line(protection: str) -> str:
    """The label of a key or model as people read it."""
    if protection == "obfuscation only":
        return "[yellow]obfuscation only[/]: whoever holds the plain weights recovers the key"
    return protection


@contextmanager
def _bar(step: str, as_json: bool) -> Iterator[Progress | None]:
    """Gives a function that shows how many bytes are written and how long the rest takes, as a bar on standard error."""
    if as_json:
        yield None
        return
    from rich import progress as bars

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(step, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _one(**given: Path | None) -> Path:
    chosen = [path for path in given.values() if path is not None]
    if len(chosen) != 1:
        raise ConfigurationError(f"give one of {', '.join(f'--{name}' for name in given)}")
    return chosen[0]


def _check_output(source: Path, output: Path) -> None:
    if output.is_dir() or (source.is_dir() and output.exists()):
        raise ConfigurationError(f"{output} exists; give a file, or a new folder for a folder")


def _print_key(key: ee.Key, path: Path, as_json: bool) -> None:
    public: dict[str, Any] = {"key_id": key.id, "mode": key.mode, "suite": key.suite, "scheme": key.scheme.document()}
    public |= {"knowledge": key.knowledge, "protection": key.protection}
    if key.records is not None:
        public |= {"records_allowed": key.records, "records_used": key.counter(path).used}
    if as_json:
        print_json({"file": str(path), **public, "model_spec": key.spec.document()})
        return
    out = console()
    out.print(f"Key [bold]{key.id}[/] in {path}: {key.suite}, for {key.mode}, {key.spec.family}", soft_wrap=True)
    if key.records is not None:
        out.print(f"Records: {public['records_used']} of {key.records} used, counted in {path}{SUFFIX}", soft_wrap=True)
    out.print(f"Protection: {protection_line(key.protection)}", soft_wrap=True)
    if isinstance(key.scheme, Noise):
        sigma = key.scheme.sigma
        out.print(f"Noise: σ = {sigma:g} before the key; two rows one unit apart are μ = {1 / sigma:.3g} apart", soft_wrap=True)


def _print_written(key: ee.Key, output: Path, as_json: bool, **facts: Any) -> None:
    if as_json:
        print_json({"file": str(output), "key_id": key.id, "protection": key.protection, **facts})
    else:
        console().print(f"Wrote {output}  ({', '.join(f'{name} {value}' for name, value in facts.items())})", soft_wrap=True)
