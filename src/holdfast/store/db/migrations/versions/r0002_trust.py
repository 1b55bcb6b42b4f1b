"""What a load that can be trusted and backed out needs: whose rows a file holds, contracts, profiles, violations, back-outs,
taints, and which rows of a snapshot teach.

Files get a row in `file_batches` each, so that one file may hold the rows of several loads after compaction.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only in a column of type INTEGER; PostgreSQL needs 64 bits.
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the new tables and move what the old `files` said of batches."""
    _rebuild_files()
    _create_asked()
    _create_backouts()
    _create_contracts()
    _create_feeds()
    _create_followers()
    _create_violations()
    _create_taints()
    _create_admissions()
    _create_backout_batches()
    _create_file_batches()
    _create_let_go()
    _create_load_references()
    _create_selections()
    _create_snapshot_held_back()
    _create_snapshot_slices()
    _index_batches()
    _index_rollouts()
    _index_snapshots()
    _index_traffic_plans()
    _index_versions()
    _move_batches()
    _rebuild_online_features()


def _rebuild_files() -> None:
    op.drop_index("ix_files_table_name_added_version", "files")
    op.execute("ALTER TABLE files RENAME TO files_0001")
    if op.get_bind().dialect.name == "postgresql":  # there the names of constraints outlive the rename
        op.execute("ALTER TABLE files_0001 RENAME CONSTRAINT pk_files TO pk_files_0001")
    _create_files()


def _move_batches() -> None:
    op.execute(
        """
        INSERT INTO files (path, table_name, feed, rows, bytes, sha256, event_low_us, event_high_us,
                           added_version, removed_version)
        SELECT f.path, f.table_name, f.feed, f.rows, f.bytes, f.sha256, b.event_low_us, b.event_high_us,
               f.added_version, f.removed_version
        FROM files_0001 AS f
        JOIN batches AS b ON b.feed = f.feed AND b.batch = f.batch AND b.epoch = f.epoch
        """
    )
    op.execute(
        """
        INSERT INTO file_batches (path, row_group, feed, batch, epoch, rows)
        SELECT path, 0, feed, batch, epoch, rows FROM files_0001
        """
    )
    op.drop_table("files_0001")


def _rebuild_online_features() -> None:
    """A value may be null from here on: it was there, and nothing supports it any more."""
    op.drop_index("ix_online_features_aggregate_table_version", "online_features")
    op.execute("ALTER TABLE online_features RENAME TO online_features_0001")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "ALTER TABLE online_features_0001 RENAME CONSTRAINT pk_online_features TO pk_online_features_0001"
        )
    _create_online_features()
    op.execute(
        """
        INSERT INTO online_features (aggregate, entity, known_us, value, table_version)
        SELECT aggregate, entity, known_us, value, table_version FROM online_features_0001
        """
    )
    op.drop_table("online_features_0001")


def _index_batches() -> None:
    op.create_index("ix_batches_feed_table_version", "batches", ["feed", "table_version"], unique=False)


def _index_rollouts() -> None:
    op.create_index("ix_rollouts_challenger", "rollouts", ["challenger"], unique=False)


def _index_snapshots() -> None:
    op.create_index("ix_snapshots_table_version", "snapshots", ["table_version"], unique=False)


def _index_traffic_plans() -> None:
    op.create_index("ix_traffic_plans_champion", "traffic_plans", ["champion"], unique=False)
    op.create_index("ix_traffic_plans_rollout", "traffic_plans", ["rollout"], unique=False)


def _index_versions() -> None:
    op.create_index("ix_versions_snapshot", "versions", ["snapshot"], unique=False)


