"""Point-in-time aggregates as servers read them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, String, Table, Text

from holdfast.store.db.schema.catalog import table_versions
from holdfast.store.db.schema.metadata import METADATA, SERIAL

online_features = Table(
    "online_features",
    METADATA,
    Column(
        "aggregate", String(80), primary_key=True, comment="<name>.<12 digits of its definition's SHA-256>"
    ),
    Column("entity", String(255), primary_key=True),
    Column("known_us", BigInteger, primary_key=True, comment="the moment from which this value was known"),
    Column("value", Double, nullable=True, comment="null where the rows behind it were backed out"),
    Column("table_version", SERIAL, ForeignKey(table_versions.c.table_version), nullable=False),
    Index("ix_online_features_aggregate_table_version", "aggregate", "table_version"),
    comment="Point-in-time aggregates as servers read them: the newest row known by the request's time.",
)

online_definitions = Table(
    "online_definitions",
    METADATA,
    Column("aggregate", String(80), primary_key=True, comment="as in online_features"),
    Column("feed", String(63), nullable=False, index=True),
    Column("definition", Text, nullable=False, comment="the declaration as canonical JSON"),
    Column(
        "table_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=False,
        comment="up to here every row of the feed is in the values",
    ),
    comment="Aggregates whose values are kept up to date, so that a version finds those of its own definition.",
)
