"""`rexis agent journal`, `held` and `decide`."""

from dataclasses import asdict
from typing import Any

from rich.text import Text

from rexis.agent.execution.ledger import DisclosureLedger, Job
from rexis.agent.journal import Journal
from rexis.cli.home import journal_path, require_profile
from rexis.cli.identity import open_signer
from rexis.cli.output import console, print_json
from rexis.cli.query import table_of
from rexis.cli.report import grid
from rexis.protocol.queries import TableResult


def show_journal(limit: int, subject: str | None, *, as_json: bool) -> None:
    """Print the newest entries, oldest first."""
    with Journal.open(journal_path(require_profile().address), None) as journal:
        entries = journal.entries(subject=subject, limit=limit)
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    table = grid("#", "when (UTC)", "about", "stage", "detail")
    for entry in entries:
        detail = "\n".join(f"{name} {value}" for name, value in entry.detail.items())
        table.add_row(str(entry.id), entry.at[:19].replace("T", " "), Text(entry.subject), entry.stage, Text(detail))
    console().print(table)


def show_held(*, as_json: bool) -> None:
    """Print the queries that wait for a person, each with what a release would send. Needs the passphrase: results are sealed."""
    profile = require_profile()
    _, secret = open_signer(profile)
    with Journal.open(journal_path(profile.address), secret) as journal:
        ledger = DisclosureLedger(journal)
        held = [(job, ledger.result(job)) for job in ledger.held()]
    if as_json:
        print_json([_held_json(job, result) for job, result in held])
        return
    out = console()
    if not held:
        out.print("Nothing waits for a person.")
    for job, result in held:
        asked = job.asked
        out.print(Text.assemble((f"{asked.id}  ", "bold"), f"data set {asked.dataset}, asked by {asked.consumer}"), soft_wrap=True)
        out.print(Text(job.rule or ""), soft_wrap=True)
        for condition in asked.query.filters:
            out.print(Text(f"only rows with {condition.document()}"), soft_wrap=True)
        out.print(Text(f"`rexis agent decide {asked.id} --release` would send, rounded to {result.rules.rounding}:"), soft_wrap=True)
        out.print(table_of(result))


def decide(query_id: str, *, release: bool, as_json: bool) -> None:
    """Write down a person's decision; the agent sends it."""
    profile = require_profile()
    _, secret = open_signer(profile)
    with Journal.open(journal_path(profile.address), secret) as journal:
        job = DisclosureLedger(journal).decide(query_id, release=release, by=profile.address)
    if as_json:
        print_json({"id": job.asked.id, "state": job.state, "sent": job.told == job.state})
        return
    console().print(
        f"Query {job.asked.id} is {job.state}; the agent says so at the marketplace, now or when it runs again.", soft_wrap=True
    )


def _held_json(job: Job, result: TableResult) -> dict[str, Any]:
    asked = job.asked
    return {
        "id": asked.id,
        "dataset": asked.dataset,
        "consumer": asked.consumer,
        "purpose": asked.purpose,
        "query": asked.query.document(),
        "rule": job.rule,
        "result": result.document(),
    }
