"""The block that opened an attempt: its hash orders the neighbour graph."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # Attempts of before had no sparse graph, so none of them asks for it.
    op.add_column("onchain_round", sa.Column("opened_block", sa.String(66), nullable=True))


def downgrade() -> None:
    op.drop_column("onchain_round", "opened_block")