def _create_files() -> None:
    op.create_table(
        "files",
        sa.Column("path", sa.String(length=255), nullable=False, comment="relative to the store's root"),
        sa.Column("table_name", sa.String(length=63), nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column(
            "event_low_us",
            sa.BigInteger(),
            nullable=True,
            comment="bounds of the event times of its valid rows",
        ),
        sa.Column("event_high_us", sa.BigInteger(), nullable=True),
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
        comment=(
            "Immutable Parquet files; table t at version v is the files with added <= v and (removed "
            "is null or removed > v)."
        ),
    )
    op.create_index(
        "ix_files_removed",
        "files",
        ["table_name", "removed_version"],
        unique=False,
        sqlite_where=sa.text("removed_version IS NOT NULL"),
        postgresql_where=sa.text("removed_version IS NOT NULL"),
    )
    op.create_index(
        "ix_files_table_name_added_version", "files", ["table_name", "added_version"], unique=False
    )
    op.create_index(
        "ix_files_table_name_event_high_us", "files", ["table_name", "event_high_us"], unique=False
    )


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
        sa.Column(
            "value", sa.Double(), nullable=True, comment="null where the rows behind it were backed out"
        ),
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


def _create_asked() -> None:
    op.create_table(
        "asked",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column(
            "version",
            sa.String(length=32),
            nullable=False,
            comment="the champion whose newest answers were looked at",
        ),
        sa.Column(
            "last_us",
            sa.BigInteger(),
            nullable=False,
            comment="when the newest of them was given; 0 without one",
        ),
        sa.Column("computed_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "found", sa.Text(), nullable=False, comment="slices and share of the label, canonical JSON"
        ),
        sa.PrimaryKeyConstraint("model", name="pk_asked"),
        comment=(
            "What callers ask the champion, against what it learnt from: the last comparison of each model."
        ),
    )


def _create_backouts() -> None:
    op.create_table(
        "backouts",
        sa.Column("backout", SERIAL, autoincrement=True, nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column(
            "plan",
            sa.Text(),
            nullable=False,
            comment="the steps, as they were shown and as they are executed, canonical JSON",
        ),
        sa.Column("steps_done", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=63), nullable=False),
        sa.Column("asked_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('under_way', 'done')", name="ck_backouts_state_known"),
        sa.PrimaryKeyConstraint("backout", name="pk_backouts"),
        comment="One row per back-out that was begun. It is carried on from `steps_done`, whoever runs it.",
    )
    op.create_index("ix_backouts_feed_batch", "backouts", ["feed", "batch"], unique=False)
    op.create_index("ix_backouts_state", "backouts", ["state"], unique=False)


def _create_contracts() -> None:
    op.create_table(
        "contracts",
        sa.Column("contract_hash", sa.String(length=64), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False, comment="canonical JSON"),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("contract_hash", name="pk_contracts"),
        comment="Every contract that judged a row, so that what changed between two can be told years later.",
    )


def _create_feeds() -> None:
    op.create_table(
        "feeds",
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("contract_hash", sa.String(length=64), nullable=False, comment="of the newest delivery"),
        sa.Column(
            "reason", sa.Text(), nullable=False, comment="why it is in this state, in words and numbers"
        ),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('flowing', 'suspect', 'refusing')", name="ck_feeds_state_known"),
        sa.PrimaryKeyConstraint("feed", name="pk_feeds"),
        comment="One row per feed that ever delivered.",
    )


def _create_followers() -> None:
    op.create_table(
        "followers",
        sa.Column(
            "follower",
            sa.String(length=63),
            nullable=False,
            comment="who reads the story, such as 'openlineage'",
        ),
        sa.Column("event", sa.BigInteger(), nullable=False, comment="the last event that it has dealt with"),
        sa.PrimaryKeyConstraint("follower", name="pk_followers"),
        comment="How far the readers of the events have come, so that each goes on from where it was.",
    )


def _create_violations() -> None:
    op.create_table(
        "violations",
        sa.Column("violation", SERIAL, autoincrement=True, nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=True, comment="null for a delivery that was refused"),
        sa.Column(
            "check_name",
            sa.String(length=63),
            nullable=False,
            comment="which expectation: volume, gap, schema, shift ...",
        ),
        sa.Column(
            "subject",
            sa.String(length=127),
            nullable=False,
            comment="the column, slice or rule that it is about",
        ),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("observed", sa.Double(), nullable=True),
        sa.Column("bound", sa.Double(), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("found_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "accepted_us",
            sa.BigInteger(),
            nullable=True,
            comment="when a person said that it is meant to be so",
        ),
        sa.Column("accepted_by", sa.String(length=63), nullable=True),
        sa.CheckConstraint("level IN ('warning', 'error', 'critical')", name="ck_violations_level_known"),
        sa.CheckConstraint(
            "(accepted_us IS NULL) = (accepted_by IS NULL)", name="ck_violations_accepted_by_somebody"
        ),
        sa.PrimaryKeyConstraint("violation", name="pk_violations"),
        comment="Expectations of a feed that a delivery did not meet.",
    )
    op.create_index("ix_violations_feed_batch", "violations", ["feed", "batch"], unique=False)


def _create_taints() -> None:
    op.create_table(
        "taints",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column(
            "subject", sa.String(length=63), nullable=False, comment="the snapshot's or the version's name"
        ),
        sa.Column("backout", SERIAL, nullable=False),
        sa.Column("tainted_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('snapshot', 'version')", name="ck_taints_kind_known"),
        sa.ForeignKeyConstraint(["backout"], ["backouts.backout"], name="fk_taints_backout"),
        sa.PrimaryKeyConstraint("kind", "subject", "backout", name="pk_taints"),
        comment=(
            "What was made from rows that were backed out. A tainted version is never given traffic again."
        ),
    )


def _create_admissions() -> None:
    op.create_table(
        "admissions",
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column(
            "rows_expected",
            sa.BigInteger(),
            nullable=True,
            comment="what the sender says he sent; null when he does not",
        ),
        sa.Column(
            "profile",
            sa.Text(),
            nullable=False,
            comment="what the rows look like: counts by frozen bin, canonical JSON",
        ),
        sa.Column(
            "rows_digest",
            sa.String(length=64),
            nullable=False,
            comment="of the valid rows, whatever their order",
        ),
        sa.Column(
            "values_digest",
            sa.String(length=64),
            nullable=False,
            comment="of the valid rows without key and event time; empty where it was not asked for",
        ),
        sa.Column(
            "sequence_low",
            sa.BigInteger(),
            nullable=True,
            comment="the lowest number of the feed's counting column",
        ),
        sa.Column("sequence_high", sa.BigInteger(), nullable=True, comment="the highest"),
        sa.Column(
            "sequence_holes",
            sa.BigInteger(),
            nullable=True,
            comment="how many numbers between them are missing",
        ),
        sa.Column(
            "group_name",
            sa.String(length=63),
            nullable=True,
            comment=(
                "the feed's group when it was loaded, empty for a feed of its own; null when nobody noted it"
            ),
        ),
        sa.Column(
            "event_time",
            sa.String(length=63),
            nullable=True,
            comment="the column of the feed's event times then",
        ),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_admissions_feed_batch_epoch",
        ),
        sa.PrimaryKeyConstraint("feed", "batch", "epoch", name="pk_admissions"),
        comment="What a batch looked like when it was let in; later batches are compared with it.",
    )
    op.create_index("ix_admissions_feed_rows_digest", "admissions", ["feed", "rows_digest"], unique=False)
    op.create_index("ix_admissions_feed_values_digest", "admissions", ["feed", "values_digest"], unique=False)


def _create_backout_batches() -> None:
    op.create_table(
        "backout_batches",
        sa.Column("backout", SERIAL, nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column(
            "removed_version",
            SERIAL,
            nullable=True,
            comment="the version from which on the load is in no table; null until it was taken out",
        ),
        sa.ForeignKeyConstraint(["backout"], ["backouts.backout"], name="fk_backout_batches_backout"),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_backout_batches_feed_batch_epoch",
        ),
        sa.ForeignKeyConstraint(
            ["removed_version"], ["table_versions.table_version"], name="fk_backout_batches_removed_version"
        ),
        sa.PrimaryKeyConstraint("backout", "feed", "batch", "epoch", name="pk_backout_batches"),
        comment="The loads that a back-out removes: the one that was named and those of its group.",
    )


def _create_file_batches() -> None:
    op.create_table(
        "file_batches",
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("row_group", sa.Integer(), nullable=False, comment="where the load's row groups begin"),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column(
            "removed_version",
            SERIAL,
            nullable=True,
            comment=(
                "from here on readers skip these row groups, although the file stays for the other loads "
                "in it"
            ),
        ),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_file_batches_feed_batch_epoch",
        ),
        sa.ForeignKeyConstraint(["path"], ["files.path"], name="fk_file_batches_path"),
        sa.ForeignKeyConstraint(
            ["removed_version"], ["table_versions.table_version"], name="fk_file_batches_removed_version"
        ),
        sa.PrimaryKeyConstraint("path", "row_group", name="pk_file_batches"),
        comment="Whose rows a file holds: one load's, or after compaction those of several, each kept apart.",
    )
    op.create_index(
        "ix_file_batches_feed_batch_epoch", "file_batches", ["feed", "batch", "epoch"], unique=False
    )
    op.create_index(
        "ix_file_batches_removed",
        "file_batches",
        ["removed_version"],
        unique=False,
        sqlite_where=sa.text("removed_version IS NOT NULL"),
        postgresql_where=sa.text("removed_version IS NOT NULL"),
    )


