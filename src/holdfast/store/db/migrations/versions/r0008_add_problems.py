"""Add `problems`, empty: the control loop finds those that last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_OPEN = sa.text("ended_event_id IS NULL")


def upgrade() -> None:
    """Create the table and its index."""
    op.create_table(
        "problems",
        sa.Column(
            "problem_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(31), nullable=False),
        sa.Column("subject", sa.String(127), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("explanation", sa.Text, nullable=False),
        sa.Column("next_command", sa.Text, nullable=False),
        sa.Column("found_event_id", sa.BigInteger, nullable=False),
        sa.Column("ended_event_id", sa.BigInteger),
        sa.PrimaryKeyConstraint("problem_id", name="pk_problems"),
        sa.ForeignKeyConstraint(["found_event_id"], ["events.event_id"], name="fk_problems_found_event_id"),
        sa.ForeignKeyConstraint(["ended_event_id"], ["events.event_id"], name="fk_problems_ended_event_id"),
        sa.UniqueConstraint("found_event_id", name="uq_problems_found_event_id"),
        sa.CheckConstraint(
            "severity IN ('critical', 'error', 'warning')", name=op.f("ck_problems_severity_known")
        ),
    )
    op.create_index(
        "uq_problems_open",
        "problems",
        ["model", "kind", "subject"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
