"""What happened, who has read it, and who may write."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, String, Table, Text

from holdfast.store.db.schema.metadata import METADATA, SERIAL

events = Table(
    "events",
    METADATA,
    Column("event", SERIAL, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", String(63), nullable=False),
    Column("subject", String(127), nullable=False, index=True),
    Column("actor", String(63), nullable=False),
    Column("explanation", Text, nullable=False),
    Column("digest", String(64), nullable=False, comment="SHA-256 over the event before and this one"),
    comment="What happened, in words; written in the transaction that did it. A chain: none can be changed unseen.",
)

followers = Table(
    "followers",
    METADATA,
    Column("follower", String(63), primary_key=True, comment="who reads the story, such as 'openlineage'"),
    Column("event", BigInteger, nullable=False, comment="the last event that it has dealt with"),
    comment="How far the readers of the events have come, so that each goes on from where it was.",
)

leases = Table(
    "leases",
    METADATA,
    Column("lease", String(63), primary_key=True),
    Column("holder", String(63), nullable=False),
    Column(
        "epoch",
        BigInteger,
        nullable=False,
        comment="grows with every change of holder; checked in every write under it",
    ),
    Column("renewed_us", BigInteger, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    CheckConstraint("epoch >= 1", name="epoch_counts"),
)
