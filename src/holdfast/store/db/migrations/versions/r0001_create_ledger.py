"""Create every table of the ledger with its constraints and indexes.

A released migration never changes; the next one changes what it left.
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
    """Create the tables in the order of their foreign keys."""
    op.create_table(
        "backouts",
        sa.Column("backout_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("plan_json", sa.Text(), nullable=False),
        sa.Column("steps_done", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=63), nullable=False),
        sa.Column("requested_at_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('under_way', 'done')", name="ck_backouts_state_known"),
        sa.PrimaryKeyConstraint("backout_id", name="pk_backouts"),
    )
    op.create_index("ix_backouts_feed_batch", "backouts", ["feed", "batch"])
    op.create_index("ix_backouts_state", "backouts", ["state"])
    op.create_table(
        "contracts",
        sa.Column("contract_hash", sa.String(length=64), nullable=False),
        sa.Column("contract_json", sa.Text(), nullable=False),
        sa.Column("first_used_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("contract_hash", name="pk_contracts"),
    )
    op.create_table(
        "drills",
        sa.Column("drill_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=31), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("measured_duration_us", sa.BigInteger(), nullable=True),
        sa.Column("evidence_json", sa.Text(), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=63), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_drills_verdict_known"
        ),
        sa.PrimaryKeyConstraint("drill_id", name="pk_drills"),
    )
    op.create_index("ix_drills_model", "drills", ["model"])
    op.create_table(
        "event_cursors",
        sa.Column("reader", sa.String(length=63), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("reader", name="pk_event_cursors"),
    )
    op.create_table(
        "events",
        sa.Column("event_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=127), nullable=False),
        sa.Column("actor", sa.String(length=63), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_events"),
    )
    op.create_index("ix_events_subject", "events", ["subject"])
    op.create_table(
        "feeds",
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("contract_hash", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('flowing', 'suspect', 'refusing')", name="ck_feeds_state_known"),
        sa.PrimaryKeyConstraint("feed", name="pk_feeds"),
    )
    op.create_table(
        "labels",
        sa.Column("prediction_id", sa.String(length=48), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("source", sa.String(length=63), nullable=False),
        sa.Column("received_at_us", sa.BigInteger(), nullable=False),
        sa.Column("joined", sa.Integer(), nullable=False),
        sa.CheckConstraint("joined IN (0, 1)", name="ck_labels_joined_is_boolean"),
        sa.PrimaryKeyConstraint("prediction_id", name="pk_labels"),
    )
    op.create_index("ix_labels_joined", "labels", ["joined"])
    op.create_table(
        "leases",
        sa.Column("lease", sa.String(length=63), nullable=False),
        sa.Column("holder", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("renewed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("epoch >= 1", name="ck_leases_epoch_positive"),
        sa.PrimaryKeyConstraint("lease", name="pk_leases"),
    )
    op.create_table(
        "log_positions",
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("collected_bytes", sa.BigInteger(), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("feedback", sa.BigInteger(), nullable=False),
        sa.Column("rejected_labels", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("server", "segment", name="pk_log_positions"),
    )
    op.create_table(
        "request_counts",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("result", sa.String(length=32), nullable=False),
        sa.Column("minute_start_us", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("latency_sum_us", sa.BigInteger(), nullable=False),
        sa.Column("latency_buckets_json", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "arm IN ('champion', 'challenger', 'fallback')", name="ck_request_counts_arm_known"
        ),
        sa.PrimaryKeyConstraint(
            "model", "version", "arm", "result", "minute_start_us", name="pk_request_counts"
        ),
    )
    op.create_table(
        "runtimes",
        sa.Column("runtime", sa.String(length=32), nullable=False),
        sa.Column("packages_json", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=True),
        sa.Column("registered_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("runtime", name="pk_runtimes"),
    )
    op.create_table(
        "servers",
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=False),
        sa.Column("log_directory", sa.String(length=255), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("server", name="pk_servers"),
    )
    op.create_table(
        "serving_configs",
        sa.Column("serving_config", sa.String(length=32), nullable=False),
        sa.Column("config_json", sa.Text(), nullable=False),
        sa.Column("registered_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("serving_config", name="pk_serving_configs"),
    )
    op.create_table(
        "table_versions",
        sa.Column("table_version", SERIAL, autoincrement=True, nullable=False),
        sa.Column("committed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("table_version", name="pk_table_versions"),
    )
    op.create_table(
        "traffic_comparisons",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("newest_prediction_at_us", sa.BigInteger(), nullable=False),
        sa.Column("computed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("comparison_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_traffic_comparisons"),
    )
    op.create_table(
        "violations",
        sa.Column("violation_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=True),
        sa.Column("check_name", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=127), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("observed", sa.Double(), nullable=True),
        sa.Column("bound", sa.Double(), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("found_at_us", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at_us", sa.BigInteger(), nullable=True),
        sa.Column("accepted_by", sa.String(length=63), nullable=True),
        sa.CheckConstraint("level IN ('warning', 'error', 'critical')", name="ck_violations_level_known"),
        sa.CheckConstraint(
            "(accepted_at_us IS NULL) = (accepted_by IS NULL)", name="ck_violations_accepted_at_and_by"
        ),
        sa.PrimaryKeyConstraint("violation_id", name="pk_violations"),
    )
    op.create_index("ix_violations_feed_batch", "violations", ["feed", "batch"])
    op.create_table(
        "webhooks",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("webhook", sa.String(length=63), nullable=False),
        sa.Column("webhook_json", sa.Text(), nullable=False),
        sa.Column("declared_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", "webhook", name="pk_webhooks"),
    )
    op.create_table(
        "batches",
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("contract_hash", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("rows_received", sa.BigInteger(), nullable=False),
        sa.Column("rows_loaded", sa.BigInteger(), nullable=False),
        sa.Column("rows_quarantined", sa.BigInteger(), nullable=False),
        sa.Column("event_time_min_us", sa.BigInteger(), nullable=True),
        sa.Column("event_time_max_us", sa.BigInteger(), nullable=True),
        sa.Column("table_version", SERIAL, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('published', 'backed_out')", name="ck_batches_state_known"),
        sa.CheckConstraint("epoch >= 0", name="ck_batches_epoch_not_negative"),
        sa.CheckConstraint("rows_received = rows_loaded + rows_quarantined", name="ck_batches_rows_add_up"),
        sa.ForeignKeyConstraint(
            ["table_version"], ["table_versions.table_version"], name="fk_batches_table_version"
        ),
        sa.PrimaryKeyConstraint("feed", "batch", "epoch", name="pk_batches"),
    )
    op.create_index("ix_batches_feed_table_version", "batches", ["feed", "table_version"])
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
    op.create_table(
        "files",
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("table_name", sa.String(length=63), nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("event_time_min_us", sa.BigInteger(), nullable=True),
        sa.Column("event_time_max_us", sa.BigInteger(), nullable=True),
        sa.Column("added_version", SERIAL, nullable=False),
        sa.Column("removed_version", SERIAL, nullable=True),
        sa.CheckConstraint(
            "removed_version IS NULL OR removed_version > added_version", name="ck_files_removed_after_added"
        ),
        sa.ForeignKeyConstraint(
            ["added_version"], ["table_versions.table_version"], name="fk_files_added_version"
        ),
        sa.ForeignKeyConstraint(
            ["removed_version"], ["table_versions.table_version"], name="fk_files_removed_version"
        ),
        sa.PrimaryKeyConstraint("path", name="pk_files"),
    )
    op.create_index(
        "ix_files_removed",
        "files",
        ["table_name", "removed_version"],
        sqlite_where=sa.text("removed_version IS NOT NULL"),
        postgresql_where=sa.text("removed_version IS NOT NULL"),
    )
    op.create_index("ix_files_table_name_added_version", "files", ["table_name", "added_version"])
    op.create_index("ix_files_table_name_event_time_max_us", "files", ["table_name", "event_time_max_us"])
    op.create_table(
        "online_definitions",
        sa.Column("aggregate", sa.String(length=80), nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("definition_json", sa.Text(), nullable=False),
        sa.Column("table_version", SERIAL, nullable=False),
        sa.ForeignKeyConstraint(
            ["table_version"], ["table_versions.table_version"], name="fk_online_definitions_table_version"
        ),
        sa.PrimaryKeyConstraint("aggregate", name="pk_online_definitions"),
    )
    op.create_index("ix_online_definitions_feed", "online_definitions", ["feed"])
    op.create_table(
        "online_features",
        sa.Column("aggregate", sa.String(length=80), nullable=False),
        sa.Column("entity", sa.String(length=255), nullable=False),
        sa.Column("known_at_us", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("table_version", SERIAL, nullable=False),
        sa.ForeignKeyConstraint(
            ["table_version"], ["table_versions.table_version"], name="fk_online_features_table_version"
        ),
        sa.PrimaryKeyConstraint("aggregate", "entity", "known_at_us", name="pk_online_features"),
    )
    op.create_index(
        "ix_online_features_aggregate_table_version", "online_features", ["aggregate", "table_version"]
    )
    op.create_table(
        "outcomes",
        sa.Column("outcome_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("prediction_id", sa.String(length=48), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("rollout_id", sa.BigInteger(), nullable=True),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("label", sa.Double(), nullable=False),
        sa.Column("event_time_us", sa.BigInteger(), nullable=False),
        sa.Column("joined_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("arm IN ('champion', 'challenger', 'fallback')", name="ck_outcomes_arm_known"),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["labels.prediction_id"], name="fk_outcomes_prediction_id"
        ),
        sa.PrimaryKeyConstraint("outcome_id", name="pk_outcomes"),
        sa.UniqueConstraint("prediction_id", name="uq_outcomes_prediction_id"),
    )
    op.create_index(
        "ix_outcomes_model_version_event_time_us", "outcomes", ["model", "version", "event_time_us"]
    )
    op.create_table(
        "prediction_files",
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("predicted_at_min_us", sa.BigInteger(), nullable=False),
        sa.Column("predicted_at_max_us", sa.BigInteger(), nullable=False),
        sa.Column("record_number_min", sa.BigInteger(), nullable=False),
        sa.Column("record_number_max", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server", "segment"],
            ["log_positions.server", "log_positions.segment"],
            name="fk_prediction_files_server_segment",
        ),
        sa.PrimaryKeyConstraint("path", name="pk_prediction_files"),
    )
    op.create_index("ix_prediction_files_server_segment", "prediction_files", ["server", "segment"])
    op.create_table(
        "probes",
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("plan_id", sa.BigInteger(), nullable=True),
        sa.Column("planned_version", sa.String(length=32), nullable=True),
        sa.Column("observed_version", sa.String(length=32), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("probed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("runtime", sa.String(length=32), nullable=True),
        sa.Column("serving_config", sa.String(length=32), nullable=True),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_probes_verdict_known"
        ),
        sa.ForeignKeyConstraint(["server"], ["servers.server"], name="fk_probes_server"),
        sa.PrimaryKeyConstraint("server", "model", name="pk_probes"),
    )
    op.create_table(
        "shadow_files",
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("predicted_at_min_us", sa.BigInteger(), nullable=False),
        sa.Column("predicted_at_max_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server", "segment"],
            ["log_positions.server", "log_positions.segment"],
            name="fk_shadow_files_server_segment",
        ),
        sa.PrimaryKeyConstraint("path", name="pk_shadow_files"),
    )
    op.create_index("ix_shadow_files_server_segment", "shadow_files", ["server", "segment"])
    op.create_table(
        "snapshots",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("table_version", SERIAL, nullable=False),
        sa.Column("contract_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["table_version"], ["table_versions.table_version"], name="fk_snapshots_table_version"
        ),
        sa.PrimaryKeyConstraint("snapshot", name="pk_snapshots"),
    )
    op.create_index("ix_snapshots_table_version", "snapshots", ["table_version"])
    op.create_table(
        "taints",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=63), nullable=False),
        sa.Column("backout_id", SERIAL, nullable=False),
        sa.Column("tainted_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('snapshot', 'version')", name="ck_taints_kind_known"),
        sa.ForeignKeyConstraint(["backout_id"], ["backouts.backout_id"], name="fk_taints_backout_id"),
        sa.PrimaryKeyConstraint("kind", "subject", "backout_id", name="pk_taints"),
    )
    op.create_table(
        "admissions",
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("rows_expected", sa.BigInteger(), nullable=True),
        sa.Column("profile_json", sa.Text(), nullable=False),
        sa.Column("rows_digest", sa.String(length=64), nullable=False),
        sa.Column("values_digest", sa.String(length=64), nullable=False),
        sa.Column("sequence_min", sa.BigInteger(), nullable=True),
        sa.Column("sequence_max", sa.BigInteger(), nullable=True),
        sa.Column("sequence_gaps", sa.BigInteger(), nullable=True),
        sa.Column("group_name", sa.String(length=63), nullable=True),
        sa.Column("event_time", sa.String(length=63), nullable=True),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_admissions_feed_batch_epoch",
        ),
        sa.PrimaryKeyConstraint("feed", "batch", "epoch", name="pk_admissions"),
    )
    op.create_index("ix_admissions_feed_rows_digest", "admissions", ["feed", "rows_digest"])
    op.create_index("ix_admissions_feed_values_digest", "admissions", ["feed", "values_digest"])
    op.create_table(
        "backout_batches",
        sa.Column("backout_id", SERIAL, nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("removed_version", SERIAL, nullable=True),
        sa.ForeignKeyConstraint(
            ["backout_id"], ["backouts.backout_id"], name="fk_backout_batches_backout_id"
        ),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_backout_batches_feed_batch_epoch",
        ),
        sa.ForeignKeyConstraint(
            ["removed_version"], ["table_versions.table_version"], name="fk_backout_batches_removed_version"
        ),
        sa.PrimaryKeyConstraint("backout_id", "feed", "batch", "epoch", name="pk_backout_batches"),
    )
    op.create_table(
        "batch_references",
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("column_name", sa.String(length=63), nullable=False),
        sa.Column("to_feed", sa.String(length=63), nullable=False),
        sa.Column("to_key", sa.String(length=63), nullable=False),
        sa.Column("to_batch", sa.String(length=63), nullable=False),
        sa.Column("to_epoch", sa.Integer(), nullable=False),
        sa.Column("lookback_start_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_batch_references_feed_batch_epoch",
        ),
        sa.ForeignKeyConstraint(
            ["to_feed", "to_batch", "to_epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_batch_references_to_feed_to_batch_to_epoch",
        ),
        sa.PrimaryKeyConstraint(
            "feed",
            "batch",
            "epoch",
            "column_name",
            "to_feed",
            "to_key",
            "to_batch",
            "to_epoch",
            name="pk_batch_references",
        ),
    )
    op.create_index(
        "ix_batch_references_to_feed_to_batch_to_epoch",
        "batch_references",
        ["to_feed", "to_batch", "to_epoch"],
    )
    op.create_table(
        "file_row_groups",
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("row_group", sa.Integer(), nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("removed_version", SERIAL, nullable=True),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_file_row_groups_feed_batch_epoch",
        ),
        sa.ForeignKeyConstraint(["path"], ["files.path"], name="fk_file_row_groups_path"),
        sa.ForeignKeyConstraint(
            ["removed_version"], ["table_versions.table_version"], name="fk_file_row_groups_removed_version"
        ),
        sa.PrimaryKeyConstraint("path", "row_group", name="pk_file_row_groups"),
    )
    op.create_index("ix_file_row_groups_feed_batch_epoch", "file_row_groups", ["feed", "batch", "epoch"])
    op.create_index(
        "ix_file_row_groups_removed",
        "file_row_groups",
        ["removed_version"],
        sqlite_where=sa.text("removed_version IS NOT NULL"),
        postgresql_where=sa.text("removed_version IS NOT NULL"),
    )
    op.create_table(
        "selections",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("selection_hash", sa.String(length=64), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("selection_json", sa.Text(), nullable=False),
        sa.Column("removed_rows_json", sa.Text(), nullable=False),
        sa.Column("rows_total", sa.BigInteger(), nullable=False),
        sa.Column("rows_selected", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_selections_snapshot"),
        sa.PrimaryKeyConstraint("snapshot", "selection_hash", name="pk_selections"),
    )
    op.create_table(
        "snapshot_incomplete_loads",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_snapshot_incomplete_loads_feed_batch_epoch",
        ),
        sa.ForeignKeyConstraint(
            ["snapshot"], ["snapshots.snapshot"], name="fk_snapshot_incomplete_loads_snapshot"
        ),
        sa.PrimaryKeyConstraint("snapshot", "feed", "batch", "epoch", name="pk_snapshot_incomplete_loads"),
    )
    op.create_table(
        "snapshot_slices",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("selection_hash", sa.String(length=64), nullable=False),
        sa.Column("column_name", sa.String(length=63), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.Column("rows_total", sa.BigInteger(), nullable=False),
        sa.Column("rows_selected", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_snapshot_slices_snapshot"),
        sa.PrimaryKeyConstraint(
            "snapshot", "selection_hash", "column_name", "value", name="pk_snapshot_slices"
        ),
    )
    op.create_table(
        "snapshot_tables",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("table_name", sa.String(length=63), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_snapshot_tables_snapshot"),
        sa.PrimaryKeyConstraint("snapshot", "table_name", name="pk_snapshot_tables"),
    )
    op.create_table(
        "vacuumed_snapshots",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("vacuumed_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_vacuumed_snapshots_snapshot"),
        sa.PrimaryKeyConstraint("snapshot", name="pk_vacuumed_snapshots"),
    )
    op.create_table(
        "versions",
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("contract_hash", sa.String(length=64), nullable=False),
        sa.Column("features_hash", sa.String(length=64), nullable=False),
        sa.Column("learner", sa.String(length=63), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("role IN ('candidate', 'heuristic')", name="ck_versions_role_known"),
        sa.CheckConstraint("state IN ('registered', 'qualified', 'refused')", name="ck_versions_state_known"),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_versions_snapshot"),
        sa.PrimaryKeyConstraint("version", name="pk_versions"),
        sa.UniqueConstraint("digest", name="uq_versions_digest"),
    )
    op.create_index("ix_versions_snapshot", "versions", ["snapshot"])
    op.create_index("uq_versions_model_number", "versions", ["model", "number"], unique=True)
    op.create_table(
        "compatibility_tests",
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("runtime", sa.String(length=32), nullable=False),
        sa.Column("serving_config", sa.String(length=32), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("evaluated_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')",
            name="ck_compatibility_tests_verdict_known",
        ),
        sa.ForeignKeyConstraint(["runtime"], ["runtimes.runtime"], name="fk_compatibility_tests_runtime"),
        sa.ForeignKeyConstraint(
            ["serving_config"],
            ["serving_configs.serving_config"],
            name="fk_compatibility_tests_serving_config",
        ),
        sa.ForeignKeyConstraint(["version"], ["versions.version"], name="fk_compatibility_tests_version"),
        sa.PrimaryKeyConstraint("version", "runtime", "serving_config", name="pk_compatibility_tests"),
    )
    op.create_table(
        "gate_results",
        sa.Column("gate_result_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("gate", sa.String(length=63), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("observed", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("bound", sa.Double(), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("evaluated_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_gate_results_verdict_known"
        ),
        sa.ForeignKeyConstraint(["version"], ["versions.version"], name="fk_gate_results_version"),
        sa.PrimaryKeyConstraint("gate_result_id", name="pk_gate_results"),
    )
    op.create_index("ix_gate_results_version", "gate_results", ["version"])
    op.create_table(
        "rollouts",
        sa.Column("rollout_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("challenger", sa.String(length=32), nullable=False),
        sa.Column("champion", sa.String(length=32), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("policy_json", sa.Text(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=False),
        sa.Column("step_started_at_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=63), nullable=False),
        sa.Column("runtime", sa.String(length=32), nullable=True),
        sa.Column("serving_config", sa.String(length=32), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'shadowing', 'canary', 'paused', 'verifying', 'promoted', 'rolling_back', 'rolled_back', 'cancelled')",
            name="ck_rollouts_state_known",
        ),
        sa.CheckConstraint("challenger <> champion", name="ck_rollouts_two_versions"),
        sa.ForeignKeyConstraint(["challenger"], ["versions.version"], name="fk_rollouts_challenger"),
        sa.ForeignKeyConstraint(["champion"], ["versions.version"], name="fk_rollouts_champion"),
        sa.ForeignKeyConstraint(["runtime"], ["runtimes.runtime"], name="fk_rollouts_runtime"),
        sa.ForeignKeyConstraint(
            ["serving_config"], ["serving_configs.serving_config"], name="fk_rollouts_serving_config"
        ),
        sa.PrimaryKeyConstraint("rollout_id", name="pk_rollouts"),
    )
    op.create_index("ix_rollouts_challenger", "rollouts", ["challenger"])
    op.create_index(
        "uq_rollouts_one_under_way",
        "rollouts",
        ["model"],
        unique=True,
        sqlite_where=sa.text("state NOT IN ('cancelled', 'promoted', 'rolled_back')"),
        postgresql_where=sa.text("state NOT IN ('cancelled', 'promoted', 'rolled_back')"),
    )
    op.create_table(
        "decisions",
        sa.Column("event_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rollout_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("evidence_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["events.event_id"], name="fk_decisions_event_id"),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollouts.rollout_id"], name="fk_decisions_rollout_id"),
        sa.PrimaryKeyConstraint("event_id", name="pk_decisions"),
    )
    op.create_index("ix_decisions_rollout_id", "decisions", ["rollout_id"])
    op.create_table(
        "pushes",
        sa.Column("rollout_id", SERIAL, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("labelled_by", sa.String(length=63), nullable=False),
        sa.Column("labelled_at_us", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=True),
        sa.Column("bake_until_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('open', 'good', 'bad', 'escaped', 'censored')", name="ck_pushes_outcome_known"
        ),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollouts.rollout_id"], name="fk_pushes_rollout_id"),
        sa.PrimaryKeyConstraint("rollout_id", name="pk_pushes"),
    )
    op.create_index("ix_pushes_model", "pushes", ["model"])
    op.create_table(
        "rollout_evidence",
        sa.Column("rollout_id", SERIAL, nullable=False),
        sa.Column("metric", sa.String(length=63), nullable=False),
        sa.Column("challenger_units", sa.BigInteger(), nullable=False),
        sa.Column("challenger_total", sa.Double(), nullable=False),
        sa.Column("champion_units", sa.BigInteger(), nullable=False),
        sa.Column("champion_total", sa.Double(), nullable=False),
        sa.Column("log_e", sa.Double(), nullable=False),
        sa.Column("log_bound", sa.Double(), nullable=False),
        sa.Column("step_units", sa.BigInteger(), nullable=False),
        sa.Column("latency_bound_us", sa.Double(), nullable=True),
        sa.Column("evidence_json", sa.Text(), nullable=False),
        sa.Column("history_json", sa.Text(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.rollout_id"], name="fk_rollout_evidence_rollout_id"
        ),
        sa.PrimaryKeyConstraint("rollout_id", "metric", name="pk_rollout_evidence"),
    )
    op.create_table(
        "traffic_plans",
        sa.Column("plan_id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("champion", sa.String(length=32), nullable=False),
        sa.Column("challenger", sa.String(length=32), nullable=True),
        sa.Column("share_ppm", sa.Integer(), nullable=False),
        sa.Column("previous", sa.String(length=32), nullable=True),
        sa.Column("fallback", sa.String(length=32), nullable=True),
        sa.Column("rollout_id", SERIAL, nullable=True),
        sa.Column("committed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("shadow", sa.String(length=32), nullable=True),
        sa.Column("shadow_ppm", sa.Integer(), nullable=False),
        sa.Column("serving_config", sa.String(length=32), nullable=True),
        sa.Column("runtime", sa.String(length=32), nullable=True),
        sa.CheckConstraint("challenger <> champion", name="ck_traffic_plans_two_versions"),
        sa.CheckConstraint(
            "challenger IS NOT NULL OR share_ppm = 0", name="ck_traffic_plans_no_share_without_challenger"
        ),
        sa.CheckConstraint("shadow_ppm BETWEEN 0 AND 1000000", name="ck_traffic_plans_shadow_ppm_in_range"),
        sa.CheckConstraint("share_ppm BETWEEN 0 AND 1000000", name="ck_traffic_plans_share_ppm_in_range"),
        sa.ForeignKeyConstraint(["challenger"], ["versions.version"], name="fk_traffic_plans_challenger"),
        sa.ForeignKeyConstraint(["champion"], ["versions.version"], name="fk_traffic_plans_champion"),
        sa.ForeignKeyConstraint(["fallback"], ["versions.version"], name="fk_traffic_plans_fallback"),
        sa.ForeignKeyConstraint(["previous"], ["versions.version"], name="fk_traffic_plans_previous"),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollouts.rollout_id"], name="fk_traffic_plans_rollout_id"),
        sa.ForeignKeyConstraint(["runtime"], ["runtimes.runtime"], name="fk_traffic_plans_runtime"),
        sa.ForeignKeyConstraint(
            ["serving_config"], ["serving_configs.serving_config"], name="fk_traffic_plans_serving_config"
        ),
        sa.ForeignKeyConstraint(["shadow"], ["versions.version"], name="fk_traffic_plans_shadow"),
        sa.PrimaryKeyConstraint("plan_id", name="pk_traffic_plans"),
    )
    op.create_index("ix_traffic_plans_champion", "traffic_plans", ["champion"])
    op.create_index("ix_traffic_plans_model", "traffic_plans", ["model"])
    op.create_index("ix_traffic_plans_rollout_id", "traffic_plans", ["rollout_id"])
    op.create_table(
        "webhook_responses",
        sa.Column("rollout_id", SERIAL, nullable=False),
        sa.Column("event", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("webhook", sa.String(length=63), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("requested_at_us", sa.BigInteger(), nullable=False),
        sa.Column("request_json", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_webhook_responses_verdict_known"
        ),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.rollout_id"], name="fk_webhook_responses_rollout_id"
        ),
        sa.PrimaryKeyConstraint("rollout_id", "event", "step", "webhook", name="pk_webhook_responses"),
    )
