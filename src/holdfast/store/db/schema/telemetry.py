"""Tables of telemetry: servers, probes, collected predictions, labels, outcomes and request counts."""

from __future__ import annotations

from typing import Any

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

from holdfast.feedback import LONGEST_ID
from holdfast.records import Arm, Severity, Verdict
from holdfast.rollout.model.membership import MemberState
from holdfast.rollout.model.server_name import Stated
from holdfast.store.db.schema.events import events
from holdfast.store.db.schema.metadata import (
    METADATA,
    key,
    one_of,
    optional,
    partial_index,
    required,
    serial,
)

servers = Table(
    "servers",
    METADATA,
    key("server", String(63), "Name of the server."),
    required("model", String(63), "Model that it serves."),
    required("address", String(255), "URL of its HTTP API."),
    required("log_directory", String(255), "Directory of its prediction log."),
    required("started_at_us", BigInteger, "When it last started."),
    optional(
        "tagged_from_segment", Integer, "First log segment whose ids all have a tag; null if none is known."
    ),
    optional("boot_id", String(16), "Id of the process that last started; null in earlier releases."),
    optional("release", String(63), "Release that it runs; null in earlier releases."),
    optional("host", String(255), "Name of the host that it runs on; null in earlier releases."),
    optional("private_address", String(255), "URL for operators; null if it is `address`."),
    comment="Registered servers: the control loop collects their logs and probes them.",
)

members = Table(
    "members",
    METADATA,
    key("server", servers.c.server, "Server that writes heartbeats."),
    required("started_at_us", BigInteger, "`servers.started_at_us` of the process that writes them."),
    required("kernel_id", String(36), "Id of the start of its host's kernel; empty if unknown."),
    required("beats", BigInteger, "Number of its last heartbeat."),
    required("beat", String(16), "Random text of its last heartbeat."),
    required("heard_at_us", BigInteger, "When that came, by the ledger's clock."),
    required("stated", String(16), "What the process states of itself."),
    required("state", String(16), "What the server is to its model."),
    required("since_us", BigInteger, "Since when, by the ledger's clock."),
    optional("forgotten_at_us", BigInteger, "When an operator forgot it, by the ledger's clock."),
    one_of("stated", Stated),
    one_of("state", MemberState),
    comment="Heartbeats of servers, and what each server is to its model.",
)

server_conflicts = Table(
    "server_conflicts",
    METADATA,
    key("server", servers.c.server, "Name that two processes state."),
    key("boot_id", String(16), "Id of the second process."),
    required("address", String(255), "URL of its HTTP API."),
    required("host", String(255), "Name of its host."),
    required("log_directory", String(255), "Directory of its prediction log, which is not collected."),
    required("heard_at_us", BigInteger, "Its last heartbeat, by the ledger's clock."),
    required("explanation", Text, "Which process has the name, and where."),
    comment="Living processes that state the name of another server (HF304).",
)

probes = Table(
    "probes",
    METADATA,
    key("server", servers.c.server, "Server probed."),
    key("model", String(63), "Model probed."),
    optional("plan_id", BigInteger, "Traffic plan that the server reported."),
    optional("planned_version", String(32), "Version that the plan intends."),
    optional("observed_version", String(32), "Version that served the probe."),
    required("verdict", String(16), "Whether the server follows the plan."),
    required("explanation", Text, "Why, with numbers."),
    required("probed_at_us", BigInteger, "When it was probed."),
    optional("runtime", String(32), "Runtime that the server reported."),
    optional("serving_config", String(32), "Serving config that the server reported."),
    one_of("verdict", Verdict),
    comment="The last probe of each server: declared against observed.",
)

log_positions = Table(
    "log_positions",
    METADATA,
    key("server", String(63), "Server that wrote the log."),
    key("segment", Integer, "Number of the log segment."),
    required("collected_bytes", BigInteger, "Read position in the segment."),
    required("predictions", BigInteger, "Prediction requests collected from it."),
    required("feedback", BigInteger, "Labels collected from it."),
    required("rejected_labels", BigInteger, "Labels that were rejected or quarantined."),
    comment="Read position in each segment of each server's prediction log.",
)


