"""Tables of the aggregator.

`onchain_federation`, `onchain_round` and `onchain_commitment` are projections of the FederationRegistry's events: nothing but the chain
index writes them. What the aggregator itself decided stands beside them, so that the two can be compared at every step.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, ForeignKeyConstraint, Index, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from services.foundation.database import NAMING, Instant


class Base(DeclarativeBase):
    """Base of the aggregator's own tables."""

    metadata = MetaData(naming_convention=NAMING)


class Account(Base):
    """The address that this aggregator signs and pays with; its background process has the key and writes the one row."""

    __tablename__ = "aggregator_account"

    address: Mapped[str] = mapped_column(String(42), primary_key=True)


class Federation(Base):
    """A federation by its id on chain, 0x and 64 digits.

    founding → inviting → running → finished (with a reason, if before its last round), or failed with a reason. `round` is the one that
    runs or ran last, `model` the newest global model's record (of a statistic its digest), `intent_key` the founder's relayed call,
    `result` a statistic's canonical document, `leader` the aggregator that opens its attempts, as far as this one knows.

    One that another aggregator leads is `witnessing` until it ends; `reason` then says why this one does not sign, and `intent_key` is "".
    """

    __tablename__ = "federation"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(66), primary_key=True)
    founder: Mapped[str] = mapped_column(String(42), index=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str | None] = mapped_column(Text)
    round: Mapped[int]
    rounds_total: Mapped[int]
    model: Mapped[str] = mapped_column(String(66))
    intent_key: Mapped[str] = mapped_column(String(200))
    result: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    leader: Mapped[str | None] = mapped_column(String(42))
    created_at: Mapped[datetime] = mapped_column(Instant)

    members: Mapped[list["Member"]] = relationship(order_by="Member.position", lazy="selectin", cascade="all, delete-orphan")
    aggregators: Mapped[list["FederationAggregator"]] = relationship(cascade="all, delete-orphan")
    equivocations: Mapped[list["EquivocationRow"]] = relationship(order_by="EquivocationRow.seen_at", cascade="all, delete-orphan")


class Member(Base):
    """An institution of a federation's roster. `position` counts from 1 and is its x coordinate in secret sharing."""

    __tablename__ = "federation_member"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    address: Mapped[str] = mapped_column(String(42), primary_key=True, index=True)
    position: Mapped[int]
    joined_at: Mapped[datetime | None] = mapped_column(Instant)


class FederationAggregator(Base):
    """An operator whose signature counts in a federation, by its config."""

    __tablename__ = "federation_aggregator"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    address: Mapped[str] = mapped_column(String(42), primary_key=True, index=True)


class GlobalModel(Base):
    """A model file in the object store: what `round` made; 0 is the one that the founder brought. `file_digest` is its SHA-256.

    `state_digest` is that of the server's state after this round, in a file beside it; NULL where the strategy has none, and in round 0.
    """

    __tablename__ = "global_model"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    record: Mapped[str] = mapped_column(String(66))
    object_key: Mapped[str] = mapped_column(String(200))
    size: Mapped[int] = mapped_column(BigInteger)
    file_digest: Mapped[str] = mapped_column(String(66))
    state_digest: Mapped[str | None] = mapped_column(String(66))
    state_size: Mapped[int | None] = mapped_column(BigInteger)


class Attempt(Base):
    """One attempt at one round; `rexis.secagg.Coordinator` is rebuilt from its messages and its stage.

    `tries` counts the calls for the step on chain that the stage waits for. The columns from `survivors` on are filled as the sum is
    agreed on and opened; of metrics that only members have there is `metrics_digest` alone.
    """

    __tablename__ = "attempt"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    stage: Mapped[str] = mapped_column(String(16), index=True)
    stage_since: Mapped[datetime] = mapped_column(Instant)
    reason: Mapped[str | None] = mapped_column(Text)
    tries: Mapped[int]
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)
    manifest_digest: Mapped[str] = mapped_column(String(66))
    ctx: Mapped[str] = mapped_column(String(66), unique=True)
    base_model: Mapped[str] = mapped_column(String(66))
    opened_at: Mapped[datetime] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)
    survivors: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    survivors_hash: Mapped[str | None] = mapped_column(String(66))
    masked_record: Mapped[str | None] = mapped_column(String(66))
    aggregate: Mapped[str | None] = mapped_column(String(66))
    model: Mapped[str | None] = mapped_column(String(66))
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    metrics_digest: Mapped[str | None] = mapped_column(String(66))


class RoundMessage(Base):
    """A participant's signed message of one stage. When the attempt is over its body is forgotten; the digest still knows it again."""

    __tablename__ = "round_message"
    __table_args__ = (
        ForeignKeyConstraint(["federation_id", "round", "attempt"], ["attempt.federation_id", "attempt.round", "attempt.number"]),
    )

    federation_id: Mapped[str] = mapped_column(String(66), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    stage: Mapped[str] = mapped_column(String(16), primary_key=True)
    sender: Mapped[str] = mapped_column(String(42), primary_key=True)
    digest: Mapped[str] = mapped_column(String(66))
    body: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)


