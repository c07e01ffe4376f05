"""`rexis dataset register`, `list` and `show`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from random import SystemRandom
from typing import Any

from rexis.agent.dataset import LocalDataset, open_dataset, read_policy
from rexis.agent.journal import Journal
from rexis.agent.metadata import Description
from rexis.agent.registration import Registration, Target, prepare
from rexis.agent.submission import SIGNED_AGAIN, settle, submit
from rexis.cli import report
from rexis.cli.home import home, journal_path, read_profile, require_profile, service_url, write_private
from rexis.cli.identity import check_chain, connect, open_signer, signed_in, trusted_deployment
from rexis.cli.output import console, print_json
from rexis.client.marketplace import MarketplaceClient
from rexis.encoding import to_hex
from rexis.errors import ServiceError

NOT_FOUND = 404


@dataclass(frozen=True)
class RegisterOptions:
    """The options of `rexis dataset register`; see its help."""

    table: Path
    policy: Path
    title: str
    description: str = ""
    creator: str | None = None
    license: str | None = None
    citation: str | None = None
    delimiter: str = ","
    exclude: tuple[str, ...] = ()
    quasi_identifiers: tuple[str, ...] | None = None
    minimum_k: int = 10
    marketplace: str | None = None
    dry_run: bool = False
    ask: bool = True
    wait: bool = True
    timeout_s: int = 120


def register(options: RegisterOptions, *, as_json: bool) -> None:
    """Register a table, or go on with a registration that was interrupted."""
    description = Description(
        title=options.title,
        text=options.description,
        published=datetime.now(UTC).date(),
        creator=options.creator,
        license=options.license,
        citation=options.citation,
    )
    dataset = open_dataset(
        options.table,
        read_policy(options.policy),
        description,
        delimiter=options.delimiter,
        exclude=options.exclude,
        quasi_identifiers=options.quasi_identifiers,
        minimum_k=options.minimum_k,
    )
    if not as_json:
        report.print_profile(console(stderr=True), dataset)
    dataset.require_registrable()
    if options.dry_run:
        if as_json:
            print_json({"dry_run": True, "would_leave": _documents(dataset), "findings": report.findings(dataset.profile)})
        return
    if options.ask:
        import typer

        if not typer.confirm("Send this?", default=True, err=True):
            raise typer.Abort
    profile = require_profile()
    signer, secret = open_signer(profile)
    deployment = trusted_deployment(profile.chain_id)
    url = service_url("marketplace", options.marketplace, profile)
    contracts = deployment.contracts
    target = Target(profile.chain_id, contracts["Forwarder"].address, contracts["DatasetRegistry"].address)
    with (
        Journal.open(journal_path(profile.address), secret) as journal,
        signed_in("marketplace", url, signer, profile.chain_id) as connection,
    ):
        marketplace = MarketplaceClient(connection)
        check_chain(marketplace.chain(), deployment)
        with _steps(as_json, options.wait) as step:
            step("committed to the rows, salts in the journal")
            documents = _documents(dataset)
            row = prepare(journal, dataset.table, **documents, owner=signer.address, target=target)
            _keep_public_files(row, dataset)
            known = row.stage == "registered"
            step("signed and handed over")
            row = submit(journal, row, marketplace, signer)
            if not options.wait:
                _print_submitted(row, as_json)
                return
            states: list[str] = []

            def watch(state: str) -> None:
                states.append(state)
                step(state)

            entry = settle(journal, row, marketplace, signer, timeout_s=options.timeout_s, on_state=watch)
    new = not known or SIGNED_AGAIN in states
    if as_json:
        print_json({**report.entry_json(entry), "chain_id": target.chain_id, "registry": target.registry, "new": new})
        return
    title = "Registered" if new else "Registered already, nothing was sent"
    report.print_entry(console(), entry, title=title, chain_id=target.chain_id, registry=target.registry)


def list_entries(owner: str | None, limit: int, *, marketplace: str | None, as_json: bool) -> None:
    """Print the newest entries of the catalogue."""
    with _public(marketplace) as client:
        entries = list(islice(client.datasets(owner=owner), limit))
    if as_json:
        print_json([report.entry_json(entry) for entry in entries])
    else:
        report.print_entries(console(), entries)


def show(token_id: int, *, marketplace: str | None, as_json: bool) -> None:
    """Print one entry with its documents, each checked against the hash on chain."""
    with _public(marketplace) as client:
        entry = client.dataset(token_id)
        metadata, policy = _document(client, entry.metadata_hash), _document(client, entry.policy_hash)
        chain = client.chain()
    if as_json:
        print_json({**report.entry_json(entry), "chain_id": chain.chain_id, "metadata": metadata, "policy": policy})
        return
    out = console()
    report.print_entry(
        out, entry, title=entry.name or f"Data set {token_id}", chain_id=chain.chain_id, registry=chain.contracts.get("DatasetRegistry")
    )
    report.print_documents(out, metadata, policy)


@contextmanager
def _public(marketplace: str | None) -> Iterator[MarketplaceClient]:
    with connect("marketplace", service_url("marketplace", marketplace, read_profile())) as connection:
        yield MarketplaceClient(connection)


@contextmanager
def _steps(as_json: bool, wait: bool) -> Iterator[Any]:
    """Gives a function that shows the step which begins; on a terminal as a bar with the time that passed."""
    if as_json:
        yield lambda _step: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    # commit, hand over; then queued, signed, submitted, mined, confirmed, final, indexed, of which fast ones may not be seen.
    total = 9 if wait else 2
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        places = {"queued": 3, "signed": 4, "submitted": 5, "mined": 6, "confirmed": 7, "final": 8, "indexed": 9}

        def step(name: str) -> None:
            done = places.get(name)
            label = f"on its way to the chain: {name}" if done else name
            progress.update(task, description=label, completed=done if done else progress.tasks[0].completed + 1)

        yield step


def _documents(dataset: LocalDataset) -> dict[str, dict[str, Any]]:
    return {"metadata": dataset.metadata, "policy": dataset.policy.document()}


def _keep_public_files(row: Registration, dataset: LocalDataset) -> None:
    folder = home() / "datasets" / to_hex(row.content_root)[2:18]
    write = partial(json.dumps, indent=2, ensure_ascii=False)
    write_private(folder / "metadata.json", write(row.metadata).encode())
    write_private(folder / "policy.json", write(row.policy).encode())
    if not (folder / "mock.csv").exists():
        write_private(folder / "mock.csv", dataset.mock_csv(SystemRandom()).encode())


def _print_submitted(row: Registration, as_json: bool) -> None:
    if as_json:
        print_json({"stage": row.stage, "content_root": to_hex(row.content_root), "relay": row.relay, "token_id": row.token_id})
    else:
        console().print(
            f"Handed over: content root {to_hex(row.content_root)}. Run the same command again to see its token.", soft_wrap=True
        )


def _document(client: MarketplaceClient, digest: bytes) -> dict[str, Any] | None:
    """A document, or None if this marketplace does not hold it."""
    try:
        return client.document(digest)
    except ServiceError as error:
        if error.status == NOT_FOUND:
            return None
        raise