def _files_of_log(name: str, *columns: Column[Any], comment: str) -> Table:
    """Return a table of Parquet files, each collected from one log segment."""
    return Table(
        name,
        METADATA,
        key("path", String(255), "Path relative to the store's root."),
        required("model", String(63), "Model of the predictions."),
        required("server", String(63), "Server that logged them."),
        required("segment", Integer, "Log segment that they were collected from."),
        required("rows", BigInteger, "Number of predictions."),
        required("bytes", BigInteger, "Size of the file."),
        required("sha256", String(64), "SHA-256 of the file."),
        *columns,
        ForeignKeyConstraint(["server", "segment"], ["log_positions.server", "log_positions.segment"]),
        Index(f"ix_{name}_server_segment", "server", "segment"),
        comment=comment,
    )


prediction_files = _files_of_log(
    "prediction_files",
    required("predicted_at_min_us", BigInteger, "When the first was served."),
    required("predicted_at_max_us", BigInteger, "When the last was served."),
    required("record_number_min", BigInteger, "First record number within the segment."),
    required("record_number_max", BigInteger, "Last record number within the segment."),
    comment="Parquet files of collected predictions.",
)

shadow_files = _files_of_log(
    "shadow_files",
    required("predicted_at_min_us", BigInteger, "When the first was made."),
    required("predicted_at_max_us", BigInteger, "When the last was made."),
    comment="Parquet files of collected shadow predictions.",
)

_WAITS = "joined = 0"

labels = Table(
    "labels",
    METADATA,
    key("prediction_id", String(LONGEST_ID), "Id from the prediction's response."),
    required("value", Double, "True value, 0 to 1."),
    required("source", String(63), "Sender of the label."),
    required("received_at_us", BigInteger, "When it was received."),
    required("joined", Integer, "1 once it is joined with its prediction, else 0."),
    optional("server", String(63), "While it waits: server that its id names."),
    optional("segment", Integer, "While it waits: log segment that its id names."),
    optional("number", BigInteger, "While it waits: record number that its id names."),
    optional("look_at_us", BigInteger, "While it waits: when it is decided again."),
    CheckConstraint("joined IN (0, 1)", name="joined_is_boolean"),
    partial_index("ix_labels_look_at_us", "look_at_us", "prediction_id", where=_WAITS),
    partial_index("ix_labels_server_segment_number", "server", "segment", "number", where=_WAITS),
    partial_index("ix_labels_source_look_at_us", "source", "look_at_us", where=_WAITS),
    comment="First label of each prediction. Corrections are in `label_corrections`.",
)

label_corrections = Table(
    "label_corrections",
    METADATA,
    serial("label_correction_id", "Number of the correction; a new one when its label is joined."),
    required("prediction_id", labels.c.prediction_id, "Id of the prediction.", index=True),
    required("value", Double, "True value, 0 to 1."),
    required("source", String(63), "Sender of the correction."),
    required("received_at_us", BigInteger, "When it was received; later than the label that it corrects."),
    comment="Later labels of predictions with other values, as the corrections of the label feed allow.",
)

quarantined_labels = Table(
    "quarantined_labels",
    METADATA,
    serial("quarantined_label_id", "Number of the label."),
    required("model", String(63), "Model of the prediction or row."),
    optional("prediction_id", String(LONGEST_ID), "Id of the prediction; null for a label by key."),
    optional("key_json", Text, "Business key of the row, canonical JSON; null for a label by id."),
    required("value", Double, "Value that it brought, 0 to 1."),
    required("source", String(63), "Sender of the label."),
    required("received_at_us", BigInteger, "When it was received."),
    required("reason", Text, "Why it is quarantined, with the label that stands."),
    Index("ix_quarantined_labels_model_source", "model", "source"),
    comment="Labels that contradict the label of another source or name no row of several. They label nothing.",
)

label_policies = Table(
    "label_policies",
    METADATA,
    key("model", String(63), "Model whose labels are corrected."),
    required("corrections", String(16), "Which of several labels counts."),
    required("declared_at_us", BigInteger, "When it was declared."),
    one_of("corrections", ("latest", "first")),
    comment="Declared corrections of each model's labels, for servers that do not load the declaration.",
)

secrets = Table(
    "secrets",
    METADATA,
    key("purpose", String(31), "What keys derive from it for."),
    required("secret_hex", String(64), "The secret, hexadecimal, for servers and control loops alone."),
    required("created_at_us", BigInteger, "When it was created."),
    comment="Secrets of this ledger.",
)

