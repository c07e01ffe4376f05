"""Group pads: public keys of those who have a group key, the dealing that counts, opened sums, and the results that members state."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "group_key_recipient",
        sa.Column("federation_id", sa.String(66), nullable=False),
        sa.Column("recipient", sa.String(42), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name="fk_group_key_recipient_federation_id_federation"),
        sa.PrimaryKeyConstraint("federation_id", "recipient", name="pk_group_key_recipient"),
    )
    op.create_table(
        "group_key_dealing",
        sa.Column("federation_id", sa.String(66), nullable=False),
        sa.Column("dealer", sa.String(42), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("dealt_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name="fk_group_key_dealing_federation_id_federation"),
        sa.PrimaryKeyConstraint("federation_id", name="pk_group_key_dealing"),
    )
    for table, columns in (
        ("member_result", [sa.Column("member", sa.String(42), nullable=False), sa.Column("document", sa.JSON, nullable=False)]),
        (
            "opened_sum",
            [
                sa.Column("object_key", sa.String(200), nullable=False),
                sa.Column("size", sa.BigInteger, nullable=False),
                sa.Column("digest", sa.String(66), nullable=False),
            ],
        ),
    ):
        op.create_table(
            table,
            sa.Column("federation_id", sa.String(66), nullable=False),
            sa.Column("round", sa.Integer, autoincrement=False, nullable=False),
            sa.Column("attempt", sa.Integer, autoincrement=False, nullable=False),
            *columns,
            sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name=f"fk_{table}_federation_id_federation"),
            sa.PrimaryKeyConstraint(
                "federation_id", "round", "attempt", *(["member"] if table == "member_result" else []), name=f"pk_{table}"
            ),
        )
    op.add_column("attempt", sa.Column("metrics_digest", sa.String(66), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("attempt") as batch:
        batch.drop_column("metrics_digest")
    for table in ("opened_sum", "member_result", "group_key_dealing", "group_key_recipient"):
        op.drop_table(table)
