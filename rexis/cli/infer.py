"""`rexis infer`."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rexis import ee
from rexis.agent.inference import Asked, Questioner, Step
from rexis.agent.inputs import read_rows
from rexis.agent.model_files import write_outputs
from rexis.cli.ee import protection_line, record_counter
from rexis.cli.home import service_url, write_private
from rexis.cli.identity import signed_in
from rexis.cli.output import console, print_json
from rexis.cli.trainer import trainer_session
from rexis.client.verifier import VerifierClient
from rexis.encoding import checksum_address, to_hex


@dataclass(frozen=True)
class InferOptions:
    """The options of `rexis infer`; see its help."""

    model: str
    inputs: Path
    key: Path
    output: Path
    receipts: Path
    issuer: str | None
    deposit: bool
    timeout_s: int


def infer(options: InferOptions, *, trainer: str | None, verifier: str | None, as_json: bool) -> None:
    """Ask, check, decrypt, and write predictions and receipts."""
    with ExitStack() as stack:
        session = stack.enter_context(trainer_session(trainer))
        key = ee.Key.load(options.key, session.secret)
        x = read_rows(options.inputs, key.spec)
        depository = None
        if options.deposit:
            url = service_url("verifier", verifier, session.profile)
            depository = VerifierClient(stack.enter_context(signed_in("verifier", url, session.signer, session.profile.chain_id)))
        questioner = Questioner(
            session.trainer,
            key,
            session.profile.chain_id,
            issuer=None if options.issuer is None else checksum_address(options.issuer),
            verifier=depository,
            timeout_s=options.timeout_s,
            counter=record_counter(key, options.key, x),
        )
        on_step = stack.enter_context(_steps(as_json))
        asked = questioner.ask(options.model, x, on_step=on_step)
    write_outputs(options.output, asked.outputs)
    # Salts open commitments: nobody else on this machine reads them.
    write_private(options.receipts, _receipts_file(asked, session.profile.chain_id))
    result = {
        "inference": asked.inference.id,
        "model": options.model,
        "rows": len(asked.receipts),
        "issuer": asked.receipts[0].issuer,
        "predictions": str(options.output),
        "receipts": str(options.receipts),
        "deposited": options.deposit,
        "protection": asked.protection,
    }
    if as_json:
        print_json(result)
        return
    out = console()
    out.print(f"{result['rows']} rows answered in [bold]{options.output}[/]; every receipt fits, in {options.receipts}", soft_wrap=True)
    out.print(f"Issuer {result['issuer']}. Protection: {protection_line(asked.protection)}", soft_wrap=True)


def _receipts_file(asked: Asked, chain_id: int) -> bytes:
    items = [{"row": row, "digest": to_hex(receipt.digest), "receipt": receipt.to_json()} for row, receipt in enumerate(asked.receipts)]
    document = {"version": 1, "chain_id": chain_id, "inference": asked.inference.id, "receipts": items}
    return (json.dumps(document, indent=1) + "\n").encode()


@contextmanager
def _steps(as_json: bool) -> Iterator[Step]:
    """Gives a function that shows how much of which step is done, as a bar on standard error."""
    if as_json:
        yield lambda _name, _done, _total: None
        return
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("encrypting", total=None)

        def step(name: str, done: int, total: int) -> None:
            progress.update(task, description=name, completed=done, total=total)

        yield step
