"""Federations and their members."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "federation",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("founder", sa.String(42), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("collusion_bound", sa.Integer, nullable=False),
        sa.Column("threshold", sa.Integer, nullable=False),
        sa.Column("min_survivors", sa.Integer, nullable=False),
        sa.Column("strategy", sa.String(32), nullable=False),
        sa.Column("model_spec", sa.JSON, nullable=False),
        sa.Column("spec_digest", sa.String(66), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("min_survivors >= threshold", name="survivors_reach_threshold"),
        sa.PrimaryKeyConstraint("id", name="pk_federation"),
    )
    op.create_index("ix_federation_founder", "federation", ["founder"])
    op.create_index("ix_federation_created_at_id", "federation", ["created_at", "id"])
    op.create_table(
        "federation_member",
        sa.Column("federation_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("address", sa.String(42), nullable=False),
        sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name="fk_federation_member_federation_id_federation"),
        sa.PrimaryKeyConstraint("federation_id", "position", name="pk_federation_member"),
        sa.UniqueConstraint("federation_id", "address", name="uq_federation_member_federation_id_address"),
    )
    op.create_index("ix_federation_member_address", "federation_member", ["address"])


def downgrade() -> None:
    op.drop_table("federation_member")
    op.drop_table("federation")
