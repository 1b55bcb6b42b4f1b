"""A cut is named by what it cuts (R4)."""

from __future__ import annotations

from holdfast.tables import CutLoad, Snapshot, TableCut, held_back, snapshot_name

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


def _loads(*days: int) -> list[CutLoad]:
    return [CutLoad(f"d{day}", 0, 10 * day, 10 * day + 9) for day in days]


def test_what_only_one_feed_of_a_group_has_is_held_back() -> None:
    """Newer, or missing in between; what was before the other feed began is not waited for (R8, R56)."""
    assert held_back({"a": _loads(1, 2, 3), "b": _loads(1, 2)}) == (("a", "d3", 0),)
    assert held_back({"a": _loads(1, 2, 3), "b": _loads(1, 3)}) == (("a", "d2", 0),)
    assert held_back({"a": _loads(1, 2, 3), "b": _loads(2, 3)}) == ()
    assert held_back({"a": _loads(1, 2), "b": []}) == ()
    assert held_back({"a": _loads(1, 2, 3), "b": _loads(2, 3), "c": _loads(3, 4)}) == (("c", "d4", 0),)
    assert held_back({"a": _loads(1, 2), "b": _loads(1, 2), "c": _loads(1)}) == (
        ("a", "d2", 0),
        ("b", "d2", 0),
    )


def test_feeds_that_name_their_deliveries_otherwise_are_told_by_time() -> None:
    mine = [CutLoad("jan", 0, 0, 9), CutLoad("feb", 0, 10, 19)]
    assert held_back({"a": mine, "b": [CutLoad("w1", 0, 0, 5)]}) == (("a", "feb", 0),)
    assert held_back({"a": mine, "b": [CutLoad("w1", 0, 0, 5), CutLoad("w2", 0, 6, 12)]}) == ()


def test_the_name_says_what_is_left_out_and_of_which_day() -> None:
    names = {
        snapshot_name(7, "cc", CUTS),
        snapshot_name(7, "cc", CUTS, held_back=[("a", "d1", 0)]),
        snapshot_name(7, "cc", CUTS, day=3),
        snapshot_name(7, "cc", CUTS, day=4),
    }
    assert len(names) == 4
