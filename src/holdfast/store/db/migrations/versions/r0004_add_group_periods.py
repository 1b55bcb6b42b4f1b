"""Add the periods of a group to `admissions`: null for earlier loads, whose feeds declare them now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_COLUMNS = (
    "feed, batch, epoch, rows_expected, profile_json, rows_digest, values_digest, sequence_min, sequence_max, sequence_gaps, "
    "group_name, event_time"
)


def upgrade() -> None:
    """Add the columns. SQLite keeps an added column behind the constraints, so there the table is copied."""
    if op.get_bind().dialect.name == "sqlite":
        for digest in ("rows_digest", "values_digest"):
            op.drop_index(f"ix_admissions_feed_{digest}", table_name="admissions")
        op.rename_table("admissions", "old_admissions")
        op.create_table(
            "admissions",
            sa.Column("feed", sa.String(63), nullable=False),
            sa.Column("batch", sa.String(63), nullable=False),
            sa.Column("epoch", sa.Integer, nullable=False),
            sa.Column("rows_expected", sa.BigInteger),
            sa.Column("profile_json", sa.Text, nullable=False),
            sa.Column("rows_digest", sa.String(64), nullable=False),
            sa.Column("values_digest", sa.String(64), nullable=False),
            sa.Column("sequence_min", sa.BigInteger),
            sa.Column("sequence_max", sa.BigInteger),
            sa.Column("sequence_gaps", sa.BigInteger),
            sa.Column("group_name", sa.String(63)),
            sa.Column("event_time", sa.String(63)),
            sa.Column("group_period_us", sa.BigInteger),
            sa.Column("group_zone", sa.String(63)),
            sa.PrimaryKeyConstraint("feed", "batch", "epoch", name="pk_admissions"),
            sa.ForeignKeyConstraint(
                ["feed", "batch", "epoch"],
                ["batches.feed", "batches.batch", "batches.epoch"],
                name="fk_admissions_feed_batch_epoch",
            ),
        )
        op.execute(
            f"INSERT INTO admissions ({_COLUMNS}) SELECT {_COLUMNS} FROM old_admissions"  # noqa: S608 - our own text
        )
        op.drop_table("old_admissions")
        for digest in ("rows_digest", "values_digest"):
            op.create_index(f"ix_admissions_feed_{digest}", "admissions", ["feed", digest])
    else:
        op.add_column("admissions", sa.Column("group_period_us", sa.BigInteger))
        op.add_column("admissions", sa.Column("group_zone", sa.String(63)))
