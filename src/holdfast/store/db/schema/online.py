"""Tables of online features: point-in-time aggregates for servers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Index, String, Table, Text

from holdfast.store.db.schema.catalog import table_versions
from holdfast.store.db.schema.metadata import METADATA, key, load_key, optional, required

online_features = Table(
    "online_features",
    METADATA,
    key("aggregate", String(80), "<name>.<first 12 digits of its definition's SHA-256>."),
    key("entity", String(255), "Value of the aggregate's key."),
    key("known_at_us", BigInteger, "From when this value was known."),
    optional("value", Double, "The value; null if its rows were backed out."),
    required("table_version", table_versions.c.table_version, "Table version that wrote it."),
    Index("ix_online_features_aggregate_table_version", "aggregate", "table_version"),
    comment="Values of aggregates. A server reads the newest row known at the request's time.",
)

online_definitions = Table(
    "online_definitions",
    METADATA,
    key("aggregate", String(80), "As in online_features."),
    required("feed", String(63), "Feed whose rows it aggregates.", index=True),
    required("definition_json", Text, "Declaration of the aggregate, canonical JSON."),
    required(
        "table_version", table_versions.c.table_version, "Table version up to which the values are complete."
    ),
    comment="Aggregates whose values are kept up to date.",
)

online_withheld_loads = Table(
    "online_withheld_loads",
    METADATA,
    *load_key(),
    comment="Loads whose rows are in no online value: suspect ones, and those that wait for other feeds of their group.",
)
