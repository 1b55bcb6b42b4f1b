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

from holdfast.feeds.machine import State as FeedState
from holdfast.records import Level
from holdfast.store.schema.metadata import METADATA, SERIAL, one_of

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
        "sequence_high", BigInteger, nullable=True, comment="the highest number of the feed's counting column"
    ),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    Index("ix_admissions_feed_rows_digest", "feed", "rows_digest"),
    Index("ix_admissions_feed_values_digest", "feed", "values_digest"),
    comment="What a batch looked like when it was let in; later batches are compared with it.",
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
