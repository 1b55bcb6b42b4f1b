"""Tables of online features: point-in-time aggregates for servers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, String, Table, Text

from holdfast.store.db.schema.catalog import table_versions
from holdfast.store.db.schema.metadata import METADATA, SERIAL

online_features = Table(
    "online_features",
    METADATA,
    Column(
        "aggregate",
        String(80),
        primary_key=True,
        comment="<name>.<first 12 digits of its definition's SHA-256>.",
    ),
    Column("entity", String(255), primary_key=True, comment="Value of the aggregate's key."),
    Column("known_at_us", BigInteger, primary_key=True, comment="From when this value was known."),
    Column("value", Double, nullable=True, comment="The value; null if its rows were backed out."),
    Column(
        "table_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=False,
        comment="Table version that wrote it.",
    ),
    Index("ix_online_features_aggregate_table_version", "aggregate", "table_version"),
    comment="Values of aggregates. A server reads the newest row known at the request's time.",
)

online_definitions = Table(
    "online_definitions",
    METADATA,
    Column("aggregate", String(80), primary_key=True, comment="As in online_features."),
    Column("feed", String(63), nullable=False, index=True, comment="Feed whose rows it aggregates."),
    Column("definition_json", Text, nullable=False, comment="Declaration of the aggregate, canonical JSON."),
    Column(
        "table_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=False,
        comment="Table version up to which the values are complete.",
    ),
    comment="Aggregates whose values are kept up to date.",
)
