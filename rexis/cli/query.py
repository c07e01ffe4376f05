"""`rexis query submit`, `show` and `list`."""

import secrets
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rexis.cli.access import check_role
from rexis.cli.marketplace import marketplace_session
from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.client.queries import Query, QueryClient
from rexis.errors import MalformedMessageError
from rexis.policy.conditions import permission
from rexis.protocol.queries import TableQuery, TableResult

MAX_QUERY_BYTES = 64 << 10


def submit(datasets: Sequence[int], path: Path, purpose: str, *, timeout_s: float | None, marketplace: str | None, as_json: bool) -> None:
    """Hand in one query for each data set; with `timeout_s`, wait for the outcomes. Nothing is handed in if the query is malformed."""
    use, query = permission(purpose), read_query(path)
    with marketplace_session(marketplace) as session:
        client = QueryClient(session.connection)
        found = [client.submit(each, use, query.document(), idempotency_key=secrets.token_hex(16)) for each in datasets]
        if timeout_s is not None:
            found = [client.wait_for(each.id, timeout_s=timeout_s) for each in found]
    _print(found, as_json)


def show(query_id: str, *, marketplace: str | None, as_json: bool) -> None:
    """Print one query."""
    with marketplace_session(marketplace) as session:
        query = QueryClient(session.connection).query(query_id)
    if as_json:
        print_json(query.summary())
        return
    _print([query], as_json)
    if query.result is not None:
        console().print(table_of(TableResult.parse(query.result)))


def list_queries(role: str, state: str | None, limit: int, *, marketplace: str | None, as_json: bool) -> None:
    """Print the newest queries of the caller's, or those about the caller's data sets."""
    check_role(role)
    with marketplace_session(marketplace) as session:
        found = list(islice(QueryClient(session.connection).queries(role, state=state), limit))
    if as_json:
        print_json([each.summary() for each in found])
        return
    if not found:
        console().print("No queries.")
        return
    table = grid("query", "data set", "purpose", "state", "since (UTC)", "consumer")
    for each in found:
        since = f"{each.state_since:%Y-%m-%d %H:%M}"
        table.add_row(each.id, str(each.dataset), each.purpose.name, Text(each.state), since, each.consumer)
    console().print(table)


def read_query(path: Path) -> TableQuery:
    """Read a query file.

    Raises:
        MalformedMessageError: too large, neither YAML nor JSON, or not a query.
    """
    import yaml

    with path.open("rb") as file:
        content = file.read(MAX_QUERY_BYTES + 1)
    if len(content) > MAX_QUERY_BYTES:
        raise MalformedMessageError(f"{path.name}: expected a query of at most {MAX_QUERY_BYTES} bytes")
    try:
        document: Any = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{path.name}: expected YAML or JSON, got something else") from error
    return TableQuery.parse(document)


def table_of(result: TableResult) -> Table:
    """A released table, with one row for each cell of the first dimension."""
    first, *others = result.dimensions
    headers = others[0].labels if others else ("count",)
    corner = " \\ ".join(each.column for each in result.dimensions)
    table = grid(*(escape(header) for header in (corner, *headers)))
    for row, label in enumerate(first.labels):
        counts = result.cells[row * len(headers) : (row + 1) * len(headers)]
        table.add_row(Text(label), *("suppressed" if count is None else str(count) for count in counts))
    return table


def _print(queries: Sequence[Query], as_json: bool) -> None:
    if as_json:
        print_json([each.summary() for each in queries])
        return
    for each in queries:
        said = " · ".join(part for part in (each.state, each.note, each.rule) if part)
        console().print(Text.assemble((f"data set {each.dataset}  ", "bold"), f"{each.id}  ", said))
