"""Add `snapshot_slices.weight_selected`, null for the slices of earlier code, which kept no weight."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_COLUMNS = "snapshot, selection_hash, column_name, value, rows_total, rows_selected"


def upgrade() -> None:
    """Add the column. SQLite would write it after the constraints, so there the table is copied."""
    if op.get_bind().dialect.name != "sqlite":
        op.add_column("snapshot_slices", sa.Column("weight_selected", sa.Double))
        return
    op.rename_table("snapshot_slices", "old_snapshot_slices")
    op.create_table(
        "snapshot_slices",
        sa.Column("snapshot", sa.String(32), nullable=False),
        sa.Column("selection_hash", sa.String(64), nullable=False),
        sa.Column("column_name", sa.String(63), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.Column("rows_total", sa.BigInteger, nullable=False),
        sa.Column("rows_selected", sa.BigInteger, nullable=False),
        sa.Column("weight_selected", sa.Double),
        sa.PrimaryKeyConstraint(
            "snapshot", "selection_hash", "column_name", "value", name="pk_snapshot_slices"
        ),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_snapshot_slices_snapshot"),
    )
    op.execute(
        f"INSERT INTO snapshot_slices ({_COLUMNS}) SELECT {_COLUMNS} FROM old_snapshot_slices"  # noqa: S608 - our own texts
    )
    op.drop_table("old_snapshot_slices")
