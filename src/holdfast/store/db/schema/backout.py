"""Tables of back-outs: the plans, the loads that they remove, and what was derived from these loads."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, String, Table, Text

from holdfast.store.db.schema.catalog import table_versions
from holdfast.store.db.schema.metadata import METADATA, key, load_key, one_of, optional, required, serial
from holdfast.tables.backout import BackoutState

backouts = Table(
    "backouts",
    METADATA,
    serial("backout_id", "Number of the back-out."),
    required("feed", String(63), "Feed of the named batch."),
    required("batch", String(63), "Batch that was named in the command."),
    required("state", String(16), "Whether steps are left to do.", index=True),
    required("plan_json", Text, "The steps as shown and executed, canonical JSON."),
    required("steps_done", Integer, "How many steps are committed."),
    required("reason", Text, "Why the batch is backed out."),
    required("actor", String(63), "Actor that requested it."),
    required("requested_at_us", BigInteger, "When it was requested."),
    required("changed_at_us", BigInteger, "When the last step was committed."),
    one_of("state", BackoutState),
    Index("ix_backouts_feed_batch", "feed", "batch"),
    comment="One row per back-out. An interrupted one is resumed from `steps_done`.",
)

backout_batches = Table(
    "backout_batches",
    METADATA,
    key("backout_id", backouts.c.backout_id, "Back-out that removes the load."),
    *load_key(),
    optional(
        "removed_version",
        table_versions.c.table_version,
        "First table version without the load; null until it is removed.",
    ),
    comment="Loads that a back-out removes: the named batch and those of its group.",
)

taints = Table(
    "taints",
    METADATA,
    key("kind", String(16), "Whether a snapshot or a version is tainted."),
    key("subject", String(63), "Name of the snapshot or version."),
    key("backout_id", backouts.c.backout_id, "Back-out that tainted it."),
    required("tainted_at_us", BigInteger, "When it was tainted."),
    optional(
        "row_use",
        String(16),
        "evaluated if only held-out rows of a version are backed out; null for all others.",
    ),
    one_of("kind", ("snapshot", "version")),
    comment="Snapshots and versions derived from backed-out rows. A tainted version gets no new traffic.",
)
