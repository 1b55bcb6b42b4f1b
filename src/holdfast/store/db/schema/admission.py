"""Whether what was delivered can be trusted: contracts, the state of feeds, what each load looked like, and what was wrong."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from holdfast.feeds.state_machine import State as FeedState
from holdfast.records import Level
from holdfast.store.db.schema.metadata import METADATA, SERIAL, one_of

contracts = Table(
    "contracts",
    METADATA,
    Column("contract_hash", String(64), primary_key=True),
    Column("contract", Text, nullable=False, comment="canonical JSON"),
    Column("first_us", BigInteger, nullable=False),
    comment="Every contract that judged a row, so that what changed between two can be told years later.",
)

feeds = Table(
    "feeds",
    METADATA,
    Column("feed", String(63), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("contract_hash", String(64), nullable=False, comment="of the newest delivery"),
    Column("reason", Text, nullable=False, comment="why it is in this state, in words and numbers"),
    Column("changed_us", BigInteger, nullable=False),
    one_of("state", FeedState),
    comment="One row per feed that ever delivered.",
)

admissions = Table(
    "admissions",
    METADATA,
    Column("feed", String(63), primary_key=True),
    Column("batch", String(63), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column(
        "rows_expected",
        BigInteger,
        nullable=True,
        comment="what the sender says he sent; null when he does not",
    ),
    Column(
        "profile",
        Text,
        nullable=False,
        comment="what the rows look like: counts by frozen bin, canonical JSON",
    ),
    Column("rows_digest", String(64), nullable=False, comment="of the valid rows, whatever their order"),
    Column(
        "values_digest",
        String(64),
        nullable=False,
        comment="of the valid rows without key and event time; empty where it was not asked for",
    ),
    Column(
        "sequence_low", BigInteger, nullable=True, comment="the lowest number of the feed's counting column"
    ),
    Column("sequence_high", BigInteger, nullable=True, comment="the highest"),
    Column("sequence_holes", BigInteger, nullable=True, comment="how many numbers between them are missing"),
    Column(
        "group_name",
        String(63),
        nullable=True,
        comment="the feed's group when it was loaded, empty for a feed of its own; null when nobody noted it",
    ),
    Column("event_time", String(63), nullable=True, comment="the column of the feed's event times then"),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    Index("ix_admissions_feed_rows_digest", "feed", "rows_digest"),
    Index("ix_admissions_feed_values_digest", "feed", "values_digest"),
    comment="What a batch looked like when it was let in; later batches are compared with it.",
)

load_references = Table(
    "load_references",
    METADATA,
    Column("feed", String(63), primary_key=True),
    Column("batch", String(63), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("column_name", String(63), primary_key=True),
    Column("to_feed", String(63), primary_key=True),
    Column("to_key", String(63), primary_key=True),
    Column("to_batch", String(63), primary_key=True),
    Column("to_epoch", Integer, primary_key=True),
    Column(
        "reaching_us",
        BigInteger,
        nullable=True,
        comment="how far back in event time it looked; null for all the rows there were",
    ),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    ForeignKeyConstraint(
        ["to_feed", "to_batch", "to_epoch"], ["batches.feed", "batches.batch", "batches.epoch"]
    ),
    Index("ix_load_references_to_feed_to_batch_to_epoch", "to_feed", "to_batch", "to_epoch"),
    comment="Whose keys the rows of a load were let in for: they refer to nothing when these loads go.",
)

violations = Table(
    "violations",
    METADATA,
    Column("violation", SERIAL, primary_key=True, autoincrement=True),
    Column("feed", String(63), nullable=False),
    Column("batch", String(63), nullable=False),
    Column("epoch", Integer, nullable=True, comment="null for a delivery that was refused"),
    Column(
        "check_name", String(63), nullable=False, comment="which expectation: volume, gap, schema, shift ..."
    ),
    Column("subject", String(127), nullable=False, comment="the column, slice or rule that it is about"),
    Column("level", String(16), nullable=False),
    Column("observed", Double, nullable=True),
    Column("bound", Double, nullable=True),
    Column("explanation", Text, nullable=False),
    Column("found_us", BigInteger, nullable=False),
    Column("accepted_us", BigInteger, nullable=True, comment="when a person said that it is meant to be so"),
    Column("accepted_by", String(63), nullable=True),
    one_of("level", Level),
    CheckConstraint("(accepted_us IS NULL) = (accepted_by IS NULL)", name="accepted_by_somebody"),
    Index("ix_violations_feed_batch", "feed", "batch"),
    comment="Expectations of a feed that a delivery did not meet.",
)
