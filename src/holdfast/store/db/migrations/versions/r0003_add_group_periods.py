"""Add the periods of a group to `admissions`: null for earlier loads, whose feeds declare them now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("admissions", sa.Column("group_period_us", sa.BigInteger))
    op.add_column("admissions", sa.Column("group_zone", sa.String(63)))
