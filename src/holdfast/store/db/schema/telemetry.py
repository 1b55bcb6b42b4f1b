"""Tables of telemetry: servers, probes, collected predictions, labels, outcomes and request counts."""

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
    Column("server", String(63), primary_key=True, comment="Name of the server."),
    Column("model", String(63), nullable=False, comment="Model that it serves."),
    Column("address", String(255), nullable=False, comment="URL of its HTTP API."),
    Column("log_directory", String(255), nullable=False, comment="Directory of its prediction log."),
    Column("started_at_us", BigInteger, nullable=False, comment="When it last started."),
    comment="Registered servers: the control loop collects their logs and probes them.",
)

probes = Table(
    "probes",
    METADATA,
    Column("server", String(63), ForeignKey(servers.c.server), primary_key=True, comment="Server probed."),
    Column("model", String(63), primary_key=True, comment="Model probed."),
    Column("plan_id", BigInteger, nullable=True, comment="Traffic plan that the server reported."),
    Column("planned_version", String(32), nullable=True, comment="Version that the plan intends."),
    Column("observed_version", String(32), nullable=True, comment="Version that served the probe."),
    Column("verdict", String(16), nullable=False, comment="Whether the server follows the plan."),
    Column("explanation", Text, nullable=False, comment="Why, with numbers."),
    Column("probed_at_us", BigInteger, nullable=False, comment="When it was probed."),
    Column("runtime", String(32), nullable=True, comment="Runtime that the server reported."),
    Column("serving_config", String(32), nullable=True, comment="Serving config that the server reported."),
    one_of("verdict", Verdict),
    comment="The last probe of each server: declared against observed.",
)

log_positions = Table(
    "log_positions",
    METADATA,
    Column("server", String(63), primary_key=True, comment="Server that wrote the log."),
    Column("segment", Integer, primary_key=True, comment="Number of the log segment."),
    Column("collected_bytes", BigInteger, nullable=False, comment="Read position in the segment."),
    Column("predictions", BigInteger, nullable=False, comment="Prediction requests collected from it."),
    Column("feedback", BigInteger, nullable=False, comment="Labels collected from it."),
    Column(
        "rejected_labels",
        BigInteger,
        nullable=False,
        comment="Labels that contradict another or name an unknown prediction.",
    ),
    comment="Read position in each segment of each server's prediction log.",
)

prediction_files = Table(
    "prediction_files",
    METADATA,
    Column("path", String(255), primary_key=True, comment="Path relative to the store's root."),
    Column("model", String(63), nullable=False, comment="Model of the predictions."),
    Column("server", String(63), nullable=False, comment="Server that logged them."),
    Column("segment", Integer, nullable=False, comment="Log segment that they were collected from."),
    Column("rows", BigInteger, nullable=False, comment="Number of predictions."),
    Column("bytes", BigInteger, nullable=False, comment="Size of the file."),
    Column("sha256", String(64), nullable=False, comment="SHA-256 of the file."),
    Column("predicted_at_min_us", BigInteger, nullable=False, comment="When the first was served."),
    Column("predicted_at_max_us", BigInteger, nullable=False, comment="When the last was served."),
    Column(
        "record_number_min", BigInteger, nullable=False, comment="First record number within the segment."
    ),
    Column("record_number_max", BigInteger, nullable=False, comment="Last record number within the segment."),
    ForeignKeyConstraint(["server", "segment"], ["log_positions.server", "log_positions.segment"]),
    Index("ix_prediction_files_server_segment", "server", "segment"),
    comment="Parquet files of collected predictions.",
)

