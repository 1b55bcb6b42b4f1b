"""Add `online_withheld_loads`, empty: the first comparison with what is to be withheld corrects the values."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "online_withheld_loads",
        sa.Column("feed", sa.String(63), nullable=False),
        sa.Column("batch", sa.String(63), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("feed", "batch", "epoch", name="pk_online_withheld_loads"),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_online_withheld_loads_feed_batch_epoch",
        ),
    )
