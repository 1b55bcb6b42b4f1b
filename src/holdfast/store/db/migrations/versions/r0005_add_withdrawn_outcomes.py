"""Add `withdrawn_outcomes`, empty: what was withdrawn before is not known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "withdrawn_outcomes",
        sa.Column("prediction_id", sa.String(48), nullable=False),
        sa.PrimaryKeyConstraint("prediction_id", name="pk_withdrawn_outcomes"),
    )
