"""Tables of back-outs: the plans, the loads that they remove, and what was derived from these loads."""

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
from holdfast.store.db.schema.metadata import METADATA, SERIAL, one_of
from holdfast.tables.backout import BackoutState

backouts = Table(
    "backouts",
    METADATA,
    Column("backout_id", SERIAL, primary_key=True, autoincrement=True, comment="Number of the back-out."),
    Column("feed", String(63), nullable=False, comment="Feed of the named batch."),
    Column("batch", String(63), nullable=False, comment="Batch that was named in the command."),
    Column("state", String(16), nullable=False, comment="Whether steps are left to do."),
    Column("plan_json", Text, nullable=False, comment="The steps as shown and executed, canonical JSON."),
    Column("steps_done", Integer, nullable=False, comment="How many steps are committed."),
    Column("reason", Text, nullable=False, comment="Why the batch is backed out."),
    Column("actor", String(63), nullable=False, comment="Actor that requested it."),
    Column("requested_at_us", BigInteger, nullable=False, comment="When it was requested."),
    Column("changed_at_us", BigInteger, nullable=False, comment="When the last step was committed."),
    one_of("state", BackoutState),
    Index("ix_backouts_feed_batch", "feed", "batch"),
    Index("ix_backouts_state", "state"),
    comment="One row per back-out. An interrupted one is resumed from `steps_done`.",
)

backout_batches = Table(
    "backout_batches",
    METADATA,
    Column(
        "backout_id",
        SERIAL,
        ForeignKey(backouts.c.backout_id),
        primary_key=True,
        comment="Back-out that removes the load.",
    ),
    Column("feed", String(63), primary_key=True, comment="Feed of the load."),
    Column("batch", String(63), primary_key=True, comment="Batch of the load."),
    Column("epoch", Integer, primary_key=True, comment="Epoch of the load."),
    Column(
        "removed_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=True,
        comment="First table version without the load; null until it is removed.",
    ),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    comment="Loads that a back-out removes: the named batch and those of its group.",
)

taints = Table(
    "taints",
    METADATA,
    Column("kind", String(16), primary_key=True, comment="Whether a snapshot or a version is tainted."),
    Column("subject", String(63), primary_key=True, comment="Name of the snapshot or version."),
    Column(
        "backout_id",
        SERIAL,
        ForeignKey(backouts.c.backout_id),
        primary_key=True,
        comment="Back-out that tainted it.",
    ),
    Column("tainted_at_us", BigInteger, nullable=False, comment="When it was tainted."),
    one_of("kind", ("snapshot", "version")),
    comment="Snapshots and versions derived from backed-out rows. A tainted version gets no new traffic.",
)
