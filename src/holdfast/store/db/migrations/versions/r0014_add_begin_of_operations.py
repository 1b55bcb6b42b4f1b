"""Add when loads, snapshots and trainings began, and `failed_operations`, empty: of earlier ones neither is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_ADDED = {
    "batches": "When its load began; null in loads of earlier releases.",
    "snapshots": "When its creation began; null in snapshots of earlier releases.",
    "versions": "When its training began; null in versions of earlier releases.",
}


def upgrade() -> None:
    """Add the columns and the table."""
    for table, comment in _ADDED.items():
        op.add_column(table, sa.Column("begun_at_us", sa.BigInteger, comment=comment))
    op.create_table(
        "failed_operations",
        sa.Column(
            "event_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="Event of the failure.",
        ),
        sa.Column("begun_at_us", sa.BigInteger, nullable=False, comment="When the operation began."),
        sa.Column(
            "source",
            sa.Text,
            nullable=False,
            comment="What it read: the source of a delivery, or a snapshot.",
        ),
        sa.PrimaryKeyConstraint("event_id", name="pk_failed_operations"),
        sa.ForeignKeyConstraint(["event_id"], ["events.event_id"], name="fk_failed_operations_event_id"),
        comment="Loads and trainings that failed or were refused: what their events do not state.",
    )
