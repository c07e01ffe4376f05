"""Tables of the verifier."""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, LargeBinary, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.foundation.database import NAMING, Instant


class Base(DeclarativeBase):
    """Base of the verifier's own tables."""

    metadata = MetaData(naming_convention=NAMING)


class StoredReceipt(Base):
    """An inference receipt.

    The digest does not name the issuer, so the key does: otherwise anyone could take a digest by signing a copy first.
    """

    __tablename__ = "receipt"

    digest: Mapped[str] = mapped_column(String(66), primary_key=True)
    issuer: Mapped[str] = mapped_column(String(42), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[datetime] = mapped_column(Instant)


class Deposit(Base):
    """Who handed a receipt in: besides the issuer, the only ones who may read it, because it opens a salted commitment."""

    __tablename__ = "receipt_deposit"
    __table_args__ = (ForeignKeyConstraint(["digest", "issuer"], ["receipt.digest", "receipt.issuer"]),)

    digest: Mapped[str] = mapped_column(String(66), primary_key=True)
    issuer: Mapped[str] = mapped_column(String(42), primary_key=True)
    depositor: Mapped[str] = mapped_column(String(42), primary_key=True)
    deposited_at: Mapped[datetime] = mapped_column(Instant)
