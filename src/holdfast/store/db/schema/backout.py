"""Taking loads back: the plans that were begun, the loads that they remove, and what was made from them."""

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
from holdfast.tables.backout import State as BackoutState

backouts = Table(
    "backouts",
    METADATA,
    Column("backout", SERIAL, primary_key=True, autoincrement=True),
    Column("feed", String(63), nullable=False),
    Column("batch", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column(
        "plan",
        Text,
        nullable=False,
        comment="the steps, as they were shown and as they are executed, canonical JSON",
    ),
    Column("steps_done", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", String(63), nullable=False),
    Column("asked_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    one_of("state", BackoutState),
    Index("ix_backouts_feed_batch", "feed", "batch"),
    Index("ix_backouts_state", "state"),
    comment="One row per back-out that was begun. It is carried on from `steps_done`, whoever runs it.",
)

backout_batches = Table(
    "backout_batches",
    METADATA,
    Column("backout", SERIAL, ForeignKey(backouts.c.backout), primary_key=True),
    Column("feed", String(63), primary_key=True),
    Column("batch", String(63), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column(
        "removed_version",
        SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=True,
        comment="the version from which on the load is in no table; null until it was taken out",
    ),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    comment="The loads that a back-out removes: the one that was named and those of its group.",
)

taints = Table(
    "taints",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("subject", String(63), primary_key=True, comment="the snapshot's or the version's name"),
    Column("backout", SERIAL, ForeignKey(backouts.c.backout), primary_key=True),
    Column("tainted_us", BigInteger, nullable=False),
    one_of("kind", ("snapshot", "version")),
    comment="What was made from rows that were backed out. A tainted version is never given traffic again.",
)
