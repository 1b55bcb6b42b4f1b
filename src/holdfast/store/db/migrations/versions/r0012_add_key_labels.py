"""Add `key_labels`, empty: before, callers sent labels by prediction id alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the table and its index."""
    op.create_table(
        "key_labels",
        sa.Column(
            "key_label_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
            comment="Number of the label.",
        ),
        sa.Column("model", sa.String(63), nullable=False, comment="Model whose rows it labels."),
        sa.Column("key_digest", sa.String(64), nullable=False, comment="SHA-256 of `key_json`."),
        sa.Column(
            "key_json",
            sa.Text,
            nullable=False,
            comment="Business key of the row: its columns and their values, canonical JSON.",
        ),
        sa.Column("value", sa.Double, nullable=False, comment="True value, 0 or 1."),
        sa.Column("source", sa.String(63), nullable=False, comment="Sender of the label."),
        sa.Column("received_at_us", sa.BigInteger, nullable=False, comment="When it was received."),
        sa.PrimaryKeyConstraint("key_label_id", name="pk_key_labels"),
        comment="Labels that callers sent by the key of a row, with every correction.",
    )
    op.create_index("ix_key_labels_model_key_digest", "key_labels", ["model", "key_digest"])
