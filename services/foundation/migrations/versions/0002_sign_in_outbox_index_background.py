"""Sign-in nonces, the outbox (calls and tasks), the chain index, and the background lease."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from services.foundation.database import Instant

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "background_lease",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("until", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_background_lease")),
    )
    op.create_table(
        "chain_account",
        sa.Column("chain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("address", sa.String(42), nullable=False),
        sa.Column("genesis_hash", sa.String(66), nullable=False),
        sa.Column("next_nonce", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "address", name=op.f("pk_chain_account")),
    )
    op.create_table(
        "chain_block",
        sa.Column("chain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(66), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "number", name=op.f("pk_chain_block")),
    )
    op.create_table(
        "chain_event",
        sa.Column("chain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("block_hash", sa.String(66), nullable=False),
        sa.Column("log_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("transaction_hash", sa.String(66), nullable=False),
        sa.Column("contract", sa.String(64), nullable=False),
        sa.Column("address", sa.String(42), nullable=False),
        sa.Column("topics", sa.JSON(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "block_hash", "log_index", name=op.f("pk_chain_event")),
    )
    op.create_index(op.f("ix_chain_event_block_number"), "chain_event", ["block_number"])
    op.create_index(op.f("ix_chain_event_transaction_hash"), "chain_event", ["transaction_hash"])
    op.create_table(
        "chain_intent",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("label", sa.String(100), nullable=False),
        sa.Column("to", sa.String(42), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("gas", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_since", Instant(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("transaction_hash", sa.String(66), nullable=True),
        sa.Column("block_number", sa.BigInteger(), nullable=True),
        sa.Column("lost_once", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_chain_intent")),
        sa.UniqueConstraint("id", name=op.f("uq_chain_intent_id")),
        sa.UniqueConstraint("key", name=op.f("uq_chain_intent_key")),
    )
    op.create_index(op.f("ix_chain_intent_state"), "chain_intent", ["state"])
    op.create_table(
        "sign_in_nonce",
        sa.Column("nonce", sa.String(64), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_sign_in_nonce")),
    )
    op.create_index(op.f("ix_sign_in_nonce_expires_at"), "sign_in_nonce", ["expires_at"])
    op.create_table(
        "task_message",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("claimed_until", Instant(), nullable=True),
        sa.Column("sent_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_task_message")),
        sa.UniqueConstraint("key", name=op.f("uq_task_message_key")),
    )
    op.create_index(op.f("ix_task_message_claimed_until"), "task_message", ["claimed_until"])
    op.create_index(op.f("ix_task_message_sent_at"), "task_message", ["sent_at"])
    op.create_table(
        "chain_transaction",
        sa.Column("hash", sa.String(66), nullable=False),
        sa.Column("intent_sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.String(42), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("signed_at", Instant(), nullable=False),
        sa.Column("submitted_at", Instant(), nullable=True),
        sa.Column("block_number", sa.BigInteger(), nullable=True),
        sa.Column("block_hash", sa.String(66), nullable=True),
        sa.Column("mined_at", Instant(), nullable=True),
        sa.Column("final_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["intent_sequence"], ["chain_intent.sequence"], name=op.f("fk_chain_transaction_intent_sequence_chain_intent")
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_chain_transaction")),
    )
    op.create_index(op.f("ix_chain_transaction_chain_id_sender_nonce"), "chain_transaction", ["chain_id", "sender", "nonce"])
    op.create_index(op.f("ix_chain_transaction_final_at"), "chain_transaction", ["final_at"])
    op.create_index(op.f("ix_chain_transaction_intent_sequence"), "chain_transaction", ["intent_sequence"])


def downgrade() -> None:
    op.drop_table("chain_transaction")
    op.drop_table("task_message")
    op.drop_table("sign_in_nonce")
    op.drop_table("chain_intent")
    op.drop_table("chain_event")
    op.drop_table("chain_block")
    op.drop_table("chain_account")
    op.drop_table("background_lease")
