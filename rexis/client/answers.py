"""Reading what services answer: typed fields or `MalformedMessageError`, never a `KeyError` three calls later.

Unknown members are ignored, so that a newer service can add some.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from rexis.client.connection import printable
from rexis.encoding import checksum_address, from_hex
from rexis.errors import EncodingError, MalformedMessageError

Item = TypeVar("Item")
MAX_ITEMS = 10_000


class Fields:
    """The members of one JSON object of an answer; `what` names it in messages."""

    def __init__(self, what: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise MalformedMessageError(f"{what}: expected a JSON object, got {type(value).__name__}")
        self._what = what
        self._members: dict[str, Any] = value

    def text(self, name: str) -> str:
        """A string, cleaned of control characters: it may be shown."""
        return printable(self._typed(name, str))

    def optional_text(self, name: str) -> str | None:
        """A string or None; a missing member is None."""
        return None if self._members.get(name) is None else self.text(name)

    def integer(self, name: str) -> int:
        """A whole number, not negative."""
        value: int = self._typed(name, int)
        if value < 0:
            raise self._malformed(name, "a whole number from 0", value)
        return value

    def optional_integer(self, name: str) -> int | None:
        """A whole number or None; a missing member is None."""
        return None if self._members.get(name) is None else self.integer(name)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._members.get(name)
        if not isinstance(value, bool):
            raise self._malformed(name, "true or false", value)
        return value

    def digest(self, name: str) -> bytes:
        """32 bytes in hexadecimal."""
        try:
            return from_hex(self._typed(name, str), 32)
        except EncodingError as error:
            raise self._malformed(name, "0x and 64 hexadecimal digits", self._members[name]) from error

    def optional_digest(self, name: str) -> bytes | None:
        """32 bytes in hexadecimal or None; a missing member is None."""
        return None if self._members.get(name) is None else self.digest(name)

    def address(self, name: str) -> str:
        """An address, in its checksum form."""
        try:
            return checksum_address(self._typed(name, str))
        except EncodingError as error:
            raise self._malformed(name, "an address", self._members[name]) from error

    def instant(self, name: str) -> datetime:
        """A point in time with its zone (RFC 3339)."""
        try:
            value = datetime.fromisoformat(self._typed(name, str))
        except ValueError as error:
            raise self._malformed(name, "an RFC 3339 time", self._members[name]) from error
        if value.tzinfo is None:
            raise self._malformed(name, "a time with its zone", self._members[name])
        return value

    def optional_instant(self, name: str) -> datetime | None:
        """A point in time or None; a missing member is None."""
        return None if self._members.get(name) is None else self.instant(name)

    def object(self, name: str) -> dict[str, Any]:
        """A JSON object, as it is."""
        value: dict[str, Any] = self._typed(name, dict)
        return value

    def optional_object(self, name: str) -> dict[str, Any] | None:
        """A JSON object or None; a missing member is None."""
        return None if self._members.get(name) is None else self.object(name)

    def items(self, name: str, read: Callable[[Any], Item]) -> tuple[Item, ...]:
        """A list, each item read by `read`."""
        values = self._typed(name, list)
        if len(values) > MAX_ITEMS:
            raise self._malformed(name, f"at most {MAX_ITEMS} items", len(values))
        return tuple(read(value) for value in values)

    def optional_items(self, name: str, read: Callable[[Any], Item]) -> tuple[Item, ...]:
        """A list; none if the member is null or missing."""
        return () if self._members.get(name) is None else self.items(name, read)

    def _typed(self, name: str, kind: type[Any]) -> Any:
        value = self._members.get(name)
        # A boolean is an int to Python, and not to JSON.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._malformed(name, kind.__name__, value)
        return value

    def _malformed(self, name: str, expected: str, got: Any) -> MalformedMessageError:
        return MalformedMessageError(f"{self._what}: expected {expected} in {name!r}, got {printable(repr(got), 80)}")
