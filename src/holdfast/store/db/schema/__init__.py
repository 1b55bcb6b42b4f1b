"""Tables of the ledger. Invariants are CHECKs and unique indexes, so that no code path can break them.

Timestamps are UTC in microseconds since 1970 (`*_at_us`), lengths are microseconds (`*_duration_us`), shares are parts per
million (`*_ppm`), and JSON columns end in `_json`. Keys that the ledger numbers end in `_id`; names given outside (feed,
batch, model, version) do not. Import tables from this package: then `METADATA` holds all of them.
"""

from __future__ import annotations

from holdfast.store.db.schema.admission import (
    admissions,
    batch_references,
    contracts,
    declarations,
    feeds,
    violations,
)
from holdfast.store.db.schema.backout import backout_batches, backouts, taints
from holdfast.store.db.schema.catalog import batches, file_row_groups, files, table_versions
from holdfast.store.db.schema.events import event_cursors, events, failed_operations, leases
from holdfast.store.db.schema.metadata import METADATA
from holdfast.store.db.schema.online import online_definitions, online_features, online_withheld_loads
from holdfast.store.db.schema.rollout import (
    compatibility_tests,
    decisions,
    drills,
    gate_results,
    pushes,
    queued_rollouts,
    rollout_evidence,
    rollouts,
    runtimes,
    serving_configs,
    traffic_plans,
    versions,
    webhook_responses,
    webhooks,
)
from holdfast.store.db.schema.snapshots import (
    selections,
    snapshot_incomplete_loads,
    snapshot_quality,
    snapshot_slices,
    snapshot_tables,
    snapshots,
    vacuumed_snapshots,
)
from holdfast.store.db.schema.telemetry import (
    key_labels,
    labels,
    log_positions,
    outcome_slices,
    outcomes,
    prediction_files,
    probes,
    problems,
    request_counts,
    servers,
    shadow_files,
    traffic_comparisons,
    withdrawn_outcomes,
)

__all__ = [
    "METADATA",
    "admissions",
    "backout_batches",
    "backouts",
    "batch_references",
    "batches",
    "compatibility_tests",
    "contracts",
    "decisions",
    "declarations",
    "drills",
    "event_cursors",
    "events",
    "failed_operations",
    "feeds",
    "file_row_groups",
    "files",
    "gate_results",
    "key_labels",
    "labels",
    "leases",
    "log_positions",
    "online_definitions",
    "online_features",
    "online_withheld_loads",
    "outcome_slices",
    "outcomes",
    "prediction_files",
    "probes",
    "problems",
    "pushes",
    "queued_rollouts",
    "request_counts",
    "rollout_evidence",
    "rollouts",
    "runtimes",
    "selections",
    "servers",
    "serving_configs",
    "shadow_files",
    "snapshot_incomplete_loads",
    "snapshot_quality",
    "snapshot_slices",
    "snapshot_tables",
    "snapshots",
    "table_versions",
    "taints",
    "traffic_comparisons",
    "traffic_plans",
    "vacuumed_snapshots",
    "versions",
    "violations",
    "webhook_responses",
    "webhooks",
    "withdrawn_outcomes",
]
