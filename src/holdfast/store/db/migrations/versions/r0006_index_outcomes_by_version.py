"""Index `outcomes` by version: reports, lineage and back-outs read those of one version."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the index."""
    op.create_index(
        "ix_outcomes_model_version_predicted_at_us", "outcomes", ["model", "version", "predicted_at_us"]
    )
