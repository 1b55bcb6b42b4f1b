"""Add the identity of servers: boot id, release, host and private address. Prediction ids with the longer names need 64 characters.

Servers of before have none of them until they start again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_WIDENED = {
    "label_corrections": False,
    "labels": False,
    "outcome_slices": False,
    "outcomes": False,
    "quarantined_labels": True,
    "withdrawn_outcomes": False,
}
"""The tables that have the id of a prediction, and whether it may be null."""


def upgrade() -> None:
    """Add the columns, and widen those of ids."""
    for name, length, comment in (
        ("boot_id", 16, "Id of the process that last started; null in earlier releases."),
        ("release", 63, "Release that it runs; null in earlier releases."),
        ("host", 255, "Name of the host that it runs on; null in earlier releases."),
        ("private_address", 255, "URL for operators; null if it is `address`."),
    ):
        op.add_column("servers", sa.Column(name, sa.String(length), comment=comment))
    if op.get_bind().dialect.name == "sqlite":
        _widen_on_sqlite()
        return
    for table, is_optional in _WIDENED.items():
        op.alter_column(
            table,
            "prediction_id",
            type_=sa.String(64),
            existing_type=sa.String(48),
            existing_nullable=is_optional,
        )


def _widen_on_sqlite() -> None:
    # SQLite bounds no text by its declared length, so the rows stay as they are, and only the declaration changes:
    # https://www.sqlite.org/lang_altertable.html#making_other_kinds_of_table_schema_changes
    connection = op.get_bind()
    number = int(connection.exec_driver_sql("PRAGMA schema_version").scalar_one())
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    for table in _WIDENED:
        connection.execute(
            sa.text(
                "UPDATE sqlite_master SET sql = replace(sql, 'prediction_id VARCHAR(48)', 'prediction_id VARCHAR(64)') "
                "WHERE type = 'table' AND name = :table"
            ),
            {"table": table},
        )
    connection.exec_driver_sql(f"PRAGMA schema_version = {number + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
