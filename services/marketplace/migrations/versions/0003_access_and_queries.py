"""Grants as projected from chain events, requests for access, and compute-to-data queries."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_INDEXED = ("dataset_parent", "bound_document", "catalogue_entry", "chain_event", "chain_block")


def upgrade() -> None:
    op.create_table(
        "access_change",
        sa.Column("dataset", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("purpose", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("consumer", sa.String(42), nullable=False),
        sa.Column("grant_epoch", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("latest", sa.Boolean, nullable=False),
        sa.Column("decided_by", sa.String(42), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=True),
        sa.Column("conditions_hash", sa.String(66), nullable=True),
        sa.Column("policy_version", sa.BigInteger, nullable=True),
        sa.Column("owner_epoch", sa.BigInteger, nullable=True),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("transaction_hash", sa.String(66), nullable=False),
        sa.PrimaryKeyConstraint("dataset", "purpose", "consumer", "grant_epoch", name="pk_access_change"),
    )
    for column in ("consumer", "conditions_hash"):
        op.create_index(f"ix_access_change_{column}", "access_change", [column])
    op.create_table(
        "committee_member",
        sa.Column("dataset", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("member", sa.String(42), nullable=False),
        sa.Column("owner_epoch", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("dataset", "member", name="pk_committee_member"),
    )
    op.create_table(
        "access_request",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("dataset", sa.BigInteger, nullable=False),
        sa.Column("consumer", sa.String(42), nullable=False),
        sa.Column("purpose", sa.Integer, nullable=False),
        sa.Column("conditions", sa.LargeBinary, nullable=False),
        sa.Column("conditions_hash", sa.String(66), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("declined_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("declined_by", sa.String(42), nullable=True),
        sa.Column("reason", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_access_request"),
        sa.UniqueConstraint("conditions_hash", name="uq_access_request_conditions_hash"),
    )
    op.create_table(
        "query_job",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("dataset", sa.BigInteger, nullable=False),
        sa.Column("consumer", sa.String(42), nullable=False),
        sa.Column("purpose", sa.Integer, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.String(66), nullable=False),
        sa.Column("conditions_hash", sa.String(66), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rule", sa.Text, nullable=True),
        sa.Column("result", sa.LargeBinary, nullable=True),
        sa.Column("result_digest", sa.String(66), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_query_job"),
    )
    for table in ("access_request", "query_job"):
        for column in ("consumer", "dataset"):
            op.create_index(f"ix_{table}_{column}_created_at_id", table, [column, "created_at", "id"])
    op.create_index("ix_query_job_state_dataset", "query_job", ["state", "dataset"])
    # The index has read the registry's events only: it begins again, so that no grant of before is missing.
    for table in _INDEXED:
        op.execute(f"DELETE FROM {table}")


def downgrade() -> None:
    for table in ("query_job", "access_request", "committee_member", "access_change"):
        op.drop_table(table)
