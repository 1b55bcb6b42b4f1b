"""Tables: which rows a version of a table has, and cuts across several tables that stand still.

`cuts.py` says what a snapshot is and how it is named. Pure: which files those are is asked in
`store/files/data_files.py`.
"""

from __future__ import annotations

from holdfast.tables.snapshots import CutLoad, Snapshot, TableCut, held_back, known_day, snapshot_name

__all__ = ["CutLoad", "Snapshot", "TableCut", "held_back", "known_day", "snapshot_name"]
