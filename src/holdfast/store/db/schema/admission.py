"""Tables of admission: contracts, feed states, and the profile and violations of each batch."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Double, Index, Integer, String, Table, Text

from holdfast.feeds.state_machine import State as FeedState
from holdfast.records import DeclarationKind, Level
from holdfast.store.db.schema.metadata import (
    METADATA,
    key,
    load_key,
    one_of,
    optional,
    refers_to_load,
    required,
    serial,
)

contracts = Table(
    "contracts",
    METADATA,
    key("contract_hash", String(64), "SHA-256 of the contract's canonical JSON."),
    required("contract_json", Text, "The contract, canonical JSON."),
    required("first_used_at_us", BigInteger, "When it first validated a batch."),
    comment="Every contract that validated a batch.",
)

declarations = Table(
    "declarations",
    METADATA,
    serial("declaration_id", "Number of the record; it rises."),
    required("kind", String(16), "Whether a feed or a model is declared."),
    required("name", String(63), "Name of the feed or of the model."),
    required("digest", String(64), "SHA-256 of the fields, and for a model of its source files."),
    required("fields_json", Text, "Each declared field by its path, without defaults, canonical JSON."),
    optional("sources_json", Text, "Text of each source file by its path; null for a feed."),
    required("actor", String(63), "User whose command first ran with it; holdfast for a feed."),
    required("recorded_at_us", BigInteger, "When it was first used, or used again after another one."),
    required("table_version", BigInteger, "For a feed, that of the first load it judged; else the newest."),
    one_of("kind", DeclarationKind),
    Index("ix_declarations_kind_name", "kind", "name", "declaration_id"),
    comment="Every declaration that was in force, in order. The newest of a feed or model is in force.",
)

feeds = Table(
    "feeds",
    METADATA,
    key("feed", String(63), "Name of the feed."),
    required("state", String(16), "What may be done with its rows."),
    required("contract_hash", String(64), "Contract of the newest delivery."),
    required("reason", Text, "Why the feed is in this state."),
    required("changed_at_us", BigInteger, "When the state or the contract last changed."),
    one_of("state", FeedState),
    comment="One row per feed that ever delivered.",
)

admissions = Table(
    "admissions",
    METADATA,
    *load_key(),
    optional("rows_expected", BigInteger, "Row count that the sender declared, if any."),
    required("profile_json", Text, "Counts by frozen bin of each column, canonical JSON."),
    required("rows_digest", String(64), "SHA-256 of the valid rows, independent of their order."),
    required(
        "values_digest",
        String(64),
        "SHA-256 of the valid rows without key and event time; empty if the feed does not compare it.",
    ),
    optional("sequence_min", BigInteger, "Smallest value of the feed's sequence column."),
    optional("sequence_max", BigInteger, "Largest value of the feed's sequence column."),
    optional("sequence_gaps", BigInteger, "How many numbers between them are missing."),
    optional(
        "group_name",
        String(63),
        "Group of the feed at load time; empty without a group, null for a load rebuilt from its files.",
    ),
    optional("event_time", String(63), "Name of the event time column at load time."),
    optional(
        "group_period_us",
        BigInteger,
        "Length of the periods of the group at load time; null without a group.",
    ),
    optional("group_zone", String(63), "Time zone in which these periods begin."),
    Index("ix_admissions_feed_rows_digest", "feed", "rows_digest"),
    Index("ix_admissions_feed_values_digest", "feed", "values_digest"),
    comment="Profile of each admitted load. Later batches are compared with it.",
)

batch_references = Table(
    "batch_references",
    METADATA,
    key("feed", String(63), "Feed of the referring load."),
    key("batch", String(63), "Batch of the referring load."),
    key("epoch", Integer, "Epoch of the referring load."),
    key("column_name", String(63), "Column that holds the reference."),
    key("to_feed", String(63), "Feed of the referenced load."),
    key("to_key", String(63), "Key column of the referenced feed."),
    key("to_batch", String(63), "Batch of the referenced load."),
    key("to_epoch", Integer, "Epoch of the referenced load."),
    optional("lookback_start_us", BigInteger, "Earliest event time that was searched; null for all rows."),
    refers_to_load("feed", "batch", "epoch"),
    refers_to_load("to_feed", "to_batch", "to_epoch"),
    Index("ix_batch_references_to_feed_to_batch_to_epoch", "to_feed", "to_batch", "to_epoch"),
    comment="Foreign keys between loads. A back-out of the referenced load leaves them dangling.",
)

violations = Table(
    "violations",
    METADATA,
    serial("violation_id", "Number of the violation."),
    required("feed", String(63), "Feed of the delivery."),
    required("batch", String(63), "Batch of the delivery."),
    optional("epoch", Integer, "Epoch of the load; null for a refused delivery."),
    required("check_name", String(63), "Expectation that was violated, such as volume or drift."),
    required("subject", String(127), "Column, slice or rule concerned."),
    required("level", String(16), "Severity: an error keeps the batch out of training."),
    optional("observed", Double, "Observed value."),
    optional("bound", Double, "Limit of the expectation."),
    required("explanation", Text, "What was found, with numbers."),
    required("found_at_us", BigInteger, "When it was found."),
    optional("accepted_at_us", BigInteger, "When a user accepted it; null while open."),
    optional("accepted_by", String(63), "User that accepted it."),
    one_of("level", Level),
    CheckConstraint("(accepted_at_us IS NULL) = (accepted_by IS NULL)", name="accepted_at_and_by"),
    Index("ix_violations_feed_batch", "feed", "batch"),
    comment="Expectations of a feed that a delivery did not meet.",
)
