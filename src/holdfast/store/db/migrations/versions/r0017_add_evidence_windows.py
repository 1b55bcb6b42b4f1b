"""Add `evidence_windows`, empty: before, what one round collected from one server was a window of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "evidence_windows",
        sa.Column("rollout_id", _NUMBER, nullable=False, comment="Rollout of the requests."),
        sa.Column(
            "minute_start_us",
            sa.BigInteger,
            nullable=False,
            comment="Minute in which servers answered them, by their clocks.",
        ),
        sa.Column(
            "share_ppm",
            sa.Integer,
            nullable=False,
            comment="Challenger's share under which they were answered; -1 if their records state none.",
        ),
        sa.Column(
            "opened_at_us",
            sa.BigInteger,
            nullable=False,
            comment="When the control loop opened the window.",
        ),
        sa.Column(
            "closes_at_us",
            sa.BigInteger,
            nullable=False,
            comment="When it is closed, with however few units it has.",
        ),
        sa.Column("units", sa.Integer, nullable=False, comment="Different units that it has."),
        sa.Column(
            "requests_json",
            sa.Text,
            nullable=False,
            comment="Requests that are no evidence yet, JSON; units are hashes.",
        ),
        sa.PrimaryKeyConstraint("rollout_id", "minute_start_us", "share_ppm", name="pk_evidence_windows"),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.rollout_id"], name="fk_evidence_windows_rollout_id"
        ),
        comment="Open windows of the tests of each rollout: what was collected and is not folded into its evidence yet.",
    )
