"""Lists that services give out page by page."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.errors import MalformedMessageError

Item = TypeVar("Item")
PAGE_SIZE = 100


def fetch_pages(
    connection: Connection,
    path: str,
    read: Callable[[Any], Item],
    *,
    query: Mapping[str, str | int] | None = None,
    authorised: bool = True,
) -> Iterator[Item]:
    """All items behind `path`, fetched as they are consumed.

    Raises:
        MalformedMessageError: a service that gives out the same page again and again.
    """
    seen: set[str] = set()
    asked: dict[str, str | int] = {**(query or {}), "limit": PAGE_SIZE}
    while True:
        page = Fields(f"page of {path}", connection.get(path, query=asked, authorised=authorised))
        yield from page.items("items", read)
        cursor = page.optional_text("next_cursor")
        if cursor is None:
            return
        if cursor in seen:
            raise MalformedMessageError(f"{connection.service}: the pages of {path} run in a circle")
        seen.add(cursor)
        asked["cursor"] = cursor
