"""The ledger of the first release: catalogue, versions, rollouts, what comes back, the story and the locks.

A migration never changes once it is released; the next one changes what it left.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only in a column of type INTEGER; PostgreSQL needs 64 bits.
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make every table with its invariants."""
    _create_events()
    _create_labels()
    _create_leases()
    _create_segments()
    _create_servers()
    _create_table_versions()
    _create_usage()
    _create_batches()
    _create_online_definitions()
    _create_online_features()
    _create_outcomes()
    _create_prediction_files()
    _create_probes()
    _create_snapshots()
    _create_files()
    _create_snapshot_tables()
    _create_versions()
    _create_gate_results()
    _create_rollouts()
    _create_rollout_evidence()
    _create_traffic_plans()


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("event", SERIAL, autoincrement=True, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=127), nullable=False),
        sa.Column("actor", sa.String(length=63), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event", name="pk_events"),
        comment="What happened, in words; written in the transaction that did it.",
    )
    op.create_index("ix_events_subject", "events", ["subject"], unique=False)


def _create_labels() -> None:
    op.create_table(
        "labels",
        sa.Column(
            "prediction", sa.String(length=48), nullable=False, comment="the id that came with the answer"
        ),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("source", sa.String(length=63), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("joined", sa.Integer(), nullable=False),
        sa.CheckConstraint("joined IN (0, 1)", name="ck_labels_joined_is_a_flag"),
        sa.PrimaryKeyConstraint("prediction", name="pk_labels"),
        comment="What turned out to be true, as it came back. The same id with another value is refused.",
    )
    op.create_index("ix_labels_joined", "labels", ["joined"], unique=False)


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("lease", sa.String(length=63), nullable=False),
        sa.Column("holder", sa.String(length=63), nullable=False),
        sa.Column(
            "epoch",
            sa.BigInteger(),
            nullable=False,
            comment="grows with every change of holder; checked in every write under it",
        ),
        sa.Column("renewed_us", sa.BigInteger(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("epoch >= 1", name="ck_leases_epoch_counts"),
        sa.PrimaryKeyConstraint("lease", name="pk_leases"),
    )


def _create_segments() -> None:
    op.create_table(
        "segments",
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column(
            "collected_bytes", sa.BigInteger(), nullable=False, comment="how far the control loop has read"
        ),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("feedback", sa.BigInteger(), nullable=False),
        sa.Column(
            "refused",
            sa.BigInteger(),
            nullable=False,
            comment="labels among the feedback that contradict, or name no answer",
        ),
        sa.PrimaryKeyConstraint("server", "segment", name="pk_segments"),
        comment="The read position in each file of each server's prediction log.",
    )


def _create_servers() -> None:
    op.create_table(
        "servers",
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=False),
        sa.Column("log_directory", sa.String(length=255), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("server", name="pk_servers"),
        comment=(
            "Servers that announced themselves, so that the control loop can collect their logs and "
            "probe them."
        ),
    )


def _create_table_versions() -> None:
    op.create_table(
        "table_versions",
        sa.Column("table_version", SERIAL, autoincrement=True, nullable=False),
        sa.Column("committed_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("table_version", name="pk_table_versions"),
        comment=(
            "One row per transaction that changed which files make up the tables. A version names a "
            "cut across all of them."
        ),
    )


def _create_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("result", sa.String(length=32), nullable=False, comment="'ok' or the kind of error"),
        sa.Column("minute_us", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("latency_sum_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "latency_buckets",
            sa.Text(),
            nullable=False,
            comment="counts by bucket of LATENCY_EDGES_SECONDS, canonical JSON",
        ),
        sa.CheckConstraint("arm IN ('champion', 'challenger', 'fallback')", name="ck_usage_arm_known"),
        sa.PrimaryKeyConstraint("model", "version", "arm", "result", "minute_us", name="pk_usage"),
        comment="Requests by version, result and minute, counted from the prediction log.",
    )


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column(
            "epoch",
            sa.Integer(),
            nullable=False,
            comment="grows by one when a batch that was backed out is loaded again",
        ),
        sa.Column(
            "digest",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of the content as it was received",
        ),
        sa.Column("contract_hash", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("rows_received", sa.BigInteger(), nullable=False),
        sa.Column("rows_loaded", sa.BigInteger(), nullable=False),
        sa.Column("rows_quarantined", sa.BigInteger(), nullable=False),
        sa.Column("event_low_us", sa.BigInteger(), nullable=True),
        sa.Column("event_high_us", sa.BigInteger(), nullable=True),
        sa.Column("table_version", SERIAL, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('published', 'backed_out')", name="ck_batches_state_known"),
        sa.CheckConstraint("epoch >= 0", name="ck_batches_epoch_counts"),
        sa.CheckConstraint(
            "rows_received = rows_loaded + rows_quarantined", name="ck_batches_no_row_unaccounted"
        ),
        sa.ForeignKeyConstraint(
            ["table_version"], ["table_versions.table_version"], name="fk_batches_table_version"
        ),
        sa.PrimaryKeyConstraint("feed", "batch", "epoch", name="pk_batches"),
        comment="One row per load that was published. A load that was not published left nothing.",
    )
    op.create_index(
        "uq_batches_one_live_load",
        "batches",
        ["feed", "batch"],
        unique=True,
        sqlite_where=sa.text("state = 'published'"),
        postgresql_where=sa.text("state = 'published'"),
    )
    op.create_index(
        "uq_batches_one_live_load_of_a_content",
        "batches",
        ["feed", "digest"],
        unique=True,
        sqlite_where=sa.text("state = 'published'"),
        postgresql_where=sa.text("state = 'published'"),
    )


def _create_online_definitions() -> None:
    op.create_table(
        "online_definitions",
        sa.Column("aggregate", sa.String(length=80), nullable=False, comment="as in online_features"),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False, comment="the declaration as canonical JSON"),
        sa.Column(
            "table_version",
            SERIAL,
            nullable=False,
            comment="up to here every row of the feed is in the values",
        ),
        sa.ForeignKeyConstraint(
            ["table_version"], ["table_versions.table_version"], name="fk_online_definitions_table_version"
        ),
        sa.PrimaryKeyConstraint("aggregate", name="pk_online_definitions"),
        comment=(
            "Aggregates whose values are kept up to date, so that a version finds those of its own "
            "definition."
        ),
    )
    op.create_index("ix_online_definitions_feed", "online_definitions", ["feed"], unique=False)


def _create_online_features() -> None:
    op.create_table(
        "online_features",
        sa.Column(
            "aggregate",
            sa.String(length=80),
            nullable=False,
            comment="<name>.<12 digits of its definition's SHA-256>",
        ),
        sa.Column("entity", sa.String(length=255), nullable=False),
        sa.Column(
            "known_us", sa.BigInteger(), nullable=False, comment="the moment from which this value was known"
        ),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("table_version", SERIAL, nullable=False),
        sa.ForeignKeyConstraint(
            ["table_version"], ["table_versions.table_version"], name="fk_online_features_table_version"
        ),
        sa.PrimaryKeyConstraint("aggregate", "entity", "known_us", name="pk_online_features"),
        comment="Point-in-time aggregates as servers read them: the newest row known by the request's time.",
    )
    op.create_index(
        "ix_online_features_aggregate_table_version",
        "online_features",
        ["aggregate", "table_version"],
        unique=False,
    )


def _create_outcomes() -> None:
    op.create_table(
        "outcomes",
        sa.Column("outcome", SERIAL, autoincrement=True, nullable=False),
        sa.Column("prediction", sa.String(length=48), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("rollout", sa.BigInteger(), nullable=True),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("label", sa.Double(), nullable=False),
        sa.Column("event_us", sa.BigInteger(), nullable=False),
        sa.Column("joined_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("arm IN ('champion', 'challenger', 'fallback')", name="ck_outcomes_arm_known"),
        sa.ForeignKeyConstraint(["prediction"], ["labels.prediction"], name="fk_outcomes_prediction"),
        sa.PrimaryKeyConstraint("outcome", name="pk_outcomes"),
        sa.UniqueConstraint("prediction", name="uq_outcomes_prediction"),
        comment="A prediction joined with its label; what quality is computed from.",
    )
    op.create_index(
        "ix_outcomes_model_version_event_us", "outcomes", ["model", "version", "event_us"], unique=False
    )


def _create_prediction_files() -> None:
    op.create_table(
        "prediction_files",
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("answered_low_us", sa.BigInteger(), nullable=False),
        sa.Column("answered_high_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "number_low", sa.BigInteger(), nullable=False, comment="smallest record number within the segment"
        ),
        sa.Column("number_high", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server", "segment"],
            ["segments.server", "segments.segment"],
            name="fk_prediction_files_server_segment",
        ),
        sa.PrimaryKeyConstraint("path", name="pk_prediction_files"),
        comment="Collected predictions as Parquet files.",
    )
    op.create_index(
        "ix_prediction_files_server_segment", "prediction_files", ["server", "segment"], unique=False
    )


def _create_probes() -> None:
    op.create_table(
        "probes",
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("plan", sa.BigInteger(), nullable=True, comment="the plan the server said it follows"),
        sa.Column("intended", sa.String(length=32), nullable=True),
        sa.Column(
            "answered",
            sa.String(length=32),
            nullable=True,
            comment="the version that answered the probe request",
        ),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("probed_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_probes_verdict_known"
        ),
        sa.ForeignKeyConstraint(["server"], ["servers.server"], name="fk_probes_server"),
        sa.PrimaryKeyConstraint("server", "model", name="pk_probes"),
        comment="Declared against observed: the last probe of each server.",
    )


def _create_snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("table_version", SERIAL, nullable=False),
        sa.Column("contract_hash", sa.String(length=64), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["table_version"], ["table_versions.table_version"], name="fk_snapshots_table_version"
        ),
        sa.PrimaryKeyConstraint("snapshot", name="pk_snapshots"),
        comment="A named cut: exact versions of every table that it reads. Nothing trains on 'latest'.",
    )


def _create_files() -> None:
    op.create_table(
        "files",
        sa.Column("path", sa.String(length=255), nullable=False, comment="relative to the store's root"),
        sa.Column("table_name", sa.String(length=63), nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("added_version", SERIAL, nullable=False),
        sa.Column("removed_version", SERIAL, nullable=True),
        sa.CheckConstraint(
            "removed_version IS NULL OR removed_version > added_version", name="ck_files_removed_after_added"
        ),
        sa.ForeignKeyConstraint(
            ["added_version"], ["table_versions.table_version"], name="fk_files_added_version"
        ),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_files_feed_batch_epoch",
        ),
        sa.ForeignKeyConstraint(
            ["removed_version"], ["table_versions.table_version"], name="fk_files_removed_version"
        ),
        sa.PrimaryKeyConstraint("path", name="pk_files"),
        comment=(
            "Immutable Parquet files; table t at version v is the files with added <= v and (removed "
            "is null or removed > v)."
        ),
    )
    op.create_index(
        "ix_files_table_name_added_version", "files", ["table_name", "added_version"], unique=False
    )


def _create_snapshot_tables() -> None:
    op.create_table(
        "snapshot_tables",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("table_name", sa.String(length=63), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_snapshot_tables_snapshot"),
        sa.PrimaryKeyConstraint("snapshot", "table_name", name="pk_snapshot_tables"),
    )


def _create_versions() -> None:
    op.create_table(
        "versions",
        sa.Column(
            "version",
            sa.String(length=32),
            nullable=False,
            comment="v<number>-<first 8 digits of the digest>",
        ),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "digest",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of the ONNX file with its metadata",
        ),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("contract_hash", sa.String(length=64), nullable=False),
        sa.Column("features_hash", sa.String(length=64), nullable=False),
        sa.Column("learner", sa.String(length=63), nullable=False),
        sa.Column(
            "role",
            sa.String(length=16),
            nullable=False,
            comment="a candidate may be rolled out; a heuristic is the baseline and the fallback",
        ),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("role IN ('candidate', 'heuristic')", name="ck_versions_role_known"),
        sa.CheckConstraint("state IN ('registered', 'qualified', 'refused')", name="ck_versions_state_known"),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_versions_snapshot"),
        sa.PrimaryKeyConstraint("version", name="pk_versions"),
        sa.UniqueConstraint("digest", name="uq_versions_digest"),
    )
    op.create_index("uq_versions_model_number", "versions", ["model", "number"], unique=True)


def _create_gate_results() -> None:
    op.create_table(
        "gate_results",
        sa.Column("gate_result", SERIAL, autoincrement=True, nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("gate", sa.String(length=63), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("observed", sa.Double(), nullable=True),
        sa.Column(
            "low", sa.Double(), nullable=True, comment="lower end of the interval of what was observed"
        ),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("bound", sa.Double(), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("judged_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_gate_results_verdict_known"
        ),
        sa.ForeignKeyConstraint(["version"], ["versions.version"], name="fk_gate_results_version"),
        sa.PrimaryKeyConstraint("gate_result", name="pk_gate_results"),
    )
    op.create_index("ix_gate_results_version", "gate_results", ["version"], unique=False)


def _create_rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("rollout", SERIAL, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("challenger", sa.String(length=32), nullable=False),
        sa.Column(
            "champion", sa.String(length=32), nullable=True, comment="null for a model's first version"
        ),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False, comment="index into the policy's steps"),
        sa.Column(
            "policy",
            sa.Text(),
            nullable=False,
            comment="the policy as declared when the rollout began, canonical JSON",
        ),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("step_started_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "reason", sa.Text(), nullable=False, comment="why it is in this state, in words and numbers"
        ),
        sa.Column(
            "actor",
            sa.String(length=63),
            nullable=False,
            comment="who brought it here: 'holdfast' or a person",
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'canary', 'verifying', 'promoted', 'rolling_back', 'rolled_back', "
            "'cancelled')",
            name="ck_rollouts_state_known",
        ),
        sa.CheckConstraint("challenger <> champion", name="ck_rollouts_two_versions"),
        sa.ForeignKeyConstraint(["challenger"], ["versions.version"], name="fk_rollouts_challenger"),
        sa.ForeignKeyConstraint(["champion"], ["versions.version"], name="fk_rollouts_champion"),
        sa.PrimaryKeyConstraint("rollout", name="pk_rollouts"),
    )
    op.create_index(
        "uq_rollouts_one_under_way",
        "rollouts",
        ["model"],
        unique=True,
        sqlite_where=sa.text("state NOT IN ('cancelled', 'promoted', 'rolled_back')"),
        postgresql_where=sa.text("state NOT IN ('cancelled', 'promoted', 'rolled_back')"),
    )


def _create_rollout_evidence() -> None:
    op.create_table(
        "rollout_evidence",
        sa.Column("rollout", SERIAL, nullable=False),
        sa.Column("metric", sa.String(length=63), nullable=False),
        sa.Column("challenger_units", sa.BigInteger(), nullable=False),
        sa.Column(
            "challenger_total", sa.Double(), nullable=False, comment="bad requests, or the sum of scores"
        ),
        sa.Column("champion_units", sa.BigInteger(), nullable=False),
        sa.Column("champion_total", sa.Double(), nullable=False),
        sa.Column(
            "log_e", sa.Double(), nullable=False, comment="natural logarithm of the largest e-value reached"
        ),
        sa.Column(
            "log_bound",
            sa.Double(),
            nullable=False,
            comment="the e-value at which harm is declared, natural logarithm",
        ),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="the sequential test's own state, canonical JSON"
        ),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.rollout"], name="fk_rollout_evidence_rollout"),
        sa.PrimaryKeyConstraint("rollout", "metric", name="pk_rollout_evidence"),
        comment="What is known about a running rollout. Counts are realised, never configured shares.",
    )


def _create_traffic_plans() -> None:
    op.create_table(
        "traffic_plans",
        sa.Column("plan", SERIAL, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("champion", sa.String(length=32), nullable=False),
        sa.Column("challenger", sa.String(length=32), nullable=True),
        sa.Column("share_ppm", sa.Integer(), nullable=False),
        sa.Column("previous", sa.String(length=32), nullable=True),
        sa.Column("fallback", sa.String(length=32), nullable=True),
        sa.Column("rollout", SERIAL, nullable=True),
        sa.Column("committed_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("challenger <> champion", name="ck_traffic_plans_two_versions"),
        sa.CheckConstraint(
            "challenger IS NOT NULL OR share_ppm = 0", name="ck_traffic_plans_no_share_without_challenger"
        ),
        sa.CheckConstraint("share_ppm BETWEEN 0 AND 1000000", name="ck_traffic_plans_share_is_a_part"),
        sa.ForeignKeyConstraint(["challenger"], ["versions.version"], name="fk_traffic_plans_challenger"),
        sa.ForeignKeyConstraint(["champion"], ["versions.version"], name="fk_traffic_plans_champion"),
        sa.ForeignKeyConstraint(["fallback"], ["versions.version"], name="fk_traffic_plans_fallback"),
        sa.ForeignKeyConstraint(["previous"], ["versions.version"], name="fk_traffic_plans_previous"),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.rollout"], name="fk_traffic_plans_rollout"),
        sa.PrimaryKeyConstraint("plan", name="pk_traffic_plans"),
        comment="Append-only. The newest row of a model is what its servers must do.",
    )
    op.create_index("ix_traffic_plans_model", "traffic_plans", ["model"], unique=False)
