"""Add what decides over labels: the secret of ids, declared corrections, corrected and quarantined labels, and when to look.

Servers of before have ids without a tag, so `tagged_from_segment` is null. Labels that wait are due at once.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from holdfast.feedback import parse_id

revision = "0015"
down_revision = "0014"

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_WAITS = sa.text("joined = 0")


def upgrade() -> None:
    """Add the columns and tables, and make every waiting label due."""
    _add_columns()
    _add_places()
    _add_tables()


def _add_columns() -> None:
    op.add_column(
        "servers",
        sa.Column(
            "tagged_from_segment",
            sa.Integer,
            comment="First log segment whose ids all have a tag; null if none is known.",
        ),
    )
    for name, kind, comment in (
        ("server", sa.String(63), "While it waits: server that its id names."),
        ("segment", sa.Integer, "While it waits: log segment that its id names."),
        ("number", sa.BigInteger, "While it waits: record number that its id names."),
        ("look_at_us", sa.BigInteger, "While it waits: when it is decided again."),
    ):
        op.add_column("labels", sa.Column(name, kind, comment=comment))
    for name, columns in (
        ("ix_labels_look_at_us", ["look_at_us", "prediction_id"]),
        ("ix_labels_server_segment_number", ["server", "segment", "number"]),
        ("ix_labels_source_look_at_us", ["source", "look_at_us"]),
    ):
        op.create_index(name, "labels", columns, sqlite_where=_WAITS, postgresql_where=_WAITS)
    # With it SQLite would read every label that waits.
    op.drop_index("ix_labels_joined", "labels")


def _add_places() -> None:
    connection = op.get_bind()
    waiting = connection.execute(sa.text("SELECT prediction_id FROM labels WHERE joined = 0")).scalars().all()
    places = [(text, place) for text in waiting if (place := parse_id(text)) is not None]
    if places:
        connection.execute(
            sa.text(
                "UPDATE labels SET server = :server, segment = :segment, number = :number, look_at_us = 0 "
                "WHERE prediction_id = :id"
            ),
            [
                {"id": text, "server": place.server, "segment": place.segment, "number": place.number}
                for text, place in places
            ],
        )


def _add_tables() -> None:
    op.create_table(
        "label_corrections",
        sa.Column("label_correction_id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("prediction_id", sa.String(48), nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("source", sa.String(63), nullable=False),
        sa.Column("received_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("label_correction_id", name="pk_label_corrections"),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["labels.prediction_id"], name="fk_label_corrections_prediction_id"
        ),
    )
    op.create_index("ix_label_corrections_prediction_id", "label_corrections", ["prediction_id"])
    op.create_table(
        "quarantined_labels",
        sa.Column("quarantined_label_id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("prediction_id", sa.String(48)),
        sa.Column("key_json", sa.Text),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("source", sa.String(63), nullable=False),
        sa.Column("received_at_us", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("quarantined_label_id", name="pk_quarantined_labels"),
    )
    op.create_index("ix_quarantined_labels_model_source", "quarantined_labels", ["model", "source"])
    op.create_table(
        "label_policies",
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("corrections", sa.String(16), nullable=False),
        sa.Column("declared_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_label_policies"),
        sa.CheckConstraint("corrections IN ('latest', 'first')", name="ck_label_policies_corrections_known"),
    )
    op.create_table(
        "secrets",
        sa.Column("purpose", sa.String(31), nullable=False),
        sa.Column("secret_hex", sa.String(64), nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("purpose", name="pk_secrets"),
    )
