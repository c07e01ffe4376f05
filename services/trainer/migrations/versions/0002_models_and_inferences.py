"""Keyed models, what the ModelRegistry says of them, questions to them, and the receipts of the answers."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _job() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("fencing_token", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.String(200), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failure", sa.Text, nullable=True),
    ]


def upgrade() -> None:
    op.create_table(
        "keyed_model",
        *_job(),
        sa.Column("owner", sa.String(42), nullable=False),
        sa.Column("upload_id", sa.String(32), nullable=False),
        sa.Column("total_bytes", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("spec_digest", sa.String(66), nullable=False),
        sa.Column("record", sa.String(66), nullable=False),
        sa.Column("suite", sa.String(16), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("knowledge", sa.String(16), nullable=False),
        sa.Column("key_id", sa.String(34), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=True),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("relay_id", sa.String(32), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_keyed_model"),
        sa.UniqueConstraint("upload_id", name="uq_keyed_model_upload_id"),
    )
    op.create_index("ix_keyed_model_state", "keyed_model", ["state"])
    op.create_index("ix_keyed_model_owner_created_at_id", "keyed_model", ["owner", "created_at", "id"])
    op.create_index("ix_keyed_model_owner_record", "keyed_model", ["owner", "record"])
    op.create_table(
        "model_user",
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("address", sa.String(42), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "address", name="pk_model_user"),
        sa.ForeignKeyConstraint(["model_id"], ["keyed_model.id"], name="fk_model_user_model_id_keyed_model"),
    )
    op.create_index("ix_model_user_address", "model_user", ["address"])
    op.create_table(
        "registered_model",
        sa.Column("owner", sa.String(42), nullable=False),
        sa.Column("record", sa.String(66), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spec_digest", sa.String(66), nullable=True),
        sa.Column("uri", sa.Text, nullable=True),
        sa.Column("revocation", sa.String(32), nullable=True),
        sa.Column("transaction_hash", sa.String(66), nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("owner", "record", name="pk_registered_model"),
    )
    op.create_table(
        "inference",
        *_job(),
        sa.Column("requester", sa.String(42), nullable=False),
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("upload_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("items", sa.Integer, nullable=True),
        sa.Column("items_done", sa.Integer, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=True),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("output_key", sa.String(100), nullable=True),
        sa.Column("output_bytes", sa.BigInteger, nullable=True),
        sa.Column("output_digest", sa.LargeBinary(32), nullable=True),
        sa.Column("output_record", sa.String(66), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("swept", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inference"),
        sa.UniqueConstraint("upload_id", name="uq_inference_upload_id"),
        sa.ForeignKeyConstraint(["model_id"], ["keyed_model.id"], name="fk_inference_model_id_keyed_model"),
    )
    op.create_index("ix_inference_state", "inference", ["state"])
    op.create_index("ix_inference_model_id", "inference", ["model_id"])
    op.create_index("ix_inference_requester_created_at_id", "inference", ["requester", "created_at", "id"])
    op.create_table(
        "issued_receipt",
        sa.Column("digest", sa.String(66), nullable=False),
        sa.Column("issuer", sa.String(42), nullable=False),
        sa.Column("owner", sa.String(42), nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("deposited_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refusal", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("digest", "issuer", name="pk_issued_receipt"),
    )
    op.create_index("ix_issued_receipt_deposited_at", "issued_receipt", ["deposited_at"])
    op.create_table(
        "inference_item",
        sa.Column("inference_id", sa.Uuid, nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(66), nullable=False),
        sa.Column("issuer", sa.String(42), nullable=False),
        sa.PrimaryKeyConstraint("inference_id", "item", name="pk_inference_item"),
        sa.ForeignKeyConstraint(["inference_id"], ["inference.id"], name="fk_inference_item_inference_id_inference"),
        sa.ForeignKeyConstraint(
            ["digest", "issuer"],
            ["issued_receipt.digest", "issued_receipt.issuer"],
            name="fk_inference_item_digest_issuer_issued_receipt",
        ),
    )


def downgrade() -> None:
    for table in ("inference_item", "issued_receipt", "inference", "registered_model", "model_user", "keyed_model"):
        op.drop_table(table)
