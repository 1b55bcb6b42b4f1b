"""Tables of the catalog: table versions, loads, files, and the row groups of each load."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, String, Table, Text

from holdfast.store.db.schema.metadata import (
    METADATA,
    key,
    one_of,
    optional,
    partial_index,
    refers_to_load,
    required,
    serial,
)

table_versions = Table(
    "table_versions",
    METADATA,
    serial("table_version", "Number of the version."),
    required("committed_at_us", BigInteger, "When the transaction was written."),
    required("reason", String(64), "Operation that changed the tables."),
    comment="One row per transaction that changed the files of a table. A version covers all tables.",
)

batches = Table(
    "batches",
    METADATA,
    key("feed", String(63), "Feed that delivered the batch."),
    key("batch", String(63), "The sender's id of the batch."),
    key("epoch", Integer, "Load number: 0, then one more after each back-out."),
    required("digest", String(64), "SHA-256 of the content as received."),
    required("contract_hash", String(64), "Contract that validated it."),
    required("state", String(16), "Whether the load is published or backed out."),
    required("rows_received", BigInteger, "Rows of the delivery."),
    required("rows_loaded", BigInteger, "Valid rows."),
    required("rows_quarantined", BigInteger, "Rejected rows."),
    optional("event_time_min_us", BigInteger, "Earliest event time; null without rows."),
    optional("event_time_max_us", BigInteger, "Latest event time; null without rows."),
    required("table_version", table_versions.c.table_version, "First table version with the load."),
    required("source", Text, "Where the batch was read from."),
    optional("begun_at_us", BigInteger, "When its load began; null in loads of earlier releases."),
    one_of("state", ("published", "backed_out")),
    CheckConstraint("rows_received = rows_loaded + rows_quarantined", name="rows_add_up"),
    CheckConstraint("epoch >= 0", name="epoch_not_negative"),
    partial_index("uq_batches_one_live_load", "feed", "batch", where="state = 'published'", unique=True),
    partial_index(
        "uq_batches_one_live_load_of_a_content", "feed", "digest", where="state = 'published'", unique=True
    ),
    Index("ix_batches_feed_table_version", "feed", "table_version"),
    comment="One row per published load. A batch that is loaded again after a back-out gets a new epoch.",
)

files = Table(
    "files",
    METADATA,
    key("path", String(255), "Path relative to the store's root."),
    required("table_name", String(63), "Table that the file belongs to."),
    required("feed", String(63), "Feed of its rows."),
    required("rows", BigInteger, "Number of rows."),
    required("bytes", BigInteger, "Size of the file."),
    required("sha256", String(64), "SHA-256 of the file."),
    optional("event_time_min_us", BigInteger, "Earliest event time of its valid rows."),
    optional("event_time_max_us", BigInteger, "Latest event time of its valid rows."),
    required("added_version", table_versions.c.table_version, "First table version with the file."),
    optional(
        "removed_version",
        table_versions.c.table_version,
        "First table version without the file; null while it is current.",
    ),
    CheckConstraint("removed_version IS NULL OR removed_version > added_version", name="removed_after_added"),
    Index("ix_files_table_name_added_version", "table_name", "added_version"),
    Index("ix_files_table_name_event_time_max_us", "table_name", "event_time_max_us"),
    partial_index("ix_files_removed", "table_name", "removed_version", where="removed_version IS NOT NULL"),
    comment="Immutable Parquet files. Version v of a table: files with added <= v and (removed null or > v).",
)

file_row_groups = Table(
    "file_row_groups",
    METADATA,
    key("path", files.c.path, "The file."),
    key("row_group", Integer, "First row group of the load in the file."),
    required("feed", String(63), "Feed of the load."),
    required("batch", String(63), "Batch of the load."),
    required("epoch", Integer, "Epoch of the load."),
    required("rows", BigInteger, "Rows of the load in the file."),
    optional(
        "removed_version",
        table_versions.c.table_version,
        "First table version in which readers skip these row groups; the file stays for other loads.",
    ),
    refers_to_load("feed", "batch", "epoch"),
    Index("ix_file_row_groups_feed_batch_epoch", "feed", "batch", "epoch"),
    partial_index("ix_file_row_groups_removed", "removed_version", where="removed_version IS NOT NULL"),
    comment="Loads of each file: one when written, several after compaction, each in row groups of its own.",
)
