"""Tables of the trainer."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, ForeignKeyConstraint, Index, Integer, LargeBinary, MetaData, String, Text
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


class KeyedModel(LeasedJob, Base):
    """A model that its owner keyed and uploaded, and the job of checking that its file has the record which he signed.

    `verdict` as in `Batch`. The signed call is promised to the chain in the transaction that accepts the file; `relay_id` names it.
    `report` is the summary of the owner's privacy report, None where he gave none.
    """

    __tablename__ = "keyed_model"
    __table_args__ = (Index(None, "owner", "created_at", "id"), Index(None, "owner", "record"))

    owner: Mapped[str] = mapped_column(String(42))
    upload_id: Mapped[str] = mapped_column(String(32), unique=True)
    total_bytes: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    spec_digest: Mapped[str] = mapped_column(String(66))
    record: Mapped[str] = mapped_column(String(66))
    suite: Mapped[str] = mapped_column(String(16))
    mode: Mapped[str] = mapped_column(String(16))
    knowledge: Mapped[str] = mapped_column(String(16))
    key_id: Mapped[str] = mapped_column(String(34))
    report: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    signature: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Instant)
    verdict: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    relay_id: Mapped[str | None] = mapped_column(String(32))
    decided_at: Mapped[datetime | None] = mapped_column(Instant)


class ModelUser(Base):
    """Who besides the owner may ask a model."""

    __tablename__ = "model_user"

    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("keyed_model.id"), primary_key=True)
    address: Mapped[str] = mapped_column(String(42), primary_key=True, index=True)


class RegisteredModel(Base):
    """A model as the events of the ModelRegistry tell it: authorised, or revoked for good. Written by the projection only."""

    __tablename__ = "registered_model"

    owner: Mapped[str] = mapped_column(String(42), primary_key=True)
    record: Mapped[str] = mapped_column(String(66), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    spec_digest: Mapped[str | None] = mapped_column(String(66))
    uri: Mapped[str | None] = mapped_column(Text)
    revocation: Mapped[str | None] = mapped_column(String(32))
    transaction_hash: Mapped[str] = mapped_column(String(66))
    block_number: Mapped[int] = mapped_column(BigInteger)


class Inference(LeasedJob, Base):
    """A question to a model, a batch of encrypted rows, and the job of answering it.

    `verdict` is None until the job is done, then "answered" with the output, or "refused" with a reason. Output and receipts are written
    in the transaction that ends the job, so that an item has one answer whatever happened to earlier runs.
    """

    __tablename__ = "inference"
    __table_args__ = (Index(None, "requester", "created_at", "id"),)

    requester: Mapped[str] = mapped_column(String(42))
    model_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("keyed_model.id"), index=True)
    upload_id: Mapped[str] = mapped_column(String(32), unique=True)
    created_at: Mapped[datetime] = mapped_column(Instant)
    items: Mapped[int | None] = mapped_column(Integer)
    items_done: Mapped[int] = mapped_column(Integer, default=0)
    verdict: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    output_key: Mapped[str | None] = mapped_column(String(100))
    output_bytes: Mapped[int | None] = mapped_column(BigInteger)
    output_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    output_record: Mapped[str | None] = mapped_column(String(66))
    decided_at: Mapped[datetime | None] = mapped_column(Instant)
    swept: Mapped[bool] = mapped_column(default=False)  # what lost runs left in the object store was deleted


class IssuedReceipt(Base):
    """A receipt that this trainer signed; one for each claim, because a second one with another salt would contradict it.

    `owner` is the owner of the model that answered. `deposited_at` is set once the verifier has the receipt, `refusal` if the verifier will
    never take it.
    """

    __tablename__ = "issued_receipt"

    digest: Mapped[str] = mapped_column(String(66), primary_key=True)
    issuer: Mapped[str] = mapped_column(String(42), primary_key=True)
    owner: Mapped[str] = mapped_column(String(42))
    content: Mapped[bytes] = mapped_column(LargeBinary)
    deposited_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    refusal: Mapped[str | None] = mapped_column(Text)


class InferenceItem(Base):
    """Which receipt belongs to which row of a question."""

    __tablename__ = "inference_item"
    __table_args__ = (ForeignKeyConstraint(["digest", "issuer"], ["issued_receipt.digest", "issued_receipt.issuer"]),)

    inference_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("inference.id"), primary_key=True)
    item: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(66))
    issuer: Mapped[str] = mapped_column(String(42))