def _create_let_go() -> None:
    op.create_table(
        "let_go",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_let_go_snapshot"),
        sa.PrimaryKeyConstraint("snapshot", name="pk_let_go"),
        comment=(
            "Snapshots of which a vacuum removed files: what was in them is known, but cannot be read"
            " any more."
        ),
    )


def _create_load_references() -> None:
    op.create_table(
        "load_references",
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("column_name", sa.String(length=63), nullable=False),
        sa.Column("to_feed", sa.String(length=63), nullable=False),
        sa.Column("to_key", sa.String(length=63), nullable=False),
        sa.Column("to_batch", sa.String(length=63), nullable=False),
        sa.Column("to_epoch", sa.Integer(), nullable=False),
        sa.Column(
            "reaching_us",
            sa.BigInteger(),
            nullable=True,
            comment="how far back in event time it looked; null for all the rows there were",
        ),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_load_references_feed_batch_epoch",
        ),
        sa.ForeignKeyConstraint(
            ["to_feed", "to_batch", "to_epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_load_references_to_feed_to_batch_to_epoch",
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
            name="pk_load_references",
        ),
        comment="Whose keys the rows of a load were let in for: they refer to nothing when these loads go.",
    )
    op.create_index(
        "ix_load_references_to_feed_to_batch_to_epoch",
        "load_references",
        ["to_feed", "to_batch", "to_epoch"],
        unique=False,
    )


