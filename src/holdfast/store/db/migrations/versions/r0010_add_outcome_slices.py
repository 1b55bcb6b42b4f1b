"""Add `outcome_slices`, empty: labels that were joined before are in no slice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "outcome_slices",
        sa.Column("prediction_id", sa.String(48), nullable=False),
        sa.Column("slices_json", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("prediction_id", name="pk_outcome_slices"),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["outcomes.prediction_id"], name="fk_outcome_slices_prediction_id"
        ),
    )
