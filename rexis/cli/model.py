"""`rexis model publish`, `list`, `show`, `share` and `revoke`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.text import Text

from rexis import ee
from rexis.agent.keyed_models import PublicText, keyed_as, publish_model, revoke_model
from rexis.agent.model_files import read_spec
from rexis.chain.model_registry import REASONS
from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.cli.trainer import trainer_session
from rexis.client.relayed_calls import RelayClient
from rexis.client.trainer import Model
from rexis.encoding import checksum_address, to_hex
from rexis.errors import ChainError, ConfigurationError, KeyFileError
from rexis.protocol.report_summary import ReportSummary


@dataclass(frozen=True)
class PublishOptions:
    """The options of `rexis model publish`; see its help."""

    file: Path
    key: Path
    name: str
    description: str
    spec: Path | None
    users: tuple[str, ...]
    uri: str | None
    report: Path | None
    wait: bool
    timeout_s: int


def publish(options: PublishOptions, *, trainer: str | None, as_json: bool) -> None:
    """Publish a keyed model, and wait until the chain names it."""
    users = [checksum_address(user) for user in options.users]
    with trainer_session(trainer) as session:
        key = ee.Key.load(options.key, session.secret)
        if options.spec is not None and (spec := read_spec(options.spec)) != key.spec:
            raise KeyFileError(f"the key is for {key.spec.document()}, {options.spec.name} is {spec.document()}")
        report = None if options.report is None else _summary(options.report, key)
        model = publish_model(
            session.trainer,
            session.signer,
            session.deployment,
            options.file,
            key.spec,
            keyed_as(key),
            PublicText(options.name, options.description),
            users=users,
            uri=options.uri,
            report=report,
        )
        if options.wait:
            with console(stderr=True).status("the trainer checks the file and puts it on chain"):
                model = session.trainer.wait_for_model(model.id, timeout_s=options.timeout_s)
    if model.state in ("refused", "failed"):
        raise ChainError(f"model {model.id} is {model.state}: {model.reason or 'the trainer gives no reason'}")
    _print(model, f"Model {model.id}", as_json)


def _summary(path: Path, key: ee.Key) -> ReportSummary:
    # The attacks take seconds to import, and most commands on models have no use for them.
    from rexis.cli.privacy import read_report

    return read_report(path, key).summary()


def list_models(limit: int, *, trainer: str | None, as_json: bool) -> None:
    """Print the models that the account may use."""
    with trainer_session(trainer) as session:
        models = list(islice(session.trainer.models(), limit))
    if as_json:
        print_json([model_json(model) for model in models])
        return
    if not models:
        console().print("No models here.")
        return
    table = grid("model", "name", "state", "protection", "privacy", "owner")
    for model in models:
        grade = "no report" if model.report is None else f"grade {model.report.grade}"
        table.add_row(model.id, Text(model.name), Text(model.state), model.keyed.protection, grade, model.owner)
    console().print(table)


def show(model_id: str, *, trainer: str | None, as_json: bool) -> None:
    """Print one model."""
    with trainer_session(trainer) as session:
        model = session.trainer.model(model_id)
    _print(model, model.name, as_json)


def share(model_id: str, users: Sequence[str], *, trainer: str | None, as_json: bool) -> None:
    """Replace the accounts that may use a model."""
    named = [checksum_address(user) for user in users]
    with trainer_session(trainer) as session:
        model = session.trainer.set_users(model_id, named)
    _print(model, "Shared" if model.users else "Yours alone", as_json)


def revoke(model_id: str, reason: str, *, ask: bool, timeout_s: int, trainer: str | None, as_json: bool) -> None:
    """Revoke a model on chain."""
    if reason not in REASONS[1:]:
        raise ConfigurationError(f"expected a reason among {', '.join(REASONS[1:])}, got {reason[:40]!r}")
    with trainer_session(trainer) as session:
        model = session.trainer.model(model_id)
        if model.owner != session.signer.address:
            raise ConfigurationError(f"model {model_id} is of {model.owner}; only its owner takes it back")
        if ask:
            import typer

            typer.confirm(f"Take {model.name!r} back for good?", abort=True, err=True)
        relay = revoke_model(session.trainer, session.signer, session.deployment, model, reason)
        relay = RelayClient(session.trainer.connection).wait_until_mined(relay.id, timeout_s=timeout_s)
    transaction = None if relay.transaction_hash is None else to_hex(relay.transaction_hash)
    if as_json:
        print_json({"id": model_id, "record": to_hex(model.record), "reason": reason, "transaction_hash": transaction})
    else:
        console().print(f"Revoked ({reason}) in transaction {transaction}.", soft_wrap=True)


def model_json(model: Model) -> dict[str, Any]:
    """A model as a JSON value."""
    plain = {name: to_hex(value) if isinstance(value, bytes) else value for name, value in vars(model).items()}
    keyed = {**asdict(model.keyed), "protection": model.keyed.protection}
    report = None if model.report is None else model.report.document()
    return {**plain, "spec": model.spec.document(), "keyed": keyed, "report": report, "users": list(model.users)}


def _print(model: Model, title: str, as_json: bool) -> None:
    if as_json:
        print_json(model_json(model))
        return
    from rexis.cli.ee import protection_line

    table = grid("", "")
    table.show_header = False
    reason = f": {model.reason}" if model.reason else ""
    for name, value in (
        ("name", model.name),
        ("id", model.id),
        ("owner", model.owner),
        ("state", model.state + reason),
        ("record", to_hex(model.record)),
        ("model", f"{model.spec.family} {'-'.join(map(str, model.spec.tabular.widths))}"),
        ("keyed", f"{model.keyed.suite}, for {model.keyed.mode}, key {model.keyed.key_id}; plain weights: {model.keyed.knowledge}"),
        ("privacy", "no report: nothing is known of it" if model.report is None else f"{model.report.line()}, by its owner's word"),
        ("users", ", ".join(model.users) or "the owner only"),
        ("transaction", "none yet" if model.transaction_hash is None else to_hex(model.transaction_hash)),
        ("description", model.description),
    ):
        table.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    out = console()
    out.print(Text(title, style="bold green"))
    out.print(table)
    out.print(f"Protection: {protection_line(model.keyed.protection)}", soft_wrap=True)
