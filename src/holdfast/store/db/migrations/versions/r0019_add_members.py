"""Add `members` and `server_conflicts`, both empty: a server gets its row with its first heartbeat."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "members",
        sa.Column("server", sa.String(63), nullable=False),
        sa.Column("started_at_us", sa.BigInteger, nullable=False),
        sa.Column("kernel_id", sa.String(36), nullable=False),
        sa.Column("beats", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.String(16), nullable=False),
        sa.Column("heard_at_us", sa.BigInteger, nullable=False),
        sa.Column("stated", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since_us", sa.BigInteger, nullable=False),
        sa.Column("forgotten_at_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("server", name="pk_members"),
        sa.CheckConstraint("stated IN ('serving', 'draining', 'ended')", name="ck_members_stated_known"),
        sa.CheckConstraint(
            "state IN ('present', 'draining', 'silent', 'gone', 'lost')", name="ck_members_state_known"
        ),
        sa.ForeignKeyConstraint(["server"], ["servers.server"], name="fk_members_server"),
    )
    op.create_table(
        "server_conflicts",
        sa.Column("server", sa.String(63), nullable=False),
        sa.Column("boot_id", sa.String(16), nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("log_directory", sa.String(255), nullable=False),
        sa.Column("heard_at_us", sa.BigInteger, nullable=False),
        sa.Column("explanation", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("server", "boot_id", name="pk_server_conflicts"),
        sa.ForeignKeyConstraint(["server"], ["servers.server"], name="fk_server_conflicts_server"),
    )