def _create_selections() -> None:
    op.create_table(
        "selections",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column(
            "selection_hash", sa.String(length=64), nullable=False, comment="SHA-256 of selection and seed"
        ),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column(
            "selection",
            sa.Text(),
            nullable=False,
            comment="filters, quotas, caps and weights, canonical JSON",
        ),
        sa.Column(
            "counts",
            sa.Text(),
            nullable=False,
            comment="rows that each filter, cap and rule struck, canonical JSON",
        ),
        sa.Column("rows_found", sa.BigInteger(), nullable=False),
        sa.Column("rows_taken", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_selections_snapshot"),
        sa.PrimaryKeyConstraint("snapshot", "selection_hash", name="pk_selections"),
        comment=(
            "Which rows of a snapshot teach. The same snapshot and selection give the same rows, bit for bit."
        ),
    )


def _create_snapshot_held_back() -> None:
    op.create_table(
        "snapshot_held_back",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("feed", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["feed", "batch", "epoch"],
            ["batches.feed", "batches.batch", "batches.epoch"],
            name="fk_snapshot_held_back_feed_batch_epoch",
        ),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_snapshot_held_back_snapshot"),
        sa.PrimaryKeyConstraint("snapshot", "feed", "batch", "epoch", name="pk_snapshot_held_back"),
        comment=(
            "Loads that a snapshot leaves out, because another feed of their group has not delivered "
            "that batch yet."
        ),
    )


def _create_snapshot_slices() -> None:
    op.create_table(
        "snapshot_slices",
        sa.Column("snapshot", sa.String(length=32), nullable=False),
        sa.Column("selection_hash", sa.String(length=64), nullable=False),
        sa.Column("column_name", sa.String(length=63), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.Column("rows_found", sa.BigInteger(), nullable=False),
        sa.Column("rows_taken", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.snapshot"], name="fk_snapshot_slices_snapshot"),
        sa.PrimaryKeyConstraint(
            "snapshot", "selection_hash", "column_name", "value", name="pk_snapshot_slices"
        ),
        comment="How many rows of each slice a snapshot has, and how many its quotas and caps let through.",
    )
