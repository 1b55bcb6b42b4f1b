"""Tables of snapshots: their table version, the loads that they exclude, and their selections."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Integer, String, Table, Text

from holdfast.store.db.schema.catalog import table_versions
from holdfast.store.db.schema.metadata import METADATA, key, load_key, optional, required

snapshots = Table(
    "snapshots",
    METADATA,
    key("snapshot", String(32), "Name, with a digest of its content."),
    required(
        "table_version", table_versions.c.table_version, "Version of the tables that it reads.", index=True
    ),
    required("contract_hash", String(64), "Contract of the model's feed."),
    required("created_at_us", BigInteger, "When it was created."),
    optional("begun_at_us", BigInteger, "When its creation began; null in snapshots of earlier releases."),
    comment="Named, immutable versions of the tables. Training always reads a snapshot.",
)

snapshot_tables = Table(
    "snapshot_tables",
    METADATA,
    key("snapshot", snapshots.c.snapshot, "The snapshot."),
    key("table_name", String(63), "Table that it reads."),
    required("rows", BigInteger, "Rows of the table in the snapshot."),
    required("files", Integer, "Files of the table in the snapshot."),
    comment="Size of each table in a snapshot.",
)

snapshot_quality = Table(
    "snapshot_quality",
    METADATA,
    key("snapshot", snapshots.c.snapshot, "The snapshot."),
    required("score", Double, "Product of the shares, 0 to 1."),
    required("complete", Double, "Rows that came, of those that the senders declared."),
    required("valid", Double, "Rows that the contracts accepted, of those that came."),
    required("as_expected", Double, "Accepted rows in loads without a violation, of all accepted rows."),
    required("assessed_at_us", BigInteger, "When it was last assessed: violations may be found later."),
    comment="How good the data of each snapshot are, as assessed when it was created or trained on.",
)

vacuumed_snapshots = Table(
    "vacuumed_snapshots",
    METADATA,
    key("snapshot", snapshots.c.snapshot, "The snapshot."),
    required("vacuumed_at_us", BigInteger, "When its first file was removed."),
    comment="Snapshots that lost files to a vacuum: their contents are known but can no longer be read.",
)

snapshot_incomplete_loads = Table(
    "snapshot_incomplete_loads",
    METADATA,
    key("snapshot", snapshots.c.snapshot, "The snapshot."),
    *load_key(),
    comment="Loads excluded from a snapshot, because another feed of their group had not delivered the batch.",
)

snapshot_slices = Table(
    "snapshot_slices",
    METADATA,
    key("snapshot", snapshots.c.snapshot, "The snapshot."),
    key("selection_hash", String(64), "As in selections."),
    key("column_name", String(63), "Column that is sliced by."),
    key("value", String(255), "Value of the slice."),
    required("rows_total", BigInteger, "Rows of the slice in the snapshot."),
    required("rows_selected", BigInteger, "Rows left after quotas and caps."),
    optional(
        "weight_selected",
        Double,
        "Sum of the weights of these rows, with mean 1 over all; null if not recorded.",
    ),
    comment="Rows of each slice before and after selection.",
)

selections = Table(
    "selections",
    METADATA,
    key("snapshot", snapshots.c.snapshot, "The snapshot."),
    key("selection_hash", String(64), "SHA-256 of selection and seed."),
    required("seed", BigInteger, "Seed of the random choice."),
    required("selection_json", Text, "Filters, quotas, caps and weights, canonical JSON."),
    required("removed_rows_json", Text, "Rows removed by each filter and cap, canonical JSON."),
    required("rows_total", BigInteger, "Rows of the snapshot."),
    required("rows_selected", BigInteger, "Rows for training."),
    comment="Rows of a snapshot chosen for training. Equal snapshot and selection give equal rows.",
)
