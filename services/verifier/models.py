"""Tables of the verifier."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.foundation.database import NAMING, Instant

WAITING = text("batch IS NULL AND set_aside_at IS NULL")


class Base(DeclarativeBase):
    """Base of the verifier's own tables."""

    metadata = MetaData(naming_convention=NAMING)


class ReceiptBatch(Base):
    """A batch that this verifier promised to commit; its receipts point to it and are never changed afterwards.

    `outcome` is None until the call to the chain is settled: then "committed", or "given-up" with a reason and without receipts.
    Where the batch stands on chain is told by `CommittedBatch` alone.
    """

    __tablename__ = "receipt_batch"
    __table_args__ = (UniqueConstraint("operator", "owner", "model", "sequence"),)

    id: Mapped[str] = mapped_column(String(66), primary_key=True)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    contract: Mapped[str] = mapped_column(String(42))
    operator: Mapped[str] = mapped_column(String(42))
    owner: Mapped[str] = mapped_column(String(42))
    model: Mapped[str] = mapped_column(String(66), index=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(Integer)
    record: Mapped[str] = mapped_column(String(66))
    intent_key: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime] = mapped_column(Instant)
    outcome: Mapped[str | None] = mapped_column(String(16), index=True)
    reason: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[datetime | None] = mapped_column(Instant)


class StoredReceipt(Base):
    """An inference receipt.

    The digest does not name the issuer, so the key does: otherwise anyone could take a digest by signing a copy first.
    `owner` is whose model answered, in the issuer's own words: None until he names one, and never changed afterwards.
    `batch` and `batch_index` are its one place in one batch; without them it waits, or was set aside because nobody vouches for its model.
    """

    __tablename__ = "receipt"
    __table_args__ = (
        UniqueConstraint("batch", "batch_index"),
        Index("ix_receipt_waiting", "model", "waiting_since", sqlite_where=WAITING, postgresql_where=WAITING),
    )

    digest: Mapped[str] = mapped_column(String(66), primary_key=True)
    issuer: Mapped[str] = mapped_column(String(42), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[datetime] = mapped_column(Instant)
    model: Mapped[str] = mapped_column(String(66))
    owner: Mapped[str | None] = mapped_column(String(42))
    waiting_since: Mapped[datetime] = mapped_column(Instant)
    set_aside_at: Mapped[datetime | None] = mapped_column(Instant)
    batch: Mapped[str | None] = mapped_column(ForeignKey("receipt_batch.id"))
    batch_index: Mapped[int | None] = mapped_column(Integer)


class Deposit(Base):
    """Who handed a receipt in: besides the issuer, the only ones who may read it, because it opens a salted commitment."""

    __tablename__ = "receipt_deposit"
    __table_args__ = (ForeignKeyConstraint(["digest", "issuer"], ["receipt.digest", "receipt.issuer"]),)

    digest: Mapped[str] = mapped_column(String(66), primary_key=True)
    issuer: Mapped[str] = mapped_column(String(42), primary_key=True)
    depositor: Mapped[str] = mapped_column(String(42), primary_key=True)
    deposited_at: Mapped[datetime] = mapped_column(Instant)


class VouchedModel(Base):
    """A model as the events of the ModelRegistry tell it: authorised by an owner, or revoked for good. Written by the projection only."""

    __tablename__ = "vouched_model"

    model: Mapped[str] = mapped_column(String(66), primary_key=True)
    owner: Mapped[str] = mapped_column(String(42), primary_key=True)
    authorised: Mapped[bool]


class CommittedBatch(Base):
    """A batch as the events of the InferenceRegistry tell it, by whichever operator. Written by the projection only.

    `terms` is the number of its operator's terms that hold for it, 0 where nothing is staked; it can be challenged to the Unix second
    `until`. `outcome` is "final" or "rejected" once a call made it so; None does not say that it can still be challenged.
    """

    __tablename__ = "committed_batch"
    __table_args__ = (Index(None, "operator", "owner", "model"),)

    id: Mapped[str] = mapped_column(String(66), primary_key=True)
    operator: Mapped[str] = mapped_column(String(42))
    owner: Mapped[str] = mapped_column(String(42))
    model: Mapped[str] = mapped_column(String(66))
    sequence: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(BigInteger)
    record: Mapped[str] = mapped_column(String(66))
    transaction_hash: Mapped[str] = mapped_column(String(66))
    block_number: Mapped[int] = mapped_column(BigInteger)
    block_hash: Mapped[str] = mapped_column(String(66))
    terms: Mapped[int] = mapped_column(Integer)
    until: Mapped[int] = mapped_column(BigInteger)
    outcome: Mapped[str | None] = mapped_column(String(16))


class OperatorTerms(Base):
    """What an operator stakes on each batch under these terms: `bond` in the token's smallest unit. Written by the projection only."""

    __tablename__ = "operator_terms"

    operator: Mapped[str] = mapped_column(String(42), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    token: Mapped[str] = mapped_column(String(42))
    # Decimal digits: no database has whole numbers of this size under one name.
    bond: Mapped[str] = mapped_column(String(39))
    arbiter: Mapped[str] = mapped_column(String(42))


class OperatorStake(Base):
    """What an operator has put in of a token, locked or not, in its smallest unit as decimal digits. Written by the projection only."""

    __tablename__ = "operator_stake"

    operator: Mapped[str] = mapped_column(String(42), primary_key=True)
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    total: Mapped[str] = mapped_column(String(39))


class BatchChallenge(Base):
    """Somebody's challenge of one receipt of a batch; `leaf`, `reason`, `answer` and `grounds` are salted digests, as the chain has them.

    `outcome` is open, answered, upheld, dismissed, undecided or moot; `deadline` is the Unix second to which the operator may answer, and
    after that the arbiter judge. Written by the projection only.
    """

    __tablename__ = "batch_challenge"

    batch: Mapped[str] = mapped_column(String(66), primary_key=True)
    index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    challenger: Mapped[str] = mapped_column(String(42), primary_key=True)
    leaf: Mapped[str] = mapped_column(String(66))
    reason: Mapped[str] = mapped_column(String(66))
    answer: Mapped[str | None] = mapped_column(String(66))
    outcome: Mapped[str] = mapped_column(String(16))
    grounds: Mapped[str | None] = mapped_column(String(66))
    deadline: Mapped[int] = mapped_column(BigInteger)
