"""Add `declarations`, what each feed and model declared when, and `snapshot_quality`, how good the data of a snapshot are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the tables, empty: what was declared before is not known."""
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "declarations",
        sa.Column("declaration_id", serial, nullable=False, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("fields_json", sa.Text(), nullable=False),
        sa.Column("sources_json", sa.Text()),
        sa.Column("actor", sa.String(63), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.Column("table_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("declaration_id", name="pk_declarations"),
        sa.CheckConstraint("kind IN ('feed', 'model')", name="ck_declarations_kind_known"),
    )
    op.create_index("ix_declarations_kind_name", "declarations", ["kind", "name", "declaration_id"])
    op.create_table(
        "snapshot_quality",
        sa.Column("snapshot", sa.String(32), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("complete", sa.Double(), nullable=False),
        sa.Column("valid", sa.Double(), nullable=False),
        sa.Column("as_expected", sa.Double(), nullable=False),
        sa.Column("assessed_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("snapshot", name="pk_snapshot_quality"),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_snapshot_quality_snapshot"),
    )
