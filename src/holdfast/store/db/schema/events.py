"""Tables of the event log, its readers' cursors, and leases."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, String, Table, Text

from holdfast.store.db.schema.metadata import METADATA, key, required, serial

events = Table(
    "events",
    METADATA,
    serial("event_id", "Number of the event; it rises."),
    required("at_us", BigInteger, "When it happened."),
    required("kind", String(63), "What happened: noun and past participle."),
    required("subject", String(127), "What it happened to.", index=True),
    required("actor", String(63), "Actor that caused it: a user, or holdfast."),
    required("explanation", Text, "Why it happened, with numbers."),
    required("digest", String(64), "SHA-256 over the previous digest and this event."),
    comment="The event log. Each event is written in the transaction of its operation; digests form a chain.",
)

failed_operations = Table(
    "failed_operations",
    METADATA,
    key("event_id", events.c.event_id, "Event of the failure."),
    required("begun_at_us", BigInteger, "When the operation began."),
    required("source", Text, "What it read: the source of a delivery, or a snapshot."),
    comment="Loads and trainings that failed or were refused: what their events do not state.",
)

event_cursors = Table(
    "event_cursors",
    METADATA,
    key("reader", String(63), "Consumer of the event log, such as openlineage."),
    required("event_id", BigInteger, "Last event that it has processed."),
    comment="Read position of each consumer of the event log.",
)

leases = Table(
    "leases",
    METADATA,
    key("lease", String(63), "Name of the lease."),
    required("holder", String(63), "Process that holds it."),
    required("epoch", BigInteger, "Fencing token: rises with each change of holder, checked in each write."),
    required("renewed_at_us", BigInteger, "When the holder last renewed it."),
    required("duration_us", BigInteger, "How long it lasts without renewal."),
    CheckConstraint("epoch >= 1", name="epoch_positive"),
    comment="Leases: at most one process at a time runs each control loop.",
)
