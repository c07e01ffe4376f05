"""The conditions of a grant: what a requester declared for one use of one data set, as one document whose digest stands on chain.

`AccessManager.grant` names them as `conditionsHash`. Both sides read the same document: the owner before he signs, his agent before
anything runs. The request's id is 128 random bits, so that nobody finds the document of a digest by guessing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Self

from rexis.encoding import canonical_json, checksum_address, from_hex, require_text, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.policy.duo import MAX_PARAMETER_LENGTH, MAX_PARAMETERS, Permission, Purpose

# A day less than AccessManager.MAX_TERM, because the clocks of chain and owner differ.
MAX_DAYS = 729
MAX_TEXT = 2_000
MAX_DATASET = 2**53 - 1

_REQUEST = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DATES = ("until", "publish_from")
_FLAGS = tuple(field.name for field in fields(Purpose) if field.type is bool)
_TEXTS = ("country", "user", "institution", "project", "research_type")
_FIELDS = {"version", "request", "dataset", "consumer", "policy_hash", "purpose", "days", "text"}


@dataclass(frozen=True)
class Conditions:
    """What the owner agrees to. Build it with `parse` where it comes from elsewhere.

    Attributes:
        request: id of the access request, 32 hexadecimal digits.
        dataset: token id.
        consumer: checksum address of who gets access.
        policy_hash: digest of the policy that the purpose was weighed against, 32 bytes.
        purpose: the declared use.
        days: how long the access is asked for, from the grant on.
        text: what the requester adds in words; may be empty.
    """

    request: str
    dataset: int
    consumer: str
    policy_hash: bytes
    purpose: Purpose
    days: int
    text: str

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Read a document.

        Raises:
            MalformedMessageError: missing, unknown or ill-formed fields, or not the form that `document` gives.
        """
        if not isinstance(document, Mapping) or set(document) != _FIELDS:
            raise MalformedMessageError(f"conditions have the fields {', '.join(sorted(_FIELDS))}")
        if type(document["version"]) is not int or document["version"] != 1:
            raise MalformedMessageError(f"expected conditions of version 1, got {document['version']!r:.40}")
        if not isinstance(document["request"], str) or not _REQUEST.fullmatch(document["request"]):
            raise MalformedMessageError("conditions: expected 32 hexadecimal digits as request")
        for name, limit in (("dataset", MAX_DATASET), ("days", MAX_DAYS)):
            if type(document[name]) is not int or not 1 <= document[name] <= limit:
                raise MalformedMessageError(f"conditions: expected a whole number of 1 to {limit} as {name}")
        check_text(document["text"])
        try:
            consumer, policy_hash = checksum_address(document["consumer"]), from_hex(document["policy_hash"], 32)
        except EncodingError as error:
            raise MalformedMessageError(f"conditions: {error}") from error
        purpose = parse_purpose(document["purpose"])
        # A policy may admit named users only (DUO:0000026): who gets the grant is weighed, not whom the purpose names.
        if purpose.user not in (None, consumer):
            raise MalformedMessageError(f"conditions: expected the consumer {consumer} as the purpose's user, got {purpose.user}")
        read = cls(document["request"], document["dataset"], consumer, policy_hash, purpose, document["days"], document["text"])
        if read.document() != document:
            raise MalformedMessageError("conditions: expected their normal form: every field of the purpose present, lists sorted")
        return read

    def document(self) -> dict[str, Any]:
        """The one document of these conditions: lists sorted, nothing left out."""
        return {
            "version": 1,
            "request": self.request,
            "dataset": self.dataset,
            "consumer": self.consumer,
            "policy_hash": to_hex(self.policy_hash),
            "purpose": purpose_document(self.purpose),
            "days": self.days,
            "text": self.text,
        }

    def digest(self) -> bytes:
        """`conditionsHash` on chain: SHA-256 of the canonical JSON of `document`."""
        return sha256(canonical_json(self.document()))


def parse_purpose(document: Any) -> Purpose:
    """Read a purpose: `use` and `until` are needed, everything else that is left out has the default of `Purpose`.

    Raises:
        MalformedMessageError: unknown, missing or ill-formed fields.
    """
    known = {field.name for field in fields(Purpose)}
    if not isinstance(document, Mapping) or not {"use", "until"} <= set(document) <= known:
        raise MalformedMessageError(
            f"a purpose has the fields use, until, and where they apply {', '.join(sorted(known - {'use', 'until'}))}"
        )
    given = dict(document)
    given["use"] = permission(given["use"])
    for name in _DATES:
        if given.get(name) is not None:
            given[name] = _date(name, given[name])
    for name in _FLAGS:
        if not isinstance(given.get(name, False), bool):
            raise MalformedMessageError(f"purpose: expected true or false as {name}")
    for name in _TEXTS:
        if given.get(name) is not None:
            _check_parameter(name, given[name])
    diseases = given.get("diseases", [])
    if not isinstance(diseases, list) or len(diseases) > MAX_PARAMETERS:
        raise MalformedMessageError(f"purpose: expected a list of at most {MAX_PARAMETERS} diseases")
    for disease in diseases:
        _check_parameter("diseases", disease)
    given["diseases"] = frozenset(diseases)
    if not isinstance(given["until"], date):
        raise MalformedMessageError("purpose: expected a date as until")
    return Purpose(**given)


def purpose_document(purpose: Purpose) -> dict[str, Any]:
    """The one document of a purpose; `parse_purpose` reads it."""
    document: dict[str, Any] = {field.name: getattr(purpose, field.name) for field in fields(Purpose)}
    document["use"], document["diseases"] = purpose.use.name, sorted(purpose.diseases)
    for name in _DATES:
        document[name] = document[name].isoformat() if document[name] is not None else None
    return document


def permission(name: object) -> Permission:
    """A purpose by its DUO shorthand, its number, or its whole code: `HMB`, `6`, `DUO:0000006`.

    Raises:
        MalformedMessageError: none of the permissions; modifiers are no purposes.
    """
    text = str(name).upper() if isinstance(name, str | int) and not isinstance(name, bool) else ""
    for each in Permission:
        if text in (each.name, str(each.number), f"DUO:{each.number:07d}"):
            return each
    expected = ", ".join(f"{each.name} ({each.number})" for each in Permission)
    raise MalformedMessageError(f"expected a purpose among {expected}, got {str(name)[:40]!r}")


def check_text(text: object) -> None:
    """Refuse words that are too many, or that people could not read.

    Raises:
        MalformedMessageError: no text, or longer than `MAX_TEXT` characters.
        EncodingError: control or invisible characters.
    """
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise MalformedMessageError(f"conditions: expected a text of at most {MAX_TEXT} characters")
    if text:
        require_text("conditions", text)


def _check_parameter(field: str, value: object) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PARAMETER_LENGTH:
        raise MalformedMessageError(f"purpose: expected 1 to {MAX_PARAMETER_LENGTH} characters as {field}")
    require_text(f"purpose: {field}", value)


def _date(field: str, value: object) -> date:
    try:
        read = date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        read = None
    if read is None or read.isoformat() != value:
        raise MalformedMessageError(f"purpose: expected a date such as 2027-01-31 as {field}, got {value!r:.40}")
    return read
