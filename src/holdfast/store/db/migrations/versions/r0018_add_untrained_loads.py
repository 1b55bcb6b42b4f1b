"""Add what versions did not train on: `untrained_loads`, empty, and columns that are null for what was made before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("versions", sa.Column("training_digest", sa.String(64)))
    op.add_column("taints", sa.Column("row_use", sa.String(16)))
    op.create_table(
        "untrained_loads",
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("feed", sa.String(63), nullable=False),
        sa.Column("batch", sa.String(63), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("rows_held_out", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("version", "feed", "batch", "epoch", name="pk_untrained_loads"),
        sa.ForeignKeyConstraint(["version"], ["versions.version"], name="fk_untrained_loads_version"),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_untrained_loads_feed_batch_epoch",
        ),
    )
