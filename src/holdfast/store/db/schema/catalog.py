"""What makes up the tables: the loads that were published, the files, whose rows a file holds, and which version of the
tables each of them begins and ends with.
"""

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
    Column("table_version", SERIAL, primary_key=True, autoincrement=True),
    Column("committed_us", BigInteger, nullable=False),
    Column("reason", String(64), nullable=False),
    comment="One row per transaction that changed which files make up the tables. A version names a cut across all of them.",
)

batches = Table(
    "batches",
    METADATA,
    Column("feed", String(63), primary_key=True),
    Column("batch", String(63), primary_key=True),
    Column(
        "epoch",
        Integer,
        primary_key=True,
        comment="grows by one when a batch that was backed out is loaded again",
    ),
    Column("digest", String(64), nullable=False, comment="SHA-256 of the content as it was received"),
    Column("contract_hash", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("rows_received", BigInteger, nullable=False),
    Column("rows_loaded", BigInteger, nullable=False),
    Column("rows_quarantined", BigInteger, nullable=False),
    Column("event_low_us", BigInteger, nullable=True),
    Column("event_high_us", BigInteger, nullable=True),
    Column("table_version", SERIAL, ForeignKey(table_versions.c.table_version), nullable=False),
    Column("source", Text, nullable=False),
    one_of("state", ("published", "backed_out")),
    CheckConstraint("rows_received = rows_loaded + rows_quarantined", name="no_row_unaccounted"),
    CheckConstraint("epoch >= 0", name="epoch_counts"),
    comment="One row per load that was published. A load that was not published left nothing.",
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
    Column("path", String(255), primary_key=True, comment="relative to the store's root"),
    Column("table_name", String(63), nullable=False),
    Column("feed", String(63), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("event_low_us", BigInteger, nullable=True, comment="bounds of the event times of its valid rows"),
    Column("event_high_us", BigInteger, nullable=True),
    Column("added_version", SERIAL, ForeignKey(table_versions.c.table_version), nullable=False),
    Column("removed_version", SERIAL, ForeignKey(table_versions.c.table_version), nullable=True),
    CheckConstraint("removed_version IS NULL OR removed_version > added_version", name="removed_after_added"),
    Index("ix_files_table_name_added_version", "table_name", "added_version"),
    Index("ix_files_table_name_event_high_us", "table_name", "event_high_us"),
    comment="Immutable Parquet files; table t at version v is the files with added <= v and (removed is null or removed > v).",
)
Index(
    "ix_files_removed",
    files.c.table_name,
    files.c.removed_version,
    sqlite_where=text("removed_version IS NOT NULL"),
    postgresql_where=text("removed_version IS NOT NULL"),
)

file_batches = Table(
    "file_batches",
    METADATA,
    Column("path", String(255), ForeignKey(files.c.path), primary_key=True),
    Column("row_group", Integer, primary_key=True, comment="where the load's row groups begin"),
    Column("feed", String(63), nullable=False),
    Column("batch", String(63), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column(
        "removed_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=True,
        comment="from here on readers skip these row groups, although the file stays for the other loads in it",
    ),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    Index("ix_file_batches_feed_batch_epoch", "feed", "batch", "epoch"),
    comment="Whose rows a file holds: one load's, or after compaction those of several, each kept apart.",
)
Index(
    "ix_file_batches_removed",
    file_batches.c.removed_version,
    sqlite_where=text("removed_version IS NOT NULL"),
    postgresql_where=text("removed_version IS NOT NULL"),
)
