"""A cut is named by what it cuts (R4)."""

from __future__ import annotations

from holdfast.tables import Snapshot, TableCut, snapshot_name

CUTS = (TableCut("flights", 10, 2), TableCut("weather", 5, 1))


def test_the_same_cut_has_the_same_name_and_another_has_another() -> None:
    name = snapshot_name(7, "cc", CUTS)
    assert name == snapshot_name(7, "cc", list(CUTS))
    others = [
        snapshot_name(8, "cc", CUTS),
        snapshot_name(7, "cd", CUTS),
        snapshot_name(7, "cc", CUTS[:1]),
        snapshot_name(7, "cc", CUTS[::-1]),
    ]
    assert len({name, *others}) == 5
    assert len(name) <= 32


def test_a_snapshot_counts_the_rows_of_all_its_tables() -> None:
    assert Snapshot("s7-1", 7, "cc", 1, CUTS).rows == 15
