"""Several aggregators: who they are in each federation, what they signed, who signed twice, and the sums that witnesses hold."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _table(name: str, *columns: sa.Column[Any], key: Sequence[str]) -> sa.Table:
    return op.create_table(
        name,
        sa.Column("federation_id", sa.String(66), nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name=f"fk_{name}_federation_id_federation"),
        sa.PrimaryKeyConstraint("federation_id", *key, name=f"pk_{name}"),
    )


def _attempt() -> tuple[sa.Column[int], sa.Column[int]]:
    round_number, number = (sa.Column(name, sa.Integer, autoincrement=False, nullable=False) for name in ("round", "attempt"))
    return round_number, number


def upgrade() -> None:
    aggregators = _table("federation_aggregator", sa.Column("address", sa.String(42), nullable=False), key=("address",))
    op.create_index("ix_federation_aggregator_address", "federation_aggregator", ["address"])
    _table(
        "approval",
        *_attempt(),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("signer", sa.String(42), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        key=("round", "attempt", "kind", "signer"),
    )
    op.create_index("ix_approval_taken_at", "approval", ["taken_at"])
    _table(
        "equivocation",
        sa.Column("signer", sa.String(42), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        key=("signer",),
    )
    _table(
        "held_sum",
        *_attempt(),
        sa.Column("masked_record", sa.String(66), nullable=False),
        sa.Column("object_key", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(66), nullable=True),
        key=("round", "attempt", "masked_record"),
    )
    federation = sa.table("federation", sa.column("id", sa.String), sa.column("config", sa.JSON))
    known = op.get_bind().execute(sa.select(federation.c.id, federation.c.config)).all()
    rows = [{"federation_id": identifier, "address": address} for identifier, config in known for address in config["aggregators"]]
    if rows:
        op.bulk_insert(aggregators, rows)


def downgrade() -> None:
    for table in ("held_sum", "equivocation", "approval", "federation_aggregator"):
        op.drop_table(table)
