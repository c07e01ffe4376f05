"""Who leads a federation, and what taking the lead over needs: openers, deadlines and results by the chain, metrics of missed rounds."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# Of rounds of before they stay empty: their federations had one aggregator, or neither a state nor a rule for stopping.
PROJECTED = {
    "opened_by": sa.String(42),
    "deadline": sa.BigInteger(),
    "survivors": sa.JSON(),
    "aggregate": sa.String(66),
    "metrics": sa.String(66),
}


def upgrade() -> None:
    op.add_column("federation", sa.Column("leader", sa.String(42), nullable=True))
    for name, kind in PROJECTED.items():
        op.add_column("onchain_round", sa.Column(name, kind, nullable=True))
    op.create_table(
        "round_metrics",
        sa.Column("federation_id", sa.String(66), nullable=False),
        sa.Column("round", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(66), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name="fk_round_metrics_federation_id_federation"),
        sa.PrimaryKeyConstraint("federation_id", "round", "digest", name="pk_round_metrics"),
    )


def downgrade() -> None:
    op.drop_table("round_metrics")
    for name in PROJECTED:
        op.drop_column("onchain_round", name)
    op.drop_column("federation", "leader")
