"""The state of a server strategy beside each round's model."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("global_model", sa.Column("state_digest", sa.String(66), nullable=True))
    op.add_column("global_model", sa.Column("state_size", sa.BigInteger, nullable=True))


def downgrade() -> None:
    op.drop_column("global_model", "state_size")
    op.drop_column("global_model", "state_digest")
