"""Batches of receipts, and what the chain tells of models and batches."""

import json
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

WAITING = sa.text("batch IS NULL AND set_aside_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "receipt_batch",
        sa.Column("id", sa.String(66), nullable=False),
        sa.Column("chain_id", sa.BigInteger, nullable=False),
        sa.Column("contract", sa.String(42), nullable=False),
        sa.Column("operator", sa.String(42), nullable=False),
        sa.Column("owner", sa.String(42), nullable=False),
        sa.Column("model", sa.String(66), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("record", sa.String(66), nullable=False),
        sa.Column("intent_key", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=True),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_receipt_batch"),
        sa.UniqueConstraint("operator", "owner", "model", "sequence", name="uq_receipt_batch_operator_owner_model_sequence"),
        sa.UniqueConstraint("intent_key", name="uq_receipt_batch_intent_key"),
    )
    op.create_index("ix_receipt_batch_model", "receipt_batch", ["model"])
    op.create_index("ix_receipt_batch_outcome", "receipt_batch", ["outcome"])
    op.create_table(
        "vouched_model",
        sa.Column("model", sa.String(66), nullable=False),
        sa.Column("owner", sa.String(42), nullable=False),
        sa.Column("authorised", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("model", "owner", name="pk_vouched_model"),
    )
    op.create_table(
        "committed_batch",
        sa.Column("id", sa.String(66), nullable=False),
        sa.Column("operator", sa.String(42), nullable=False),
        sa.Column("owner", sa.String(42), nullable=False),
        sa.Column("model", sa.String(66), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("record", sa.String(66), nullable=False),
        sa.Column("transaction_hash", sa.String(66), nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("block_hash", sa.String(66), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_committed_batch"),
    )
    op.create_index("ix_committed_batch_operator_owner_model", "committed_batch", ["operator", "owner", "model"])
    with op.batch_alter_table("receipt") as table:
        table.add_column(sa.Column("model", sa.String(66), nullable=True))
        table.add_column(sa.Column("owner", sa.String(42), nullable=True))
        table.add_column(sa.Column("waiting_since", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("set_aside_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("batch", sa.String(66), nullable=True))
        table.add_column(sa.Column("batch_index", sa.Integer, nullable=True))
    _fill()
    with op.batch_alter_table("receipt") as table:
        table.alter_column("model", existing_type=sa.String(66), nullable=False)
        table.alter_column("waiting_since", existing_type=sa.DateTime(timezone=True), nullable=False)
        table.create_foreign_key("fk_receipt_batch_receipt_batch", "receipt_batch", ["batch"], ["id"])
        table.create_unique_constraint("uq_receipt_batch_batch_index", ["batch", "batch_index"])
    op.create_index("ix_receipt_waiting", "receipt", ["model", "waiting_since"], sqlite_where=WAITING, postgresql_where=WAITING)


def downgrade() -> None:
    op.drop_index("ix_receipt_waiting", "receipt")
    with op.batch_alter_table("receipt") as table:
        table.drop_constraint("uq_receipt_batch_batch_index", type_="unique")
        table.drop_constraint("fk_receipt_batch_receipt_batch", type_="foreignkey")
        for column in ("batch_index", "batch", "set_aside_at", "waiting_since", "owner", "model"):
            table.drop_column(column)
    for name in ("committed_batch", "vouched_model", "receipt_batch"):
        op.drop_table(name)


def _fill() -> None:
    """The receipts that are here already wait from the time at which they came."""
    receipt = sa.table("receipt", *(sa.column(name) for name in ("digest", "issuer", "content", "received_at", "model", "waiting_since")))
    connection = op.get_bind()
    for row in connection.execute(sa.select(receipt.c.digest, receipt.c.issuer, receipt.c.content)).all():
        same = (receipt.c.digest == row.digest) & (receipt.c.issuer == row.issuer)
        model = json.loads(bytes(row.content))["model"]
        connection.execute(receipt.update().where(same).values(model=model, waiting_since=receipt.c.received_at))
