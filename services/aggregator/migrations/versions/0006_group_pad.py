"""Group keys: public keys of those who are to have one, and the dealing that counts."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "group_pad"
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


def downgrade() -> None:
    for table in ("group_key_dealing", "group_key_recipient"):
        op.drop_table(table)