class ApprovalRow(Base):
    """The first statement of this kind that an aggregator signed about an attempt; our own is here before anybody else gets it.

    `document` is a `rexis.protocol.approvals.Approval`. Rows are never changed: a second, different statement is an `EquivocationRow`.
    """

    __tablename__ = "approval"
    __table_args__ = (Index(None, "taken_at"),)

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    signer: Mapped[str] = mapped_column(String(42), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    taken_at: Mapped[datetime] = mapped_column(Instant)


class EquivocationRow(Base):
    """The first evidence against an aggregator in a federation; `document` is a `rexis.protocol.equivocation.Equivocation`."""

    __tablename__ = "equivocation"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    signer: Mapped[str] = mapped_column(String(42), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    seen_at: Mapped[datetime] = mapped_column(Instant)


class RoundMetrics(Base):
    """Metrics of a round that another aggregator led; they count once their `digest` is the one that stands on chain."""

    __tablename__ = "round_metrics"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(66), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)


class HeldSum(Base):
    """The sum of an attempt's masked vectors as a witness holds it, still masked; `digest` is NULL until the object is whole.

    It is named by the record of the vectors that it was made of, and deleted when the attempt is over on chain.
    """

    __tablename__ = "held_sum"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    masked_record: Mapped[str] = mapped_column(String(66), primary_key=True)
    object_key: Mapped[str] = mapped_column(String(200))
    digest: Mapped[str | None] = mapped_column(String(66))


class GroupKeyRecipientRow(Base):
    """The key to which a member, or the founder, wants the group key encrypted; a `rexis.protocol.group_keys.GroupKeyRecipient`."""

    __tablename__ = "group_key_recipient"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    recipient: Mapped[str] = mapped_column(String(42), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)


class GroupKeyDealingRow(Base):
    """The dealing of a federation's group key that counts, and is never changed; a `rexis.protocol.group_keys.GroupKeyDealing`."""

    __tablename__ = "group_key_dealing"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    dealer: Mapped[str] = mapped_column(String(42))
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    dealt_at: Mapped[datetime] = mapped_column(Instant)


class MemberResultRow(Base):
    """What a member of a federation with the group pad stated first about an attempt; a `rexis.protocol.member_results.MemberResult`."""

    __tablename__ = "member_result"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    member: Mapped[str] = mapped_column(String(42), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)


class OpenedSum(Base):
    """The sum of an attempt in the object store, as it was opened: under the members' pads, if the federation has them."""

    __tablename__ = "opened_sum"

    federation_id: Mapped[str] = mapped_column(ForeignKey("federation.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    object_key: Mapped[str] = mapped_column(String(200))
    size: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(66))


class OnchainFederation(Base):
    """A federation as the chain has it."""

    __tablename__ = "onchain_federation"

    id: Mapped[str] = mapped_column(String(66), primary_key=True)
    founder: Mapped[str] = mapped_column(String(42))
    config_hash: Mapped[str] = mapped_column(String(66))
    created_transaction: Mapped[str] = mapped_column(String(66))
    closed_by: Mapped[str | None] = mapped_column(String(42))


class OnchainRound(Base):
    """One attempt at one round as the chain has it; what has not happened is NULL.

    `opened_block` is a hash; it, `opened_by` and `deadline` (the last second, Unix time, before anybody may abandon it) are NULL in rows of
    before they were projected.
    """

    __tablename__ = "onchain_round"

    federation_id: Mapped[str] = mapped_column(String(66), primary_key=True)
    round: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    manifest_hash: Mapped[str] = mapped_column(String(66))
    base_model: Mapped[str] = mapped_column(String(66))
    opened_transaction: Mapped[str] = mapped_column(String(66))
    opened_block: Mapped[str | None] = mapped_column(String(66))
    opened_by: Mapped[str | None] = mapped_column(String(42))
    deadline: Mapped[int | None] = mapped_column(BigInteger)
    survivors_hash: Mapped[str | None] = mapped_column(String(66))
    masked_record: Mapped[str | None] = mapped_column(String(66))
    accumulator: Mapped[str | None] = mapped_column(String(66))
    survivors: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    fixed_transaction: Mapped[str | None] = mapped_column(String(66))
    model: Mapped[str | None] = mapped_column(String(66))
    aggregate: Mapped[str | None] = mapped_column(String(66))
    metrics: Mapped[str | None] = mapped_column(String(66))
    finalised_transaction: Mapped[str | None] = mapped_column(String(66))
    abandoned_transaction: Mapped[str | None] = mapped_column(String(66))


class OnchainCommitment(Base):
    """That a participant committed to its update in the attempt with this context."""

    __tablename__ = "onchain_commitment"

    ctx: Mapped[str] = mapped_column(String(66), primary_key=True)
    participant: Mapped[str] = mapped_column(String(42), primary_key=True)
    commitment: Mapped[str] = mapped_column(String(66))
