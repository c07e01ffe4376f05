"""`rexis agent journal`."""

from dataclasses import asdict

from rich.text import Text

from rexis.agent.journal import Journal
from rexis.cli.home import journal_path, require_profile
from rexis.cli.output import console, print_json
from rexis.cli.report import grid


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
