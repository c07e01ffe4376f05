"""Inference receipts and who handed them in."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "receipt",
        sa.Column("digest", sa.String(66), nullable=False),
        sa.Column("issuer", sa.String(42), nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", "issuer", name="pk_receipt"),
    )
    op.create_table(
        "receipt_deposit",
        sa.Column("digest", sa.String(66), nullable=False),
        sa.Column("issuer", sa.String(42), nullable=False),
        sa.Column("depositor", sa.String(42), nullable=False),
        sa.Column("deposited_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest", "issuer"], ["receipt.digest", "receipt.issuer"], name="fk_receipt_deposit_digest_issuer_receipt"
        ),
        sa.PrimaryKeyConstraint("digest", "issuer", "depositor", name="pk_receipt_deposit"),
    )


def downgrade() -> None:
    op.drop_table("receipt_deposit")
    op.drop_table("receipt")
