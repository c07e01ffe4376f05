"""Relays move to the foundation, whose history runs first."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_COLUMNS = "id, sender, operation, intent_key, created_at"


def upgrade() -> None:
    op.execute(f"INSERT INTO relayed_call ({_COLUMNS}) SELECT {_COLUMNS} FROM relay")
    op.drop_table("relay")


def downgrade() -> None:
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
    op.execute(f"INSERT INTO relay ({_COLUMNS}) SELECT {_COLUMNS} FROM relayed_call")
    op.execute("DELETE FROM relayed_call")
