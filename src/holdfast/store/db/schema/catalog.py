"""Tables of the catalog: table versions, loads, files, and the row groups of each load."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from holdfast.store.db.schema.metadata import METADATA, SERIAL, one_of

table_versions = Table(
    "table_versions",
    METADATA,
    Column("table_version", SERIAL, primary_key=True, autoincrement=True, comment="Number of the version."),
    Column("committed_at_us", BigInteger, nullable=False, comment="When the transaction was written."),
    Column("reason", String(64), nullable=False, comment="Operation that changed the tables."),
    comment="One row per transaction that changed the files of a table. A version covers all tables.",
)

batches = Table(
    "batches",
    METADATA,
    Column("feed", String(63), primary_key=True, comment="Feed that delivered the batch."),
    Column("batch", String(63), primary_key=True, comment="The sender's id of the batch."),
    Column("epoch", Integer, primary_key=True, comment="Load number: 0, then one more after each back-out."),
    Column("digest", String(64), nullable=False, comment="SHA-256 of the content as received."),
    Column("contract_hash", String(64), nullable=False, comment="Contract that validated it."),
    Column("state", String(16), nullable=False, comment="Whether the load is published or backed out."),
    Column("rows_received", BigInteger, nullable=False, comment="Rows of the delivery."),
    Column("rows_loaded", BigInteger, nullable=False, comment="Valid rows."),
    Column("rows_quarantined", BigInteger, nullable=False, comment="Rejected rows."),
    Column("event_time_min_us", BigInteger, nullable=True, comment="Earliest event time; null without rows."),
    Column("event_time_max_us", BigInteger, nullable=True, comment="Latest event time; null without rows."),
    Column(
        "table_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=False,
        comment="First table version with the load.",
    ),
    Column("source", Text, nullable=False, comment="Where the batch was read from."),
    one_of("state", ("published", "backed_out")),
    CheckConstraint("rows_received = rows_loaded + rows_quarantined", name="rows_add_up"),
    CheckConstraint("epoch >= 0", name="epoch_not_negative"),
    comment="One row per published load. A batch that is loaded again after a back-out gets a new epoch.",
)
Index(
    "uq_batches_one_live_load",
    batches.c.feed,
    batches.c.batch,
    unique=True,
    sqlite_where=text("state = 'published'"),
    postgresql_where=text("state = 'published'"),
)
Index(
    "uq_batches_one_live_load_of_a_content",
    batches.c.feed,
    batches.c.digest,
    unique=True,
    sqlite_where=text("state = 'published'"),
    postgresql_where=text("state = 'published'"),
)
Index("ix_batches_feed_table_version", batches.c.feed, batches.c.table_version)

files = Table(
    "files",
    METADATA,
    Column("path", String(255), primary_key=True, comment="Path relative to the store's root."),
    Column("table_name", String(63), nullable=False, comment="Table that the file belongs to."),
    Column("feed", String(63), nullable=False, comment="Feed of its rows."),
    Column("rows", BigInteger, nullable=False, comment="Number of rows."),
    Column("bytes", BigInteger, nullable=False, comment="Size of the file."),
    Column("sha256", String(64), nullable=False, comment="SHA-256 of the file."),
    Column("event_time_min_us", BigInteger, nullable=True, comment="Earliest event time of its valid rows."),
    Column("event_time_max_us", BigInteger, nullable=True, comment="Latest event time of its valid rows."),
    Column(
        "added_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=False,
        comment="First table version with the file.",
    ),
    Column(
        "removed_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=True,
        comment="First table version without the file; null while it is current.",
    ),
    CheckConstraint("removed_version IS NULL OR removed_version > added_version", name="removed_after_added"),
    Index("ix_files_table_name_added_version", "table_name", "added_version"),
    Index("ix_files_table_name_event_time_max_us", "table_name", "event_time_max_us"),
    comment="Immutable Parquet files. Version v of a table: files with added <= v and (removed null or > v).",
)
Index(
    "ix_files_removed",
    files.c.table_name,
    files.c.removed_version,
    sqlite_where=text("removed_version IS NOT NULL"),
    postgresql_where=text("removed_version IS NOT NULL"),
)

file_row_groups = Table(
    "file_row_groups",
    METADATA,
    Column("path", String(255), ForeignKey(files.c.path), primary_key=True, comment="The file."),
    Column("row_group", Integer, primary_key=True, comment="First row group of the load in the file."),
    Column("feed", String(63), nullable=False, comment="Feed of the load."),
    Column("batch", String(63), nullable=False, comment="Batch of the load."),
    Column("epoch", Integer, nullable=False, comment="Epoch of the load."),
    Column("rows", BigInteger, nullable=False, comment="Rows of the load in the file."),
    Column(
        "removed_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=True,
        comment="First table version in which readers skip these row groups; the file stays for other loads.",
    ),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    Index("ix_file_row_groups_feed_batch_epoch", "feed", "batch", "epoch"),
    comment="Loads of each file: one when written, several after compaction, each in row groups of its own.",
)
Index(
    "ix_file_row_groups_removed",
    file_row_groups.c.removed_version,
    sqlite_where=text("removed_version IS NOT NULL"),
    postgresql_where=text("removed_version IS NOT NULL"),
)