shadow_files = Table(
    "shadow_files",
    METADATA,
    Column("path", String(255), primary_key=True, comment="Path relative to the store's root."),
    Column("model", String(63), nullable=False, comment="Model of the predictions."),
    Column("server", String(63), nullable=False, comment="Server that logged them."),
    Column("segment", Integer, nullable=False, comment="Log segment that they were collected from."),
    Column("rows", BigInteger, nullable=False, comment="Number of predictions."),
    Column("bytes", BigInteger, nullable=False, comment="Size of the file."),
    Column("sha256", String(64), nullable=False, comment="SHA-256 of the file."),
    Column("predicted_at_min_us", BigInteger, nullable=False, comment="When the first was made."),
    Column("predicted_at_max_us", BigInteger, nullable=False, comment="When the last was made."),
    ForeignKeyConstraint(["server", "segment"], ["log_positions.server", "log_positions.segment"]),
    Index("ix_shadow_files_server_segment", "server", "segment"),
    comment="Parquet files of collected shadow predictions.",
)

labels = Table(
    "labels",
    METADATA,
    Column("prediction_id", String(48), primary_key=True, comment="Id from the prediction's response."),
    Column("value", Double, nullable=False, comment="True value, 0 to 1."),
    Column("source", String(63), nullable=False, comment="Sender of the label."),
    Column("received_at_us", BigInteger, nullable=False, comment="When it was received."),
    Column("joined", Integer, nullable=False, comment="1 once it is joined with its prediction, else 0."),
    CheckConstraint("joined IN (0, 1)", name="joined_is_boolean"),
    Index("ix_labels_joined", "joined"),
    comment="Labels of predictions. A second label with another value is rejected.",
)

outcomes = Table(
    "outcomes",
    METADATA,
    Column("outcome_id", SERIAL, primary_key=True, autoincrement=True, comment="Number of the outcome."),
    Column(
        "prediction_id",
        String(48),
        ForeignKey(labels.c.prediction_id),
        nullable=False,
        unique=True,
        comment="Id of the prediction.",
    ),
    Column("model", String(63), nullable=False, comment="Model that predicted."),
    Column("version", String(32), nullable=False, comment="Version that predicted."),
    Column("arm", String(16), nullable=False, comment="Arm of the rollout that the request was in."),
    Column("rollout_id", BigInteger, nullable=True, comment="Rollout during which it was predicted, if any."),
    Column("probability", Double, nullable=False, comment="Predicted probability, 0 to 1."),
    Column("label", Double, nullable=False, comment="True value, 0 to 1."),
    Column("event_time_us", BigInteger, nullable=False, comment="Event time of the request."),
    Column("joined_at_us", BigInteger, nullable=False, comment="When label and prediction were joined."),
    one_of("arm", Arm),
    Index("ix_outcomes_model_version_event_time_us", "model", "version", "event_time_us"),
    comment="Predictions joined with their labels. Quality is computed from them.",
)

request_counts = Table(
    "request_counts",
    METADATA,
    Column("model", String(63), primary_key=True, comment="Model requested."),
    Column("version", String(32), primary_key=True, comment="Version that served; empty if none did."),
    Column("arm", String(16), primary_key=True, comment="Arm of the rollout."),
    Column("result", String(32), primary_key=True, comment="ok, or the kind of error."),
    Column("minute_start_us", BigInteger, primary_key=True, comment="Start of the minute."),
    Column("requests", BigInteger, nullable=False, comment="Number of requests."),
    Column("rows", BigInteger, nullable=False, comment="Number of rows in them."),
    Column("latency_sum_us", BigInteger, nullable=False, comment="Sum of their latencies."),
    Column(
        "latency_buckets_json",
        Text,
        nullable=False,
        comment="Counts by bucket of LATENCY_EDGES_SECONDS, canonical JSON.",
    ),
    one_of("arm", Arm),
    comment="Requests by version, result and minute, counted from the prediction logs.",
)

traffic_comparisons = Table(
    "traffic_comparisons",
    METADATA,
    Column("model", String(63), primary_key=True, comment="Model compared."),
    Column("version", String(32), nullable=False, comment="Champion whose newest requests were compared."),
    Column(
        "newest_prediction_at_us",
        BigInteger,
        nullable=False,
        comment="When the newest of them was served; 0 without one.",
    ),
    Column("computed_at_us", BigInteger, nullable=False, comment="When the comparison was computed."),
    Column("comparison_json", Text, nullable=False, comment="Slices and label share, canonical JSON."),
    comment="The last comparison of each model's live traffic with its training data.",
)
