"""Tables: their rows at a table version, and snapshots across several tables.

`snapshots.py` defines a snapshot and its name. Pure: `store/files/data_files.py` finds the files.
"""

from __future__ import annotations

from holdfast.tables.snapshots import (
    Snapshot,
    SnapshotTable,
    known_day,
    snapshot_name,
)

__all__ = ["Snapshot", "SnapshotTable", "known_day", "snapshot_name"]
