"""What comes back: servers and their probes, collected answers, labels, outcomes, and counts of use."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from holdfast.records import Arm, Verdict
from holdfast.store.db.schema.metadata import METADATA, SERIAL, one_of

servers = Table(
    "servers",
    METADATA,
    Column("server", String(63), primary_key=True),
    Column("model", String(63), nullable=False),
    Column("address", String(255), nullable=False),
    Column("log_directory", String(255), nullable=False),
    Column("started_us", BigInteger, nullable=False),
    comment="Servers that announced themselves, so that the control loop can collect their logs and probe them.",
)

probes = Table(
    "probes",
    METADATA,
    Column("server", String(63), ForeignKey(servers.c.server), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("plan", BigInteger, nullable=True, comment="the plan the server said it follows"),
    Column("intended", String(32), nullable=True),
    Column("answered", String(32), nullable=True, comment="the version that answered the probe request"),
    Column("verdict", String(16), nullable=False),
    Column("explanation", Text, nullable=False),
    Column("probed_us", BigInteger, nullable=False),
    Column("binary", String(32), nullable=True, comment="what the server said that it is"),
    Column("configuration", String(32), nullable=True, comment="what the server said that it runs with"),
    one_of("verdict", Verdict),
    comment="Declared against observed: the last probe of each server.",
)

segments = Table(
    "segments",
    METADATA,
    Column("server", String(63), primary_key=True),
    Column("segment", Integer, primary_key=True),
    Column("collected_bytes", BigInteger, nullable=False, comment="how far the control loop has read"),
    Column("predictions", BigInteger, nullable=False),
    Column("feedback", BigInteger, nullable=False),
    Column(
        "refused",
        BigInteger,
        nullable=False,
        comment="labels among the feedback that contradict, or name no answer",
    ),
    comment="The read position in each file of each server's prediction log.",
)

prediction_files = Table(
    "prediction_files",
    METADATA,
    Column("path", String(255), primary_key=True),
    Column("model", String(63), nullable=False),
    Column("server", String(63), nullable=False),
    Column("segment", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("answered_low_us", BigInteger, nullable=False),
    Column("answered_high_us", BigInteger, nullable=False),
    Column("number_low", BigInteger, nullable=False, comment="smallest record number within the segment"),
    Column("number_high", BigInteger, nullable=False),
    ForeignKeyConstraint(["server", "segment"], ["segments.server", "segments.segment"]),
    Index("ix_prediction_files_server_segment", "server", "segment"),
    comment="Collected predictions as Parquet files.",
)

shadow_files = Table(
    "shadow_files",
    METADATA,
    Column("path", String(255), primary_key=True),
    Column("model", String(63), nullable=False),
    Column("server", String(63), nullable=False),
    Column("segment", Integer, nullable=False, comment="in which these answers were logged"),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("answered_low_us", BigInteger, nullable=False),
    Column("answered_high_us", BigInteger, nullable=False),
    ForeignKeyConstraint(["server", "segment"], ["segments.server", "segments.segment"]),
    Index("ix_shadow_files_server_segment", "server", "segment"),
    comment="Collected answers of shadows as Parquet files.",
)

labels = Table(
    "labels",
    METADATA,
    Column("prediction", String(48), primary_key=True, comment="the id that came with the answer"),
    Column("value", Double, nullable=False),
    Column("source", String(63), nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("joined", Integer, nullable=False),
    CheckConstraint("joined IN (0, 1)", name="joined_is_a_flag"),
    Index("ix_labels_joined", "joined"),
    comment="What turned out to be true, as it came back. The same id with another value is refused.",
)

outcomes = Table(
    "outcomes",
    METADATA,
    Column("outcome", SERIAL, primary_key=True, autoincrement=True),
    Column("prediction", String(48), ForeignKey(labels.c.prediction), nullable=False, unique=True),
    Column("model", String(63), nullable=False),
    Column("version", String(32), nullable=False),
    Column("arm", String(16), nullable=False),
    Column("rollout", BigInteger, nullable=True),
    Column("probability", Double, nullable=False),
    Column("label", Double, nullable=False),
    Column("event_us", BigInteger, nullable=False),
    Column("joined_us", BigInteger, nullable=False),
    one_of("arm", Arm),
    Index("ix_outcomes_model_version_event_us", "model", "version", "event_us"),
    comment="A prediction joined with its label; what quality is computed from.",
)

usage = Table(
    "usage",
    METADATA,
    Column("model", String(63), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("arm", String(16), primary_key=True),
    Column("result", String(32), primary_key=True, comment="'ok' or the kind of error"),
    Column("minute_us", BigInteger, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("latency_sum_us", BigInteger, nullable=False),
    Column(
        "latency_buckets",
        Text,
        nullable=False,
        comment="counts by bucket of LATENCY_EDGES_SECONDS, canonical JSON",
    ),
    one_of("arm", Arm),
    comment="Requests by version, result and minute, counted from the prediction log.",
)

asked = Table(
    "asked",
    METADATA,
    Column("model", String(63), primary_key=True),
    Column("version", String(32), nullable=False, comment="the champion whose newest answers were looked at"),
    Column("last_us", BigInteger, nullable=False, comment="when the newest of them was given; 0 without one"),
    Column("computed_us", BigInteger, nullable=False),
    Column("found", Text, nullable=False, comment="slices and share of the label, canonical JSON"),
    comment="What callers ask the champion, against what it learnt from: the last comparison of each model.",
)
