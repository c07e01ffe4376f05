"""Compute-to-data jobs in escrow, as projected from chain events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_INDEXED = ("committee_member", "access_change", "dataset_parent", "bound_document", "catalogue_entry", "chain_event", "chain_block")


def upgrade() -> None:
    op.create_table(
        "compute_job",
        sa.Column("id", sa.String(66), nullable=False),
        sa.Column("dataset", sa.BigInteger, nullable=False),
        sa.Column("consumer", sa.String(42), nullable=False),
        sa.Column("provider", sa.String(42), nullable=False),
        sa.Column("arbiter", sa.String(42), nullable=False),
        sa.Column("purpose", sa.Integer, nullable=False),
        sa.Column("algorithm", sa.String(66), nullable=False),
        sa.Column("document", sa.String(66), nullable=False),
        sa.Column("token", sa.String(42), nullable=False),
        sa.Column("price", sa.String(29), nullable=False),
        sa.Column("run_seconds", sa.BigInteger, nullable=False),
        sa.Column("review_seconds", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("deadline", sa.BigInteger, nullable=True),
        sa.Column("result", sa.String(66), nullable=True),
        sa.Column("logs", sa.String(66), nullable=True),
        sa.Column("meter", sa.String(66), nullable=True),
        sa.Column("dispute_reason", sa.String(66), nullable=True),
        sa.Column("ended_by", sa.String(16), nullable=True),
        sa.Column("paid", sa.String(29), nullable=True),
        sa.Column("royalty", sa.String(29), nullable=True),
        sa.Column("refunded", sa.String(29), nullable=True),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("transaction_hash", sa.String(66), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_compute_job"),
    )
    for column in ("consumer", "provider", "arbiter", "dataset"):
        op.create_index(f"ix_compute_job_{column}_block_number_id", "compute_job", [column, "block_number", "id"])
    # The index has not read the events of this contract: it begins again, so that no job of before is missing.
    for table in _INDEXED:
        op.execute(f"DELETE FROM {table}")


def downgrade() -> None:
    op.drop_table("compute_job")
