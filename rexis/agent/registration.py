"""The registrations that the journal keeps: one row a table, its stage, and everything that must not be made twice.

    prepared → signed → submitted → registered        or failed, with the reason

Each stage is on disk before its effect leaves the premises: salts and content root before anything is signed, the signed call before it is
sent (`submission`). A rerun finds the table by its fingerprint and goes on from there with the same salts, the same root and the
same call.
"""

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from rexis.agent.journal import Journal
from rexis.agent.metadata import document_hash
from rexis.agent.table import LEAF_KIND, Table, content_tree, fingerprint, new_salts, table_digests
from rexis.encoding import canonical_json, to_hex
from rexis.errors import UnexpectedMessageError


@dataclass(frozen=True)
class Target:
    """Where a registration goes, by the deployment record of *this* side: chain id and checksum addresses."""

    chain_id: int
    forwarder: str
    registry: str


@dataclass(frozen=True)
class Registration:
    """One row of the journal's registrations.

    Attributes:
        owner: checksum address of the registrant.
        content_root: record of the salted tree over the rows, 32 bytes.
        stage: see the module's docstring.
        metadata, policy: the public documents.
        request: the signed call, its signature and idempotency key, from stage signed on.
        relay: the marketplace's id of it, from stage submitted on.
        token_id: of the token, from stage registered on, or as soon as the contract says that it exists.
    """

    id: int
    owner: str
    target: Target
    content_root: bytes
    stage: str
    metadata: dict[str, Any]
    policy: dict[str, Any]
    request: dict[str, Any] | None
    relay: str | None
    token_id: int | None

    @property
    def subject(self) -> str:
        """What the journal's entries call it."""
        return f"dataset {to_hex(self.content_root)}"


def prepare(
    journal: Journal, table: Table, metadata: dict[str, Any], policy: dict[str, Any], *, owner: str, target: Target
) -> Registration:
    """The registration of a table: the one that the journal knows, or a new one with fresh salts.

    Raises:
        UnexpectedMessageError: the table was signed for or registered with other documents before.
        EncodingError: documents without a canonical form.
    """
    digests = table_digests(table)
    mark = fingerprint(table.columns, digests, journal.sealer.fingerprint_key)
    with journal.transaction() as connection:
        known = _find(connection, owner, target, mark)
    if known is None:
        return _prepare_new(journal, digests, mark, metadata, policy, owner, target)
    if _undated(known.metadata) == _undated(metadata) and known.policy == policy:
        return known
    if known.stage not in ("prepared", "failed"):
        raise UnexpectedMessageError(
            f"this table is {known.stage} already as {known.subject} with {_difference(known, metadata, policy)}; "
            "use what it was registered with, `rexis agent journal` shows it"
        )
    documents = {"metadata": canonical_json(metadata), "policy": canonical_json(policy)}
    return advance(journal, known, "prepared", _hashes(metadata, policy), **documents, request=None, relay=None, token_id=None)


def _prepare_new(
    journal: Journal,
    digests: list[bytes],
    mark: bytes,
    metadata: dict[str, Any],
    policy: dict[str, Any],
    owner: str,
    target: Target,
) -> Registration:
    salts = new_salts(len(digests))
    record = content_tree(digests, salts).record
    with journal.transaction() as connection:
        first = _find(connection, owner, target, mark)
        if first is not None:  # another process prepared the same table since
            return first
        journal.keep_salts(connection, record, LEAF_KIND, salts, len(digests))
        connection.execute(
            "INSERT INTO registration (owner, chain_id, registry, forwarder, fingerprint, content_root, stage, metadata, policy)"
            " VALUES (?, ?, ?, ?, ?, ?, 'prepared', ?, ?)",
            (owner, target.chain_id, target.registry, target.forwarder, mark, record, canonical_json(metadata), canonical_json(policy)),
        )
        row = connection.execute("SELECT * FROM registration WHERE content_root = ?", (record,)).fetchone()
        registration = _registration(row)
        journal.append(connection, registration.subject, "prepared", owner=owner, chain_id=target.chain_id, **_hashes(metadata, policy))
    return registration


def advance(
    journal: Journal, registration: Registration, stage: str, detail: dict[str, Any], **columns: bytes | str | int | None
) -> Registration:
    """Write a stage with its columns and its entry; if another process was faster, its row is the one that counts."""
    assignments = ", ".join(f"{name} = ?" for name in ("stage", *columns))
    with journal.transaction() as connection:
        current = connection.execute("SELECT * FROM registration WHERE id = ?", (registration.id,)).fetchone()
        if _registration(current) != registration:
            return _registration(current)
        connection.execute(f"UPDATE registration SET {assignments} WHERE id = ?", (stage, *columns.values(), registration.id))
        journal.append(connection, registration.subject, stage, **detail)
        return _registration(connection.execute("SELECT * FROM registration WHERE id = ?", (registration.id,)).fetchone())


def _find(connection: sqlite3.Connection, owner: str, target: Target, mark: bytes) -> Registration | None:
    row = connection.execute(
        "SELECT * FROM registration WHERE owner = ? AND chain_id = ? AND registry = ? AND fingerprint = ?",
        (owner, target.chain_id, target.registry, mark),
    ).fetchone()
    return _registration(row) if row is not None else None


def _registration(row: sqlite3.Row) -> Registration:
    return Registration(
        id=row["id"],
        owner=row["owner"],
        target=Target(row["chain_id"], row["forwarder"], row["registry"]),
        content_root=row["content_root"],
        stage=row["stage"],
        metadata=json.loads(row["metadata"]),
        policy=json.loads(row["policy"]),
        request=json.loads(row["request"]) if row["request"] is not None else None,
        relay=row["relay"],
        token_id=row["token_id"],
    )


def _hashes(metadata: dict[str, Any], policy: dict[str, Any]) -> dict[str, str]:
    return {"metadata_hash": to_hex(document_hash(metadata)), "policy_hash": to_hex(document_hash(policy))}


def _undated(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name != "datePublished"}


def _difference(known: Registration, metadata: dict[str, Any], policy: dict[str, Any]) -> str:
    changed = sorted(name for name in _undated({**known.metadata, **metadata}) if known.metadata.get(name) != metadata.get(name))
    parts = ["another policy"] if known.policy != policy else []
    return " and ".join([*parts, *([f"another {', '.join(changed)}"] if changed else [])])
