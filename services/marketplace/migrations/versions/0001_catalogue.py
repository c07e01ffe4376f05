"""Documents, relays, and the catalogue that is projected from chain events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "document",
        sa.Column("digest", sa.String(66), nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.String(200), nullable=True),
        sa.Column("description", sa.String(500), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_document"),
    )
    op.create_table(
        "relay",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("sender", sa.String(42), nullable=False),
        sa.Column("operation", sa.String(32), nullable=False),
        sa.Column("intent_key", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_relay"),
        sa.UniqueConstraint("intent_key", name="uq_relay_intent_key"),
    )
    op.create_index("ix_relay_sender", "relay", ["sender"])
    op.create_table(
        "catalogue_entry",
        sa.Column("token_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("registrant", sa.String(42), nullable=False),
        sa.Column("owner", sa.String(42), nullable=False),
        sa.Column("owner_epoch", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("content_root", sa.String(66), nullable=False),
        sa.Column("policy_hash", sa.String(66), nullable=False),
        sa.Column("policy_version", sa.BigInteger, nullable=False),
        sa.Column("metadata_hash", sa.String(66), nullable=False),
        sa.Column("metadata_version", sa.BigInteger, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("royalty_bps", sa.Integer, nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("transaction_hash", sa.String(66), nullable=False),
        sa.PrimaryKeyConstraint("token_id", name="pk_catalogue_entry"),
    )
    for column in ("owner", "content_root", "transaction_hash"):
        op.create_index(f"ix_catalogue_entry_{column}", "catalogue_entry", [column])
    op.create_table(
        "dataset_parent",
        sa.Column("child", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("parent", sa.BigInteger, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("child", "parent", name="pk_dataset_parent"),
    )
    op.create_table(
        "bound_document",
        sa.Column("digest", sa.String(66), nullable=False),
        sa.Column("token_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("digest", "token_id", name="pk_bound_document"),
    )


def downgrade() -> None:
    for table in ("bound_document", "dataset_parent", "catalogue_entry", "relay", "document"):
        op.drop_table(table)
