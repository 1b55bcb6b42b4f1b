"""Tables: which rows a version of a table has, and cuts across several tables that stand still.

`cuts.py` says what a snapshot is and how it is named. Pure: which files those are is asked in
`store/files.py`.
"""

from __future__ import annotations

from holdfast.tables.cuts import Snapshot, TableCut, snapshot_name

__all__ = ["Snapshot", "TableCut", "snapshot_name"]
