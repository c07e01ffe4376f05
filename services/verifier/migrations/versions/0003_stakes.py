"""What is staked on batches, who challenges them, and what became of both."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # Batches that are here already are of a registry that knew neither stake nor challenge.
    with op.batch_alter_table("committed_batch") as table:
        table.add_column(sa.Column("terms", sa.Integer, nullable=False, server_default="0"))
        table.add_column(sa.Column("until", sa.BigInteger, nullable=False, server_default="0"))
        table.add_column(sa.Column("outcome", sa.String(16), nullable=True))
    with op.batch_alter_table("committed_batch") as table:
        table.alter_column("terms", existing_type=sa.Integer, server_default=None)
        table.alter_column("until", existing_type=sa.BigInteger, server_default=None)
    op.create_table(
        "operator_terms",
        sa.Column("operator", sa.String(42), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("token", sa.String(42), nullable=False),
        sa.Column("bond", sa.String(39), nullable=False),
        sa.Column("arbiter", sa.String(42), nullable=False),
        sa.PrimaryKeyConstraint("operator", "number", name="pk_operator_terms"),
    )
    op.create_table(
        "operator_stake",
        sa.Column("operator", sa.String(42), nullable=False),
        sa.Column("token", sa.String(42), nullable=False),
        sa.Column("total", sa.String(39), nullable=False),
        sa.PrimaryKeyConstraint("operator", "token", name="pk_operator_stake"),
    )
    op.create_table(
        "batch_challenge",
        sa.Column("batch", sa.String(66), nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("challenger", sa.String(42), nullable=False),
        sa.Column("leaf", sa.String(66), nullable=False),
        sa.Column("reason", sa.String(66), nullable=False),
        sa.Column("answer", sa.String(66), nullable=True),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("grounds", sa.String(66), nullable=True),
        sa.Column("deadline", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("batch", "index", "challenger", name="pk_batch_challenge"),
    )


def downgrade() -> None:
    for name in ("batch_challenge", "operator_stake", "operator_terms"):
        op.drop_table(name)
    with op.batch_alter_table("committed_batch") as table:
        for column in ("outcome", "until", "terms"):
            table.drop_column(column)
