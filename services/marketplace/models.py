"""Tables of the marketplace.

`catalogue_entry`, `dataset_parent`, `bound_document`, `access_change`, `committee_member` and `compute_job` are projections of chain
events: nothing but the chain index writes them, so that they can be rebuilt from the events. Documents are joined by their digest.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Index, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.foundation.database import NAMING, Instant


class Base(DeclarativeBase):
    """Base of the marketplace's own tables."""

    metadata = MetaData(naming_convention=NAMING)


class Document(Base):
    """A document by the SHA-256 of its canonical JSON: Croissant metadata or a policy."""

    __tablename__ = "document"

    digest: Mapped[str] = mapped_column(String(66), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)  # a page of the catalogue needs no contents
    name: Mapped[str | None] = mapped_column(String(200))
    description: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(Instant)


class CatalogueEntry(Base):
    """A data set as the chain has it. Versions and the owner's epoch count as in the contract."""

    __tablename__ = "catalogue_entry"

    token_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    registrant: Mapped[str] = mapped_column(String(42))
    owner: Mapped[str] = mapped_column(String(42), index=True)
    owner_epoch: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    content_root: Mapped[str] = mapped_column(String(66), index=True)
    policy_hash: Mapped[str] = mapped_column(String(66))
    policy_version: Mapped[int] = mapped_column(BigInteger)
    metadata_hash: Mapped[str] = mapped_column(String(66))
    metadata_version: Mapped[int] = mapped_column(BigInteger)
    uri: Mapped[str] = mapped_column(Text)
    royalty_bps: Mapped[int]
    block_number: Mapped[int] = mapped_column(BigInteger)
    transaction_hash: Mapped[str] = mapped_column(String(66), index=True)


class DatasetParent(Base):
    """A data set that another one was made from."""

    __tablename__ = "dataset_parent"

    child: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    parent: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class BoundDocument(Base):
    """A digest that an event bound to a data set, also if a later one replaced it: grants refer to earlier policies."""

    __tablename__ = "bound_document"

    digest: Mapped[str] = mapped_column(String(66), primary_key=True)
    token_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class AccessChange(Base):
    """One change of a grant, numbered by the contract's grant epoch: a grant with its terms, or a revocation, which has none.

    A projection like the catalogue: what has become of the grant follows from its latest change and the data set's entry.
    """

    __tablename__ = "access_change"

    dataset: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    purpose: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    consumer: Mapped[str] = mapped_column(String(42), primary_key=True, index=True)
    grant_epoch: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    latest: Mapped[bool]
    decided_by: Mapped[str] = mapped_column(String(42))
    until: Mapped[int | None] = mapped_column(BigInteger)
    conditions_hash: Mapped[str | None] = mapped_column(String(66), index=True)
    policy_version: Mapped[int | None] = mapped_column(BigInteger)
    owner_epoch: Mapped[int | None] = mapped_column(BigInteger)
    block_number: Mapped[int] = mapped_column(BigInteger)
    transaction_hash: Mapped[str] = mapped_column(String(66))


class CommitteeMember(Base):
    """Somebody who decides about a data set's access beside its owner, as long as the owner's epoch lasts; a projection too."""

    __tablename__ = "committee_member"

    dataset: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    member: Mapped[str] = mapped_column(String(42), primary_key=True)
    owner_epoch: Mapped[int] = mapped_column(BigInteger)


class ComputeJob(Base):
    """A compute-to-data job in escrow, as the events of ComputeJobs tell it; a projection too. Amounts are decimal: they have 96 bits."""

    __tablename__ = "compute_job"
    __table_args__ = tuple(Index(None, party, "block_number", "id") for party in ("consumer", "provider", "arbiter", "dataset"))

    id: Mapped[str] = mapped_column(String(66), primary_key=True)
    dataset: Mapped[int] = mapped_column(BigInteger)
    consumer: Mapped[str] = mapped_column(String(42))
    provider: Mapped[str] = mapped_column(String(42))
    arbiter: Mapped[str] = mapped_column(String(42))
    purpose: Mapped[int]
    algorithm: Mapped[str] = mapped_column(String(66))
    document: Mapped[str] = mapped_column(String(66))
    token: Mapped[str] = mapped_column(String(42))
    price: Mapped[str] = mapped_column(String(29))
    run_seconds: Mapped[int] = mapped_column(BigInteger)
    review_seconds: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    deadline: Mapped[int | None] = mapped_column(BigInteger)
    result: Mapped[str | None] = mapped_column(String(66))
    logs: Mapped[str | None] = mapped_column(String(66))
    meter: Mapped[str | None] = mapped_column(String(66))
    dispute_reason: Mapped[str | None] = mapped_column(String(66))
    ended_by: Mapped[str | None] = mapped_column(String(16))
    paid: Mapped[str | None] = mapped_column(String(29))
    royalty: Mapped[str | None] = mapped_column(String(29))
    refunded: Mapped[str | None] = mapped_column(String(29))
    block_number: Mapped[int] = mapped_column(BigInteger)
    transaction_hash: Mapped[str] = mapped_column(String(66))


class AccessRequest(Base):
    """What a consumer asked for. Whether it was granted is on chain: the change that names `conditions_hash`."""

    __tablename__ = "access_request"
    __table_args__ = (Index(None, "consumer", "created_at", "id"), Index(None, "dataset", "created_at", "id"))

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    dataset: Mapped[int] = mapped_column(BigInteger)
    consumer: Mapped[str] = mapped_column(String(42))
    purpose: Mapped[int]
    conditions: Mapped[bytes] = mapped_column(LargeBinary)
    conditions_hash: Mapped[str] = mapped_column(String(66), unique=True)
    created_at: Mapped[datetime] = mapped_column(Instant)
    declined_at: Mapped[datetime | None] = mapped_column(Instant)
    declined_by: Mapped[str | None] = mapped_column(String(42))
    reason: Mapped[str | None] = mapped_column(Text)


class QueryJob(Base):
    """A compute-to-data query. A result is here only once it is released; why one is held never is."""

    __tablename__ = "query_job"
    __table_args__ = (
        Index(None, "consumer", "created_at", "id"),
        Index(None, "dataset", "created_at", "id"),
        Index(None, "state", "dataset"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    dataset: Mapped[int] = mapped_column(BigInteger)
    consumer: Mapped[str] = mapped_column(String(42))
    purpose: Mapped[int]
    document: Mapped[bytes] = mapped_column(LargeBinary)
    digest: Mapped[str] = mapped_column(String(66))
    conditions_hash: Mapped[str] = mapped_column(String(66))
    state: Mapped[str] = mapped_column(String(16))
    state_since: Mapped[datetime] = mapped_column(Instant)
    rule: Mapped[str | None] = mapped_column(Text)
    result: Mapped[bytes | None] = mapped_column(LargeBinary)
    result_digest: Mapped[str | None] = mapped_column(String(66))
    created_at: Mapped[datetime] = mapped_column(Instant)
