"""Tables of the event log, its readers' cursors, and leases."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, String, Table, Text

from holdfast.store.db.schema.metadata import METADATA, SERIAL

events = Table(
    "events",
    METADATA,
    Column(
        "event_id", SERIAL, primary_key=True, autoincrement=True, comment="Number of the event; it rises."
    ),
    Column("at_us", BigInteger, nullable=False, comment="When it happened."),
    Column("kind", String(63), nullable=False, comment="What happened: noun and past participle."),
    Column("subject", String(127), nullable=False, index=True, comment="What it happened to."),
    Column("actor", String(63), nullable=False, comment="Actor that caused it: a user, or holdfast."),
    Column("explanation", Text, nullable=False, comment="Why it happened, with numbers."),
    Column("digest", String(64), nullable=False, comment="SHA-256 over the previous digest and this event."),
    comment="The event log. Each event is written in the transaction of its operation; digests form a chain.",
)

event_cursors = Table(
    "event_cursors",
    METADATA,
    Column("reader", String(63), primary_key=True, comment="Consumer of the event log, such as openlineage."),
    Column("event_id", BigInteger, nullable=False, comment="Last event that it has processed."),
    comment="Read position of each consumer of the event log.",
)

leases = Table(
    "leases",
    METADATA,
    Column("lease", String(63), primary_key=True, comment="Name of the lease."),
    Column("holder", String(63), nullable=False, comment="Process that holds it."),
    Column(
        "epoch",
        BigInteger,
        nullable=False,
        comment="Fencing token: rises with each change of holder, checked in each write.",
    ),
    Column("renewed_at_us", BigInteger, nullable=False, comment="When the holder last renewed it."),
    Column("duration_us", BigInteger, nullable=False, comment="How long it lasts without renewal."),
    CheckConstraint("epoch >= 1", name="epoch_positive"),
    comment="Leases: at most one process at a time runs each control loop.",
)
