"""Add `outcomes.predicted_at_us`, the time of a prediction by the server's clock.

Where earlier code kept no such time, it is the event's, if that is within 60 days before the join, else the join's.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS = "outcome_id, prediction_id, model, version, arm, rollout_id, probability, label, event_time_us, joined_at_us"
_PREDICTED_AT = (
    "CASE WHEN event_time_us BETWEEN joined_at_us - 5184000000000 AND joined_at_us "
    "THEN event_time_us ELSE joined_at_us END"
)


def upgrade() -> None:
    """Add the column and its index. SQLite cannot add a column without a default, so there the table is copied."""
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("ix_outcomes_model_version_event_time_us", table_name="outcomes")
        op.rename_table("outcomes", "old_outcomes")
        op.create_table(
            "outcomes",
            sa.Column("outcome_id", sa.Integer, nullable=False),
            sa.Column("prediction_id", sa.String(48), nullable=False),
            sa.Column("model", sa.String(63), nullable=False),
            sa.Column("version", sa.String(32), nullable=False),
            sa.Column("arm", sa.String(16), nullable=False),
            sa.Column("rollout_id", sa.BigInteger),
            sa.Column("probability", sa.Double, nullable=False),
            sa.Column("label", sa.Double, nullable=False),
            sa.Column("event_time_us", sa.BigInteger, nullable=False),
            sa.Column("joined_at_us", sa.BigInteger, nullable=False),
            sa.Column("predicted_at_us", sa.BigInteger, nullable=False),
            sa.PrimaryKeyConstraint("outcome_id", name="pk_outcomes"),
            sa.CheckConstraint("arm IN ('champion', 'challenger', 'fallback')", name="ck_outcomes_arm_known"),
            sa.UniqueConstraint("prediction_id", name="uq_outcomes_prediction_id"),
            sa.ForeignKeyConstraint(
                ["prediction_id"], ["labels.prediction_id"], name="fk_outcomes_prediction_id"
            ),
        )
        op.execute(
            f"INSERT INTO outcomes ({_COLUMNS}, predicted_at_us) "  # noqa: S608 - our own texts alone
            f"SELECT {_COLUMNS}, {_PREDICTED_AT} FROM old_outcomes"
        )
        op.drop_table("old_outcomes")
    else:
        op.drop_index("ix_outcomes_model_version_event_time_us", table_name="outcomes")
        op.add_column("outcomes", sa.Column("predicted_at_us", sa.BigInteger))
        op.execute(f"UPDATE outcomes SET predicted_at_us = {_PREDICTED_AT}")  # noqa: S608 - our own text
        op.alter_column("outcomes", "predicted_at_us", nullable=False)
    op.create_index("ix_outcomes_model_predicted_at_us", "outcomes", ["model", "predicted_at_us"])
