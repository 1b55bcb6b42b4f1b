"""Add `queued_rollouts`: a newer version waits for the rollout under way instead of being refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table, empty."""
    op.create_table(
        "queued_rollouts",
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("policy_json", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(63), nullable=False),
        sa.Column("queued_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_queued_rollouts"),
        sa.ForeignKeyConstraint(["version"], ["versions.version"], name="fk_queued_rollouts_version"),
    )
