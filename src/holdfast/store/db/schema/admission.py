"""Tables of admission: contracts, feed states, and the profile and violations of each batch."""

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
    Column(
        "contract_hash", String(64), primary_key=True, comment="SHA-256 of the contract's canonical JSON."
    ),
    Column("contract_json", Text, nullable=False, comment="The contract, canonical JSON."),
    Column("first_used_at_us", BigInteger, nullable=False, comment="When it first validated a batch."),
    comment="Every contract that validated a batch.",
)

feeds = Table(
    "feeds",
    METADATA,
    Column("feed", String(63), primary_key=True, comment="Name of the feed."),
    Column("state", String(16), nullable=False, comment="What may be done with its rows."),
    Column("contract_hash", String(64), nullable=False, comment="Contract of the newest delivery."),
    Column("reason", Text, nullable=False, comment="Why the feed is in this state."),
    Column(
        "changed_at_us", BigInteger, nullable=False, comment="When the state or the contract last changed."
    ),
    one_of("state", FeedState),
    comment="One row per feed that ever delivered.",
)

admissions = Table(
    "admissions",
    METADATA,
    Column("feed", String(63), primary_key=True, comment="Feed of the load."),
    Column("batch", String(63), primary_key=True, comment="Batch of the load."),
    Column("epoch", Integer, primary_key=True, comment="Epoch of the load."),
    Column("rows_expected", BigInteger, nullable=True, comment="Row count that the sender declared, if any."),
    Column(
        "profile_json", Text, nullable=False, comment="Counts by frozen bin of each column, canonical JSON."
    ),
    Column(
        "rows_digest",
        String(64),
        nullable=False,
        comment="SHA-256 of the valid rows, independent of their order.",
    ),
    Column(
        "values_digest",
        String(64),
        nullable=False,
        comment="SHA-256 of the valid rows without key and event time; empty if the feed does not compare it.",
    ),
    Column(
        "sequence_min", BigInteger, nullable=True, comment="Smallest value of the feed's sequence column."
    ),
    Column("sequence_max", BigInteger, nullable=True, comment="Largest value of the feed's sequence column."),
    Column("sequence_gaps", BigInteger, nullable=True, comment="How many numbers between them are missing."),
    Column(
        "group_name",
        String(63),
        nullable=True,
        comment="Group of the feed at load time; empty without a group, null for a load rebuilt from its files.",
    ),
    Column("event_time", String(63), nullable=True, comment="Name of the event time column at load time."),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    Index("ix_admissions_feed_rows_digest", "feed", "rows_digest"),
    Index("ix_admissions_feed_values_digest", "feed", "values_digest"),
    comment="Profile of each admitted load. Later batches are compared with it.",
)

batch_references = Table(
    "batch_references",
    METADATA,
    Column("feed", String(63), primary_key=True, comment="Feed of the referring load."),
    Column("batch", String(63), primary_key=True, comment="Batch of the referring load."),
    Column("epoch", Integer, primary_key=True, comment="Epoch of the referring load."),
    Column("column_name", String(63), primary_key=True, comment="Column that holds the reference."),
    Column("to_feed", String(63), primary_key=True, comment="Feed of the referenced load."),
    Column("to_key", String(63), primary_key=True, comment="Key column of the referenced feed."),
    Column("to_batch", String(63), primary_key=True, comment="Batch of the referenced load."),
    Column("to_epoch", Integer, primary_key=True, comment="Epoch of the referenced load."),
    Column(
        "lookback_start_us",
        BigInteger,
        nullable=True,
        comment="Earliest event time that was searched; null for all rows.",
    ),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    ForeignKeyConstraint(
        ["to_feed", "to_batch", "to_epoch"], ["batches.feed", "batches.batch", "batches.epoch"]
    ),
    Index("ix_batch_references_to_feed_to_batch_to_epoch", "to_feed", "to_batch", "to_epoch"),
    comment="Foreign keys between loads. A back-out of the referenced load leaves them dangling.",
)

violations = Table(
    "violations",
    METADATA,
    Column("violation_id", SERIAL, primary_key=True, autoincrement=True, comment="Number of the violation."),
    Column("feed", String(63), nullable=False, comment="Feed of the delivery."),
    Column("batch", String(63), nullable=False, comment="Batch of the delivery."),
    Column("epoch", Integer, nullable=True, comment="Epoch of the load; null for a refused delivery."),
    Column(
        "check_name",
        String(63),
        nullable=False,
        comment="Expectation that was violated, such as volume or drift.",
    ),
    Column("subject", String(127), nullable=False, comment="Column, slice or rule concerned."),
    Column(
        "level", String(16), nullable=False, comment="Severity: an error keeps the batch out of training."
    ),
    Column("observed", Double, nullable=True, comment="Observed value."),
    Column("bound", Double, nullable=True, comment="Limit of the expectation."),
    Column("explanation", Text, nullable=False, comment="What was found, with numbers."),
    Column("found_at_us", BigInteger, nullable=False, comment="When it was found."),
    Column("accepted_at_us", BigInteger, nullable=True, comment="When a user accepted it; null while open."),
    Column("accepted_by", String(63), nullable=True, comment="User that accepted it."),
    one_of("level", Level),
    CheckConstraint("(accepted_at_us IS NULL) = (accepted_by IS NULL)", name="accepted_at_and_by"),
    Index("ix_violations_feed_batch", "feed", "batch"),
    comment="Expectations of a feed that a delivery did not meet.",
)
