"""The catalogue: data sets as the events of the DatasetRegistry tell them, joined with the documents that the marketplace holds.

A data set that its owner registered without the marketplace is in it like any other; only its documents may not be available.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, aliased

from rexis.encoding import checksum_address, to_hex
from services.foundation.chain_index import IndexedEvent
from services.foundation.problems import not_found
from services.marketplace.models import BoundDocument, CatalogueEntry, DatasetParent, Document
from services.marketplace.registrations import REGISTRY

STATES = ("active", "deprecated", "withdrawn")


@dataclass(frozen=True)
class Dataset:
    """A catalogue entry with its parents, and its documents where the marketplace holds them."""

    entry: CatalogueEntry
    parents: tuple[int, ...]
    metadata: Document | None
    policy: Document | None


class CatalogueProjection:
    """Writes `catalogue_entry`, `dataset_parent` and `bound_document` from events, and from nothing else."""

    contract = REGISTRY
    tables = (BoundDocument, DatasetParent, CatalogueEntry)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        given: Mapping[str, Any] = event.arguments
        match event.name:
            case "DatasetRegistered":
                session.add(
                    CatalogueEntry(
                        token_id=given["id"],
                        registrant=checksum_address(given["owner"]),
                        owner=checksum_address(given["owner"]),
                        owner_epoch=0,
                        state=STATES[0],
                        content_root=to_hex(given["contentRoot"]),
                        policy_hash=to_hex(given["policyHash"]),
                        policy_version=1,
                        metadata_hash=to_hex(given["metadataHash"]),
                        metadata_version=1,
                        uri=given["uri"],
                        royalty_bps=0,
                        block_number=event.block_number,
                        transaction_hash=event.transaction_hash,
                    )
                )
                _bind(session, given["id"], given["policyHash"], given["metadataHash"])
            case "DatasetDerived":
                session.add(DatasetParent(child=given["id"], parent=given["parent"]))
            case "RoyaltySet":
                _entry(session, given).royalty_bps = given["royaltyBps"]
            case "PolicyChanged":
                entry = _entry(session, given)
                entry.policy_hash, entry.policy_version, entry.uri = to_hex(given["policyHash"]), given["version"], given["uri"]
                _bind(session, entry.token_id, given["policyHash"])
            case "MetadataChanged":
                entry = _entry(session, given)
                entry.metadata_hash, entry.metadata_version, entry.uri = to_hex(given["metadataHash"]), given["version"], given["uri"]
                _bind(session, entry.token_id, given["metadataHash"])
            case "StateChanged":
                _entry(session, given).state = STATES[given["state"]]
            case "OwnerEpochChanged":
                entry = _entry(session, given)
                entry.owner, entry.owner_epoch = checksum_address(given["owner"]), given["ownerEpoch"]

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        for table in self.tables:
            session.execute(delete(table))


def page(session: Session, choice: Mapping[str, str | None], *, before: int | None, limit: int) -> Sequence[Dataset]:
    """Data sets, newest first.

    Args:
        choice: value that a column of `catalogue_entry` must have, None for any.
        before: only token ids below this one.
    """
    query = _with_documents().filter_by(**{column: value for column, value in choice.items() if value is not None})
    if before is not None:
        query = query.where(CatalogueEntry.token_id < before)
    return _read(session, query.order_by(CatalogueEntry.token_id.desc()).limit(limit))


def registered_by(session: Session, transaction_hash: str | None) -> int | None:
    """Token id of the data set that a transaction registered, once the chain index has seen it."""
    if transaction_hash is None:
        return None
    return session.scalar(select(CatalogueEntry.token_id).where(CatalogueEntry.transaction_hash == transaction_hash))


def dataset(session: Session, token_id: int) -> Dataset:
    """One data set.

    Raises:
        Problem: 404.
    """
    found = _read(session, _with_documents().where(CatalogueEntry.token_id == token_id))
    if not found:
        raise not_found("data set", token_id)
    return found[0]


def _entry(session: Session, given: Mapping[str, Any]) -> CatalogueEntry:
    return session.get_one(CatalogueEntry, given["id"])


def _bind(session: Session, token_id: int, *digests: bytes) -> None:
    for digest in digests:
        session.merge(BoundDocument(digest=to_hex(digest), token_id=token_id))
    session.flush()


def _with_documents() -> Any:
    metadata, policy = aliased(Document), aliased(Document)
    return (
        select(CatalogueEntry, metadata, policy)
        .outerjoin(metadata, metadata.digest == CatalogueEntry.metadata_hash)
        .outerjoin(policy, policy.digest == CatalogueEntry.policy_hash)
    )


def _read(session: Session, query: Any) -> list[Dataset]:
    rows = session.execute(query).all()
    parents: dict[int, list[int]] = {entry.token_id: [] for entry, _, _ in rows}
    related = select(DatasetParent).where(DatasetParent.child.in_(parents)).order_by(DatasetParent.child, DatasetParent.parent)
    for relation in session.scalars(related):
        parents[relation.child].append(relation.parent)
    return [Dataset(entry, tuple(parents[entry.token_id]), metadata, policy) for entry, metadata, policy in rows]
