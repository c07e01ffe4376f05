"""Typed and bounded members of JSON documents that come from others: each function reads one, or says what it expected."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from rexis.encoding import checksum_address, from_hex, require_text
from rexis.errors import EncodingError, MalformedMessageError


def members_of(what: str, value: Any, names: str, *, optional: str = "") -> Mapping[str, Any]:
    """The members of an object that has exactly these, named in one text with blanks between; of `optional` it may have any.

    Raises:
        MalformedMessageError: it has others, or is none. So do all functions here.
    """
    required, known = set(names.split()), set(names.split()) | set(optional.split())
    if not isinstance(value, Mapping) or not required <= set(value) <= known:
        also = f", and of {', '.join(sorted(optional.split()))} those that are used" if optional else ""
        raise MalformedMessageError(f"{what}: expected an object with exactly the fields {', '.join(sorted(required))}{also}")
    return value


def integer(name: str, value: Any, least: int, most: int) -> int:
    """A whole number within bounds; a boolean is none."""
    if type(value) is not int or not least <= value <= most:
        raise MalformedMessageError(f"{name}: expected an integer of {least} to {most}, got {str(value)[:40]}")
    return value


def decimal(name: str, value: Any, *, least: Decimal) -> Decimal:
    """A decimal string of at least `least`."""
    try:
        number = Decimal(value) if isinstance(value, str) and len(value) <= 40 else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number < least or number > Decimal("1e12"):
        raise MalformedMessageError(f"{name}: expected a decimal string of {least} to 1e12, got {str(value)[:40]!r}")
    return number


def positive_decimal(name: str, value: Any) -> Decimal:
    """A decimal string above 0, also as a float."""
    number = decimal(name, value, least=Decimal(0))
    if float(number) <= 0:
        raise MalformedMessageError(f"{name}: expected a number above 0, got {str(value)[:40]!r}")
    return number


def line(name: str, value: Any) -> str:
    """One line of text for people."""
    if not isinstance(value, str) or not 0 < len(value) <= 120 or "\n" in value:
        raise MalformedMessageError(f"{name}: expected one line of 1 to 120 characters")
    try:
        require_text(name, value)
    except EncodingError as error:
        raise MalformedMessageError(str(error)) from error
    return value


def address(name: str, value: Any) -> str:
    """A checksum address other than zero."""
    try:
        checked = checksum_address(value)
    except (EncodingError, TypeError, AttributeError) as error:
        raise MalformedMessageError(f"{name}: {error}") from error
    if checked != value or int(checked, 16) == 0:
        raise MalformedMessageError(f"{name}: expected a checksum address other than zero, got {str(value)[:50]!r}")
    return checked


def ascending_addresses(name: str, values: Any, least: int, most: int) -> tuple[str, ...]:
    """A list of addresses in ascending order of their bytes, none twice."""
    if not isinstance(values, list) or not least <= len(values) <= most:
        raise MalformedMessageError(f"{name}: expected a list of {least} to {most} addresses")
    addresses = [address(name, value) for value in values]
    keys = [each.lower() for each in addresses]
    if keys != sorted(set(keys)):
        raise MalformedMessageError(f"{name}: expected addresses in ascending order, none twice")
    return tuple(addresses)


def bytes32(name: str, value: Any) -> bytes:
    """32 bytes in hexadecimal."""
    try:
        return from_hex(value, 32)
    except (EncodingError, TypeError, AttributeError) as error:
        raise MalformedMessageError(f"{name}: {error}") from error