outcomes = Table(
    "outcomes",
    METADATA,
    serial("outcome_id", "Number of the outcome."),
    required("prediction_id", labels.c.prediction_id, "Id of the prediction.", unique=True),
    required("model", String(63), "Model that predicted."),
    required("version", String(32), "Version that predicted."),
    required("arm", String(16), "Arm of the rollout that the request was in."),
    optional("rollout_id", BigInteger, "Rollout during which it was predicted, if any."),
    required("probability", Double, "Predicted probability, 0 to 1."),
    required("label", Double, "True value, 0 to 1."),
    required("event_time_us", BigInteger, "Event time of the request, by its caller's clock."),
    required("joined_at_us", BigInteger, "When label and prediction were joined."),
    required("predicted_at_us", BigInteger, "When it was predicted, by the server's clock."),
    one_of("arm", Arm),
    Index("ix_outcomes_model_predicted_at_us", "model", "predicted_at_us"),
    Index("ix_outcomes_model_version_predicted_at_us", "model", "version", "predicted_at_us"),
    comment="Predictions joined with their labels. Quality is computed from them.",
)

outcome_slices = Table(
    "outcome_slices",
    METADATA,
    key("prediction_id", outcomes.c.prediction_id, "Id of the prediction."),
    required("slices_json", Text, "Value of each slice of its version's contract, canonical JSON."),
    comment="Slices that each outcome is in. Quality by slice is computed from them.",
)

withdrawn_outcomes = Table(
    "withdrawn_outcomes",
    METADATA,
    key("prediction_id", String(LONGEST_ID), "Id of the prediction."),
    comment="Predictions that had an outcome whose label was withdrawn. The evidence of rollouts counts each once.",
)

key_labels = Table(
    "key_labels",
    METADATA,
    serial("key_label_id", "Number of the label."),
    required("model", String(63), "Model whose rows it labels."),
    required("key_digest", String(64), "SHA-256 of `key_json`."),
    required("key_json", Text, "Business key of the row: its columns and their values, canonical JSON."),
    required("value", Double, "True value, 0 or 1."),
    required("source", String(63), "Sender of the label."),
    required("received_at_us", BigInteger, "When it was received."),
    Index("ix_key_labels_model_key_digest", "model", "key_digest"),
    comment="Labels that callers sent by the key of a row, with every correction.",
)

request_counts = Table(
    "request_counts",
    METADATA,
    key("model", String(63), "Model requested."),
    key("version", String(32), "Version that served; empty if none did."),
    key("arm", String(16), "Arm of the rollout."),
    key("result", String(32), "ok, or the kind of error."),
    key("minute_start_us", BigInteger, "Start of the minute."),
    required("requests", BigInteger, "Number of requests."),
    required("rows", BigInteger, "Number of rows in them."),
    required("latency_sum_us", BigInteger, "Sum of their processor times."),
    required(
        "latency_buckets_json",
        Text,
        "Processor times: counts by bucket of LATENCY_EDGES_SECONDS, canonical JSON.",
    ),
    optional("response_buckets_json", Text, "Times to the response, likewise; null for requests of before."),
    optional(
        "reasons_json", Text, "Refused requests by rule of the contract, the commonest, canonical JSON."
    ),
    one_of("arm", Arm),
    comment="Requests by version, result and minute, counted from the prediction logs.",
)

traffic_comparisons = Table(
    "traffic_comparisons",
    METADATA,
    key("model", String(63), "Model compared."),
    required("version", String(32), "Champion whose newest requests were compared."),
    required("newest_prediction_at_us", BigInteger, "When the newest of them was served; 0 without one."),
    required("computed_at_us", BigInteger, "When the comparison was computed."),
    required("comparison_json", Text, "Slices and label share, canonical JSON."),
    comment="The last comparison of each model's live traffic with its training data.",
)

problems = Table(
    "problems",
    METADATA,
    serial("problem_id", "Number of the problem."),
    required("model", String(63), "Model that has it."),
    required("kind", String(31), "What is wrong, such as feed_suspect."),
    required("subject", String(127), "What has it: a feed with its batch, a version, a slice, a drill."),
    required("severity", String(16), "How urgent it is."),
    required("explanation", Text, "What was wrong when it was found, with numbers."),
    required("next_command", Text, "What to do about it."),
    required("found_event_id", BigInteger, "Event of its begin.", unique=True),
    optional("ended_event_id", BigInteger, "Event of its end; null while it lasts."),
    ForeignKeyConstraint(["found_event_id"], [events.c.event_id]),
    ForeignKeyConstraint(["ended_event_id"], [events.c.event_id]),
    one_of("severity", Severity),
    partial_index(
        "uq_problems_open", "model", "kind", "subject", where="ended_event_id IS NULL", unique=True
    ),
    comment="Problems that health found, from begin to end. A problem lasts once at a time.",
)
