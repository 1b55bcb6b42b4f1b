"""A snapshot is named by what it holds (R4)."""

from __future__ import annotations

from holdfast.tables import Snapshot, SnapshotTable, snapshot_name

SNAPSHOTS = (SnapshotTable("flights", 10, 2), SnapshotTable("weather", 5, 1))


def test_the_same_snapshot_has_the_same_name_and_another_has_another() -> None:
    name = snapshot_name(7, "cc", SNAPSHOTS)
    assert name == snapshot_name(7, "cc", list(SNAPSHOTS))
    others = [
        snapshot_name(8, "cc", SNAPSHOTS),
        snapshot_name(7, "cd", SNAPSHOTS),
        snapshot_name(7, "cc", SNAPSHOTS[:1]),
        snapshot_name(7, "cc", SNAPSHOTS[::-1]),
    ]
    assert len({name, *others}) == 5
    assert len(name) <= 32


def test_a_snapshot_counts_the_rows_of_all_its_tables() -> None:
    assert Snapshot("s7-1", 7, "cc", 1, SNAPSHOTS).rows == 15


def test_the_name_reports_what_is_left_out_and_of_which_day() -> None:
    names = {
        snapshot_name(7, "cc", SNAPSHOTS),
        snapshot_name(7, "cc", SNAPSHOTS, incomplete_loads=[("a", "d1", 0)]),
        snapshot_name(7, "cc", SNAPSHOTS, day=3),
        snapshot_name(7, "cc", SNAPSHOTS, day=4),
    }
    assert len(names) == 4
