"""Calls that a service relays for institutions."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from services.foundation.database import Instant

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "relayed_call",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("sender", sa.String(42), nullable=False),
        sa.Column("operation", sa.String(32), nullable=False),
        sa.Column("intent_key", sa.String(200), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relayed_call")),
        sa.UniqueConstraint("intent_key", name=op.f("uq_relayed_call_intent_key")),
    )
    op.create_index(op.f("ix_relayed_call_sender"), "relayed_call", ["sender"])


def downgrade() -> None:
    op.drop_table("relayed_call")
