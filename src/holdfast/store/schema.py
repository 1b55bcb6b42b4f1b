"""The ledger's tables. What must always hold is a CHECK or a unique index here, so that no code path can break it.

Times are UTC, in microseconds since 1970 (`*_us`): both databases compare and index them alike, and nothing is lost
in a round trip. Names that end in `_ppm` are parts per million. One module of functions per group of tables lies beside
this file: rows of x are in `store/x.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from holdfast.feeds.machine import State as FeedState
from holdfast.records import Arm, Level, Verdict
from holdfast.rollout.machine import RESTING
from holdfast.rollout.machine import State as RolloutState
from holdfast.tables.backout import State as BackoutState

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives a row id for free only to a column of type INTEGER; PostgreSQL needs 64 bits.
_SERIAL: Final = BigInteger().with_variant(Integer(), "sqlite")


def _one_of(column: str, values: type[StrEnum] | tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


# --- the catalogue: batches, files, versions of tables, snapshots -----------------------------------------------------

table_versions = Table(
    "table_versions",
    METADATA,
    Column("table_version", _SERIAL, primary_key=True, autoincrement=True),
    Column("committed_us", BigInteger, nullable=False),
    Column("reason", String(64), nullable=False),
    comment="One row per transaction that changed which files make up the tables. A version names a cut across all of them.",
)

batches = Table(
    "batches",
    METADATA,
    Column("feed", String(63), primary_key=True),
    Column("batch", String(63), primary_key=True),
    Column(
        "epoch",
        Integer,
        primary_key=True,
        comment="grows by one when a batch that was backed out is loaded again",
    ),
    Column("digest", String(64), nullable=False, comment="SHA-256 of the content as it was received"),
    Column("contract_hash", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("rows_received", BigInteger, nullable=False),
    Column("rows_loaded", BigInteger, nullable=False),
    Column("rows_quarantined", BigInteger, nullable=False),
    Column("event_low_us", BigInteger, nullable=True),
    Column("event_high_us", BigInteger, nullable=True),
    Column("table_version", _SERIAL, ForeignKey(table_versions.c.table_version), nullable=False),
    Column("source", Text, nullable=False),
    _one_of("state", ("published", "backed_out")),
    CheckConstraint("rows_received = rows_loaded + rows_quarantined", name="no_row_unaccounted"),
    CheckConstraint("epoch >= 0", name="epoch_counts"),
    comment="One row per load that was published. A load that was not published left nothing.",
)
Index(
    "uq_batches_one_live_load",
    batches.c.feed,
    batches.c.batch,
    unique=True,
    sqlite_where=text("state = 'published'"),
    postgresql_where=text("state = 'published'"),
)
Index(
    "uq_batches_one_live_load_of_a_content",
    batches.c.feed,
    batches.c.digest,
    unique=True,
    sqlite_where=text("state = 'published'"),
    postgresql_where=text("state = 'published'"),
)

Index("ix_batches_feed_table_version", batches.c.feed, batches.c.table_version)

files = Table(
    "files",
    METADATA,
    Column("path", String(255), primary_key=True, comment="relative to the store's root"),
    Column("table_name", String(63), nullable=False),
    Column("feed", String(63), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("event_low_us", BigInteger, nullable=True, comment="bounds of the event times of its valid rows"),
    Column("event_high_us", BigInteger, nullable=True),
    Column("added_version", _SERIAL, ForeignKey(table_versions.c.table_version), nullable=False),
    Column("removed_version", _SERIAL, ForeignKey(table_versions.c.table_version), nullable=True),
    CheckConstraint("removed_version IS NULL OR removed_version > added_version", name="removed_after_added"),
    Index("ix_files_table_name_added_version", "table_name", "added_version"),
    Index("ix_files_table_name_event_high_us", "table_name", "event_high_us"),
    comment="Immutable Parquet files; table t at version v is the files with added <= v and (removed is null or removed > v).",
)

Index(
    "ix_files_removed",
    files.c.table_name,
    files.c.removed_version,
    sqlite_where=text("removed_version IS NOT NULL"),
    postgresql_where=text("removed_version IS NOT NULL"),
)

file_batches = Table(
    "file_batches",
    METADATA,
    Column("path", String(255), ForeignKey(files.c.path), primary_key=True),
    Column("row_group", Integer, primary_key=True, comment="where the load's row groups begin"),
    Column("feed", String(63), nullable=False),
    Column("batch", String(63), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column(
        "removed_version",
        _SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=True,
        comment="from here on readers skip these row groups, although the file stays for the other loads in it",
    ),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    Index("ix_file_batches_feed_batch_epoch", "feed", "batch", "epoch"),
    comment="Whose rows a file holds: one load's, or after compaction those of several, each kept apart.",
)
Index(
    "ix_file_batches_removed",
    file_batches.c.removed_version,
    sqlite_where=text("removed_version IS NOT NULL"),
    postgresql_where=text("removed_version IS NOT NULL"),
)

snapshots = Table(
    "snapshots",
    METADATA,
    Column("snapshot", String(32), primary_key=True),
    Column("table_version", _SERIAL, ForeignKey(table_versions.c.table_version), nullable=False),
    Column("contract_hash", String(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Index("ix_snapshots_table_version", "table_version"),
    comment="A named cut: exact versions of every table that it reads. Nothing trains on 'latest'.",
)

snapshot_tables = Table(
    "snapshot_tables",
    METADATA,
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True),
    Column("table_name", String(63), primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
)

snapshot_held_back = Table(
    "snapshot_held_back",
    METADATA,
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True),
    Column("feed", String(63), primary_key=True),
    Column("batch", String(63), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    comment="Loads that a snapshot leaves out, because another feed of their group has not delivered that batch yet.",
)

snapshot_slices = Table(
    "snapshot_slices",
    METADATA,
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True),
    Column("selection_hash", String(64), primary_key=True),
    Column("column_name", String(63), primary_key=True),
    Column("value", String(255), primary_key=True),
    Column("rows_found", BigInteger, nullable=False),
    Column("rows_taken", BigInteger, nullable=False),
    comment="How many rows of each slice a snapshot has, and how many its quotas and caps let through.",
)

selections = Table(
    "selections",
    METADATA,
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), primary_key=True),
    Column("selection_hash", String(64), primary_key=True, comment="SHA-256 of selection and seed"),
    Column("seed", BigInteger, nullable=False),
    Column("selection", Text, nullable=False, comment="filters, quotas, caps and weights, canonical JSON"),
    Column(
        "counts", Text, nullable=False, comment="rows that each filter, cap and rule struck, canonical JSON"
    ),
    Column("rows_found", BigInteger, nullable=False),
    Column("rows_taken", BigInteger, nullable=False),
    comment="Which rows of a snapshot teach. The same snapshot and selection give the same rows, bit for bit.",
)

# --- whether what was delivered can be trusted ------------------------------------------------------------------------

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
    _one_of("state", FeedState),
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
    Column("violation", _SERIAL, primary_key=True, autoincrement=True),
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
    _one_of("level", Level),
    CheckConstraint("(accepted_us IS NULL) = (accepted_by IS NULL)", name="accepted_by_somebody"),
    Index("ix_violations_feed_batch", "feed", "batch"),
    comment="Expectations of a feed that a delivery did not meet.",
)

# --- backing out ------------------------------------------------------------------------------------------------------

backouts = Table(
    "backouts",
    METADATA,
    Column("backout", _SERIAL, primary_key=True, autoincrement=True),
    Column("feed", String(63), nullable=False),
    Column("batch", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column(
        "plan",
        Text,
        nullable=False,
        comment="the steps, as they were shown and as they are executed, canonical JSON",
    ),
    Column("steps_done", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", String(63), nullable=False),
    Column("asked_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    _one_of("state", BackoutState),
    Index("ix_backouts_feed_batch", "feed", "batch"),
    Index("ix_backouts_state", "state"),
    comment="One row per back-out that was begun. It is carried on from `steps_done`, whoever runs it.",
)

backout_batches = Table(
    "backout_batches",
    METADATA,
    Column("backout", _SERIAL, ForeignKey(backouts.c.backout), primary_key=True),
    Column("feed", String(63), primary_key=True),
    Column("batch", String(63), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    ForeignKeyConstraint(["feed", "batch", "epoch"], ["batches.feed", "batches.batch", "batches.epoch"]),
    comment="The loads that a back-out removes: the one that was named and those of its group.",
)

taints = Table(
    "taints",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("subject", String(63), primary_key=True, comment="the snapshot's or the version's name"),
    Column("backout", _SERIAL, ForeignKey(backouts.c.backout), primary_key=True),
    Column("tainted_us", BigInteger, nullable=False),
    _one_of("kind", ("snapshot", "version")),
    comment="What was made from rows that were backed out. A tainted version is never given traffic again.",
)

# --- versions of models, their gates, their way to the users ----------------------------------------------------------

versions = Table(
    "versions",
    METADATA,
    Column("version", String(32), primary_key=True, comment="v<number>-<first 8 digits of the digest>"),
    Column("model", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column(
        "digest",
        String(64),
        nullable=False,
        unique=True,
        comment="SHA-256 of the ONNX file with its metadata",
    ),
    Column("bytes", BigInteger, nullable=False),
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), nullable=False),
    Column("contract_hash", String(64), nullable=False),
    Column("features_hash", String(64), nullable=False),
    Column("learner", String(63), nullable=False),
    Column(
        "role",
        String(16),
        nullable=False,
        comment="a candidate may be rolled out; a heuristic is the baseline and the fallback",
    ),
    Column("state", String(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    _one_of("role", ("candidate", "heuristic")),
    _one_of("state", ("registered", "qualified", "refused")),
    Index("uq_versions_model_number", "model", "number", unique=True),
    Index("ix_versions_snapshot", "snapshot"),
)

gate_results = Table(
    "gate_results",
    METADATA,
    Column("gate_result", _SERIAL, primary_key=True, autoincrement=True),
    Column("version", String(32), ForeignKey(versions.c.version), nullable=False, index=True),
    Column("gate", String(63), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("observed", Double, nullable=True),
    Column("low", Double, nullable=True, comment="lower end of the interval of what was observed"),
    Column("high", Double, nullable=True),
    Column("bound", Double, nullable=True),
    Column("explanation", Text, nullable=False),
    Column("judged_us", BigInteger, nullable=False),
    _one_of("verdict", Verdict),
)

rollouts = Table(
    "rollouts",
    METADATA,
    Column("rollout", _SERIAL, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False),
    Column("challenger", String(32), ForeignKey(versions.c.version), nullable=False),
    Column(
        "champion",
        String(32),
        ForeignKey(versions.c.version),
        nullable=True,
        comment="null for a model's first version",
    ),
    Column("state", String(16), nullable=False),
    Column("step", Integer, nullable=False, comment="index into the policy's steps"),
    Column(
        "policy",
        Text,
        nullable=False,
        comment="the policy as declared when the rollout began, canonical JSON",
    ),
    Column("started_us", BigInteger, nullable=False),
    Column("step_started_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("reason", Text, nullable=False, comment="why it is in this state, in words and numbers"),
    Column("actor", String(63), nullable=False, comment="who brought it here: 'holdfast' or a person"),
    _one_of("state", RolloutState),
    CheckConstraint("challenger <> champion", name="two_versions"),
    Index("ix_rollouts_challenger", "challenger"),
)
_UNDER_WAY: Final = text("state NOT IN (" + ", ".join(f"'{state}'" for state in sorted(RESTING)) + ")")
Index(
    "uq_rollouts_one_under_way",
    rollouts.c.model,
    unique=True,
    sqlite_where=_UNDER_WAY,
    postgresql_where=_UNDER_WAY,
)

rollout_evidence = Table(
    "rollout_evidence",
    METADATA,
    Column("rollout", _SERIAL, ForeignKey(rollouts.c.rollout), primary_key=True),
    Column("metric", String(63), primary_key=True),
    Column("challenger_units", BigInteger, nullable=False),
    Column("challenger_total", Double, nullable=False, comment="bad requests, or the sum of scores"),
    Column("champion_units", BigInteger, nullable=False),
    Column("champion_total", Double, nullable=False),
    Column("log_e", Double, nullable=False, comment="natural logarithm of the largest e-value reached"),
    Column(
        "log_bound",
        Double,
        nullable=False,
        comment="the e-value at which harm is declared, natural logarithm",
    ),
    Column("state", Text, nullable=False, comment="the sequential test's own state, canonical JSON"),
    Column("updated_us", BigInteger, nullable=False),
    comment="What is known about a running rollout. Counts are realised, never configured shares.",
)

traffic_plans = Table(
    "traffic_plans",
    METADATA,
    Column("plan", _SERIAL, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False, index=True),
    Column("champion", String(32), ForeignKey(versions.c.version), nullable=False),
    Column("challenger", String(32), ForeignKey(versions.c.version), nullable=True),
    Column("share_ppm", Integer, nullable=False),
    Column("previous", String(32), ForeignKey(versions.c.version), nullable=True),
    Column("fallback", String(32), ForeignKey(versions.c.version), nullable=True),
    Column("rollout", _SERIAL, ForeignKey(rollouts.c.rollout), nullable=True),
    Column("committed_us", BigInteger, nullable=False),
    CheckConstraint("share_ppm BETWEEN 0 AND 1000000", name="share_is_a_part"),
    CheckConstraint("challenger IS NOT NULL OR share_ppm = 0", name="no_share_without_challenger"),
    CheckConstraint("challenger <> champion", name="two_versions"),
    Index("ix_traffic_plans_rollout", "rollout"),
    Index("ix_traffic_plans_champion", "champion"),
    comment="Append-only. The newest row of a model is what its servers must do.",
)

# --- what comes back: servers, prediction segments, labels, outcomes --------------------------------------------------

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
    _one_of("verdict", Verdict),
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
    Column("outcome", _SERIAL, primary_key=True, autoincrement=True),
    Column("prediction", String(48), ForeignKey(labels.c.prediction), nullable=False, unique=True),
    Column("model", String(63), nullable=False),
    Column("version", String(32), nullable=False),
    Column("arm", String(16), nullable=False),
    Column("rollout", BigInteger, nullable=True),
    Column("probability", Double, nullable=False),
    Column("label", Double, nullable=False),
    Column("event_us", BigInteger, nullable=False),
    Column("joined_us", BigInteger, nullable=False),
    _one_of("arm", Arm),
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
    _one_of("arm", Arm),
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

online_features = Table(
    "online_features",
    METADATA,
    Column(
        "aggregate", String(80), primary_key=True, comment="<name>.<12 digits of its definition's SHA-256>"
    ),
    Column("entity", String(255), primary_key=True),
    Column("known_us", BigInteger, primary_key=True, comment="the moment from which this value was known"),
    Column("value", Double, nullable=True, comment="null where the rows behind it were backed out"),
    Column("table_version", _SERIAL, ForeignKey(table_versions.c.table_version), nullable=False),
    Index("ix_online_features_aggregate_table_version", "aggregate", "table_version"),
    comment="Point-in-time aggregates as servers read them: the newest row known by the request's time.",
)

online_definitions = Table(
    "online_definitions",
    METADATA,
    Column("aggregate", String(80), primary_key=True, comment="as in online_features"),
    Column("feed", String(63), nullable=False, index=True),
    Column("definition", Text, nullable=False, comment="the declaration as canonical JSON"),
    Column(
        "table_version",
        _SERIAL,
        ForeignKey(table_versions.c.table_version),
        nullable=False,
        comment="up to here every row of the feed is in the values",
    ),
    comment="Aggregates whose values are kept up to date, so that a version finds those of its own definition.",
)

# --- the story and the locks ------------------------------------------------------------------------------------------

events = Table(
    "events",
    METADATA,
    Column("event", _SERIAL, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", String(63), nullable=False),
    Column("subject", String(127), nullable=False, index=True),
    Column("actor", String(63), nullable=False),
    Column("explanation", Text, nullable=False),
    comment="What happened, in words; written in the transaction that did it.",
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
