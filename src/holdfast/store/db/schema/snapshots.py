"""Snapshots: which cut of the tables each names, what it leaves out, and which of its rows teach."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from holdfast.store.db.schema.catalog import table_versions
from holdfast.store.db.schema.metadata import METADATA, SERIAL

snapshots = Table(
    "snapshots",
    METADATA,
    Column("snapshot", String(32), primary_key=True),
    Column("table_version", SERIAL, ForeignKey(table_versions.c.table_version), nullable=False),
    Column("contract_hash", String(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Index("ix_snapshots_table_version", "table_version"),
    comment="A named cut: exact versions of every table that it reads. Nothing trains on 'latest'.",
)

snapshot_tables = Table(
    "snapshot_tables",
    METADATA,
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True),
    Column("table_name", String(63), primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
)

let_go = Table(
    "let_go",
    METADATA,
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    comment="Snapshots of which a vacuum removed files: what was in them is known, but cannot be read any more.",
)

snapshot_held_back = Table(
    "snapshot_held_back",
    METADATA,
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True),
    Column("feed", String(63), primary_key=True),
    Column("batch", String(63), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    comment="Loads that a snapshot leaves out, because another feed of their group has not delivered that batch yet.",
)

snapshot_slices = Table(
    "snapshot_slices",
    METADATA,
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True),
    Column("selection_hash", String(64), primary_key=True),
    Column("column_name", String(63), primary_key=True),
    Column("value", String(255), primary_key=True),
    Column("rows_found", BigInteger, nullable=False),
    Column("rows_taken", BigInteger, nullable=False),
    comment="How many rows of each slice a snapshot has, and how many its quotas and caps let through.",
)

selections = Table(
    "selections",
    METADATA,
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True),
    Column("selection_hash", String(64), primary_key=True, comment="SHA-256 of selection and seed"),
    Column("seed", BigInteger, nullable=False),
    Column("selection", Text, nullable=False, comment="filters, quotas, caps and weights, canonical JSON"),
    Column(
        "counts", Text, nullable=False, comment="rows that each filter, cap and rule struck, canonical JSON"
    ),
    Column("rows_found", BigInteger, nullable=False),
    Column("rows_taken", BigInteger, nullable=False),
    comment="Which rows of a snapshot teach. The same snapshot and selection give the same rows, bit for bit.",
)
