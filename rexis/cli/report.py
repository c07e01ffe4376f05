"""Tables that `rexis dataset` prints, for people and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from rexis.agent.dataset import LocalDataset
from rexis.agent.profile import Profile
from rexis.client.connection import printable
from rexis.client.marketplace import CatalogueEntry
from rexis.encoding import to_hex

if TYPE_CHECKING:
    from rich.console import Console


def findings(profile: Profile) -> list[dict[str, str]]:
    """The broken rules as JSON values."""
    return [asdict(finding) for finding in profile.findings]


def entry_json(entry: CatalogueEntry) -> dict[str, Any]:
    """A catalogue entry as a JSON value."""
    return {name: to_hex(value) if isinstance(value, bytes) else value for name, value in asdict(entry).items()}


def print_profile(out: "Console", dataset: LocalDataset) -> None:
    """What was found in the table, what would leave the premises, and what stays."""
    profile = dataset.profile
    columns = grid("column", "type", "missing", "distinct", "found")
    for column in profile.columns:
        broken = [finding for finding in profile.findings if finding.column == column.name]
        note = Text("; ").join(Text(finding.rule, style="bold red" if finding.severity == "refuse" else "yellow") for finding in broken)
        if not broken and column.name in profile.quasi_identifiers:
            note = Text("quasi-identifier", style="dim")
        columns.add_row(Text(column.name), column.type, str(column.missing or ""), str(column.distinct), note)
    out.print(f"\n[bold]On the premises[/]  {profile.rows} rows, {len(profile.columns)} columns, k = {profile.k}")
    out.print(columns)
    for finding in profile.findings:
        if not finding.column:
            out.print(Text.assemble(("warning  ", "yellow"), finding.rule, (f"; {finding.advice}", "dim")))
    terms = ", ".join(f"{term['termCode']} {term['name']}" for term in dataset.metadata["usageInfo"])
    leaving = grid("leaves the premises", "")
    leaving.add_row("title", Text(dataset.metadata["name"]))
    leaving.add_row("fields", Text(", ".join(f"{column.name} ({column.type})" for column in profile.columns)))
    leaving.add_row("size", dataset.metadata["size"])
    leaving.add_row("terms of use", Text(terms))
    leaving.add_row("content root", "32 bytes: a salted commitment, useless for guessing rows")
    leaving.add_row("account", "your address, and your signature")
    out.print(leaving)
    out.print("[dim]Stays: every row and value, the salts, exact counts, the profile above, the mock data.[/]\n")


def print_entries(out: "Console", entries: Sequence[CatalogueEntry]) -> None:
    """The catalogue as a table."""
    if not entries:
        out.print("The catalogue is empty.")
        return
    table = grid("token", "title", "state", "owner", "block")
    table.columns[3].no_wrap = True
    for entry in entries:
        table.add_row(str(entry.token_id), Text(entry.name or "(not available here)"), entry.state, entry.owner, str(entry.block_number))
    out.print(table)


def print_entry(out: "Console", entry: CatalogueEntry, *, title: str, chain_id: int, registry: str | None) -> None:
    """One entry with its on-chain record."""
    table = grid("", "")
    table.show_header = False
    for name, value in (
        ("token", f"{entry.token_id}  ({entry.state})"),
        ("owner", entry.owner),
        ("content root", to_hex(entry.content_root)),
        ("policy", to_hex(entry.policy_hash)),
        ("metadata", to_hex(entry.metadata_hash)),
        ("transaction", to_hex(entry.transaction_hash)),
        ("block", f"{entry.block_number} of chain {chain_id}"),
        ("registry", registry or "unknown"),
        ("documents", entry.uri),
    ):
        table.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    out.print(Text(title, style="bold green"))
    out.print(table)


def print_documents(out: "Console", metadata: dict[str, Any] | None, policy: dict[str, Any] | None) -> None:
    """Fields and terms of use; the documents come from elsewhere, so nothing in them is trusted to have its form."""
    fields = grid("field", "type")
    for record_set in _objects((metadata or {}).get("recordSet")):
        for field in _objects(record_set.get("field")):
            fields.add_row(_text(field.get("name")), _text(field.get("dataType")))
    if metadata is None:
        out.print("[yellow]The metadata are not available at this marketplace.[/]")
    else:
        out.print(Text.assemble(("\n", ""), _text(metadata.get("description")), ("\n", ""), (str(_text(metadata.get("size"))), "dim")))
        out.print(fields)
    if policy is not None:
        modifiers = policy.get("modifiers")
        conditions = ", ".join([str(policy.get("permission")), *(modifiers if isinstance(modifiers, dict) else {})])
        out.print(Text.assemble(("policy  ", "dim"), _text(conditions)))


def grid(*headers: str) -> Table:
    """An empty table without lines, whose long words are folded instead of cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> Text:
    return Text(printable(value) if isinstance(value, str) else "")
