"""Tables of the marketplace.

`catalogue_entry`, `dataset_parent` and `bound_document` are projections of chain events: nothing but the chain index writes them, so
that they can be rebuilt from the events. Documents are joined by their digest.
"""

from datetime import datetime

from sqlalchemy import BigInteger, LargeBinary, MetaData, String, Text
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


class Relay(Base):
    """A signed call that the marketplace took on to send. How far it got is in the outbox row with the key `intent_key`."""

    __tablename__ = "relay"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    sender: Mapped[str] = mapped_column(String(42), index=True)
    operation: Mapped[str] = mapped_column(String(32))
    intent_key: Mapped[str] = mapped_column(String(200), unique=True)
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
