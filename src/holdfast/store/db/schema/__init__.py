"""The ledger's tables. What must always hold is a CHECK or a unique index here, so that no code path can break it.

Times are UTC, in microseconds since 1970 (`*_us`): both databases compare and index them alike, and nothing is lost
in a round trip. Names that end in `_ppm` are parts per million. Tables lie here by subject; whoever needs one takes it
from this package, so that importing any of them fills `METADATA` with all. The functions for rows of x are in `store/x.py`.
"""

from __future__ import annotations

from holdfast.store.db.schema.admission import admissions, contracts, feeds, load_references, violations
from holdfast.store.db.schema.backout import backout_batches, backouts, taints
from holdfast.store.db.schema.catalog import batches, file_batches, files, table_versions
from holdfast.store.db.schema.events import events, followers, leases
from holdfast.store.db.schema.metadata import METADATA
from holdfast.store.db.schema.online import online_definitions, online_features
from holdfast.store.db.schema.rollout import (
    binaries,
    configurations,
    decisions,
    drills,
    gate_results,
    hook_answers,
    hooks,
    pushes,
    releases,
    rollout_evidence,
    rollouts,
    traffic_plans,
    versions,
)
from holdfast.store.db.schema.snapshots import (
    let_go,
    selections,
    snapshot_held_back,
    snapshot_slices,
    snapshot_tables,
    snapshots,
)
from holdfast.store.db.schema.telemetry import (
    asked,
    labels,
    outcomes,
    prediction_files,
    probes,
    segments,
    servers,
    shadow_files,
    usage,
)

__all__ = [
    "METADATA",
    "admissions",
    "asked",
    "backout_batches",
    "backouts",
    "batches",
    "binaries",
    "configurations",
    "contracts",
    "decisions",
    "drills",
    "events",
    "feeds",
    "file_batches",
    "files",
    "followers",
    "gate_results",
    "hook_answers",
    "hooks",
    "labels",
    "leases",
    "let_go",
    "load_references",
    "online_definitions",
    "online_features",
    "outcomes",
    "prediction_files",
    "probes",
    "pushes",
    "releases",
    "rollout_evidence",
    "rollouts",
    "segments",
    "selections",
    "servers",
    "shadow_files",
    "snapshot_held_back",
    "snapshot_slices",
    "snapshot_tables",
    "snapshots",
    "table_versions",
    "taints",
    "traffic_plans",
    "usage",
    "versions",
    "violations",
]
