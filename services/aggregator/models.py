"""Tables of the aggregator."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from services.foundation.database import NAMING, Instant


class Base(DeclarativeBase):
    """Base of the aggregator's own tables."""

    metadata = MetaData(naming_convention=NAMING)


class Federation(Base):
    """A consortium and the rules of its rounds; immutable once founded."""

    __tablename__ = "federation"
    __table_args__ = (
        CheckConstraint("min_survivors >= threshold", name="survivors_reach_threshold"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    founder: Mapped[str] = mapped_column(String(42), index=True)
    name: Mapped[str] = mapped_column(String(120))
    collusion_bound: Mapped[int]
    threshold: Mapped[int]
    min_survivors: Mapped[int]
    strategy: Mapped[str] = mapped_column(String(32))
    model_spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    spec_digest: Mapped[str] = mapped_column(String(66))
    created_at: Mapped[datetime] = mapped_column(Instant)

    members: Mapped[list["Member"]] = relationship(order_by="Member.position", lazy="selectin", cascade="all, delete-orphan")


class Member(Base):
    """An institution of a federation's roster. `position` counts from 1 and is its x coordinate in secret sharing."""

    __tablename__ = "federation_member"
    __table_args__ = (UniqueConstraint("federation_id", "address"),)

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    address: Mapped[str] = mapped_column(String(42), index=True)
