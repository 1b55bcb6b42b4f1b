"""Tables of snapshots: their table version, the loads that they exclude, and their selections."""

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
    Column("snapshot", String(32), primary_key=True, comment="Name, with a digest of its content."),
    Column(
        "table_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=False,
        comment="Version of the tables that it reads.",
    ),
    Column("contract_hash", String(64), nullable=False, comment="Contract of the model's feed."),
    Column("created_at_us", BigInteger, nullable=False, comment="When it was created."),
    Index("ix_snapshots_table_version", "table_version"),
    comment="Named, immutable versions of the tables. Training always reads a snapshot.",
)

snapshot_tables = Table(
    "snapshot_tables",
    METADATA,
    Column(
        "snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True, comment="The snapshot."
    ),
    Column("table_name", String(63), primary_key=True, comment="Table that it reads."),
    Column("rows", BigInteger, nullable=False, comment="Rows of the table in the snapshot."),
    Column("files", Integer, nullable=False, comment="Files of the table in the snapshot."),
    comment="Size of each table in a snapshot.",
)

vacuumed_snapshots = Table(
    "vacuumed_snapshots",
    METADATA,
    Column(
        "snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True, comment="The snapshot."
    ),
    Column("vacuumed_at_us", BigInteger, nullable=False, comment="When its first file was removed."),
    comment="Snapshots that lost files to a vacuum: their contents are known but can no longer be read.",
)

snapshot_incomplete_loads = Table(
    "snapshot_incomplete_loads",
    METADATA,
    Column(
        "snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True, comment="The snapshot."
    ),
    Column("feed", String(63), primary_key=True, comment="Feed of the load."),
    Column("batch", String(63), primary_key=True, comment="Batch of the load."),
    Column("epoch", Integer, primary_key=True, comment="Epoch of the load."),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    comment="Loads excluded from a snapshot, because another feed of their group had not delivered the batch.",
)

snapshot_slices = Table(
    "snapshot_slices",
    METADATA,
    Column(
        "snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True, comment="The snapshot."
    ),
    Column("selection_hash", String(64), primary_key=True, comment="As in selections."),
    Column("column_name", String(63), primary_key=True, comment="Column that is sliced by."),
    Column("value", String(255), primary_key=True, comment="Value of the slice."),
    Column("rows_total", BigInteger, nullable=False, comment="Rows of the slice in the snapshot."),
    Column("rows_selected", BigInteger, nullable=False, comment="Rows left after quotas and caps."),
    comment="Rows of each slice before and after selection.",
)

selections = Table(
    "selections",
    METADATA,
    Column(
        "snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True, comment="The snapshot."
    ),
    Column("selection_hash", String(64), primary_key=True, comment="SHA-256 of selection and seed."),
    Column("seed", BigInteger, nullable=False, comment="Seed of the random choice."),
    Column(
        "selection_json", Text, nullable=False, comment="Filters, quotas, caps and weights, canonical JSON."
    ),
    Column(
        "removed_rows_json",
        Text,
        nullable=False,
        comment="Rows removed by each filter and cap, canonical JSON.",
    ),
    Column("rows_total", BigInteger, nullable=False, comment="Rows of the snapshot."),
    Column("rows_selected", BigInteger, nullable=False, comment="Rows for training."),
    comment="Rows of a snapshot chosen for training. Equal snapshot and selection give equal rows.",
)
