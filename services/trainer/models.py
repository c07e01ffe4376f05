"""Tables of the trainer."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.foundation.database import NAMING, Instant
from services.foundation.outbox.leases import LeasedJob


class Base(DeclarativeBase):
    """Base of the trainer's own tables."""

    metadata = MetaData(naming_convention=NAMING)


class Batch(LeasedJob, Base):
    """An uploaded encrypted batch, and the job of checking it.

    `verdict` is what the check found: None until the job is done, then "accepted" with the record, or "refused" with a reason.
    A job that failed has no verdict: the trainer was at fault, not the batch.
    """

    __tablename__ = "batch"
    __table_args__ = (Index(None, "owner", "created_at", "id"),)

    owner: Mapped[str] = mapped_column(String(42))
    upload_id: Mapped[str] = mapped_column(String(32), unique=True)
    total_bytes: Mapped[int] = mapped_column(BigInteger)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    spec_digest: Mapped[str] = mapped_column(String(66))
    created_at: Mapped[datetime] = mapped_column(Instant)
    verdict: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    record: Mapped[str | None] = mapped_column(String(66))
    tensors: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    decided_at: Mapped[datetime | None] = mapped_column(Instant)
