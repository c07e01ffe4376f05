"""Federations as they stand on chain, with their rounds, in place of the draft that knew neither."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _digest(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(66), nullable=nullable)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, autoincrement=False, nullable=False)


def _big_number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, autoincrement=False, nullable=False)


def upgrade() -> None:
    # A draft federation has no config that its members signed and no id on chain: nothing of it can go on.
    op.drop_table("federation_member")
    op.drop_table("federation")
    op.create_table(
        "aggregator_account",
        sa.Column("address", sa.String(42), nullable=False),
        sa.PrimaryKeyConstraint("address", name="pk_aggregator_account"),
    )
    op.create_table(
        "federation",
        _digest("id"),
        sa.Column("founder", sa.String(42), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("rounds_total", sa.Integer, nullable=False),
        _digest("model"),
        sa.Column("intent_key", sa.String(200), nullable=False),
        sa.Column("result", sa.LargeBinary, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_federation"),
    )
    op.create_index("ix_federation_founder", "federation", ["founder"])
    op.create_index("ix_federation_state", "federation", ["state"])
    op.create_index("ix_federation_created_at_id", "federation", ["created_at", "id"])
    op.create_table(
        "federation_member",
        _digest("federation_id"),
        sa.Column("address", sa.String(42), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name="fk_federation_member_federation_id_federation"),
        sa.PrimaryKeyConstraint("federation_id", "address", name="pk_federation_member"),
    )
    op.create_index("ix_federation_member_address", "federation_member", ["address"])
    op.create_table(
        "global_model",
        _digest("federation_id"),
        _number("round"),
        _digest("record"),
        sa.Column("object_key", sa.String(200), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        _digest("file_digest"),
        sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name="fk_global_model_federation_id_federation"),
        sa.PrimaryKeyConstraint("federation_id", "round", name="pk_global_model"),
    )
    _create_rounds()
    _create_projections()


def _create_rounds() -> None:
    op.create_table(
        "attempt",
        _digest("federation_id"),
        _number("round"),
        _number("number"),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("stage_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("manifest", sa.JSON, nullable=False),
        _digest("manifest_digest"),
        _digest("ctx"),
        _digest("base_model"),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("survivors", sa.JSON, nullable=True),
        *(_digest(name, nullable=True) for name in ("survivors_hash", "masked_record", "aggregate", "model")),
        sa.Column("metrics", sa.JSON, nullable=True),
        sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name="fk_attempt_federation_id_federation"),
        sa.PrimaryKeyConstraint("federation_id", "round", "number", name="pk_attempt"),
        sa.UniqueConstraint("ctx", name="uq_attempt_ctx"),
    )
    op.create_index("ix_attempt_stage", "attempt", ["stage"])
    op.create_table(
        "round_message",
        _digest("federation_id"),
        _number("round"),
        _number("attempt"),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("sender", sa.String(42), nullable=False),
        _digest("digest"),
        sa.Column("body", sa.LargeBinary, nullable=True),
        sa.ForeignKeyConstraint(
            ["federation_id", "round", "attempt"],
            ["attempt.federation_id", "attempt.round", "attempt.number"],
            name="fk_round_message_federation_id_round_attempt_attempt",
        ),
        sa.PrimaryKeyConstraint("federation_id", "round", "attempt", "stage", "sender", name="pk_round_message"),
    )


def _create_projections() -> None:
    op.create_table(
        "onchain_federation",
        _digest("id"),
        sa.Column("founder", sa.String(42), nullable=False),
        _digest("config_hash"),
        _digest("created_transaction"),
        sa.Column("closed_by", sa.String(42), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_onchain_federation"),
    )
    happened = ("survivors_hash", "masked_record", "accumulator", "fixed_transaction", "model", "finalised_transaction")
    op.create_table(
        "onchain_round",
        _digest("federation_id"),
        _big_number("round"),
        _big_number("attempt"),
        *(_digest(name) for name in ("manifest_hash", "base_model", "opened_transaction")),
        *(_digest(name, nullable=True) for name in (*happened, "abandoned_transaction")),
        sa.PrimaryKeyConstraint("federation_id", "round", "attempt", name="pk_onchain_round"),
    )
    op.create_table(
        "onchain_commitment",
        _digest("ctx"),
        sa.Column("participant", sa.String(42), nullable=False),
        _digest("commitment"),
        sa.PrimaryKeyConstraint("ctx", "participant", name="pk_onchain_commitment"),
    )


def downgrade() -> None:
    tables = ("onchain_commitment", "onchain_round", "onchain_federation", "round_message", "attempt", "global_model")
    for table in (*tables, "federation_member", "federation", "aggregator_account"):
        op.drop_table(table)
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
        _digest("spec_digest"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("min_survivors >= threshold", name="survivors_reach_threshold"),
        sa.PrimaryKeyConstraint("id", name="pk_federation"),
    )
    op.create_index("ix_federation_founder", "federation", ["founder"])
    op.create_index("ix_federation_created_at_id", "federation", ["created_at", "id"])
    op.create_table(
        "federation_member",
        sa.Column("federation_id", sa.String(32), nullable=False),
        _number("position"),
        sa.Column("address", sa.String(42), nullable=False),
        sa.ForeignKeyConstraint(["federation_id"], ["federation.id"], name="fk_federation_member_federation_id_federation"),
        sa.PrimaryKeyConstraint("federation_id", "position", name="pk_federation_member"),
        sa.UniqueConstraint("federation_id", "address", name="uq_federation_member_federation_id_address"),
    )
    op.create_index("ix_federation_member_address", "federation_member", ["address"])
