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


<<<<<<< HEAD
def _came(*ids: str) -> dict[str, list[GroupLoad]]:
    """Deliveries in the order in which they came: "a3" is the third day of feed a, "b7=fix" day 7 of b under another id."""
    found: dict[str, list[GroupLoad]] = {}
    for order, each in enumerate(ids):
        place, _, named = each.partition("=")
        feed, day = place[0], int(place[1:])
        load = GroupLoad(named or f"d{day}", 0, 10 * day, 10 * day + 9, order)
        found.setdefault(feed, []).append(load)
    return found


def _held(*ids: str) -> list[str]:
    return [f"{feed}:{batch}" for feed, batch, _ in find_incomplete_loads(_came(*ids))]


def test_what_only_one_feed_of_a_group_has_is_incomplete() -> None:
    """Newer, or missing in between; what was before the other feed began is not waited for (R8, R56)."""
    assert _held("a1", "b1", "a2", "b2", "a3") == ["a:d3"]
    assert _held("a1", "b1", "a2", "a3", "b3") == ["a:d2"]
    assert _held("a1", "a2", "a3", "b1", "b3") == ["a:d2"]
    assert _held("a1", "b1", "a2", "a3", "b3", "b2") == []
    assert _held("a1", "a2", "a3", "b2", "b3") == []
    assert _held("a2", "b2", "a3", "b3", "a1") == []
    assert _held("a1", "a2") == []
    assert _held("a1", "a2", "b1", "b2", "c1") == ["a:d2", "b:d2"]
    assert _held("a1", "b1", "a2", "b2", "a3", "b3", "c3", "c4") == ["c:d4"]


def test_what_is_loaded_again_after_a_backout_waits_for_the_rest_of_its_group() -> None:
    again = _came("a1", "b1", "a3", "b3", "a2")
    assert find_incomplete_loads(again) == (("a", "d2", 0),)
    assert find_incomplete_loads(again | _came("b1", "b3", "b2")) == ()


def test_feeds_that_name_their_deliveries_otherwise_are_matched_by_time() -> None:
    mine = [GroupLoad("jan", 0, 0, 9, 0), GroupLoad("feb", 0, 10, 19, 1)]
    weeks = [GroupLoad("w1", 0, 0, 5, 2), GroupLoad("w2", 0, 6, 12, 3)]
    assert find_incomplete_loads({"a": mine, "b": weeks[:1]}) == (("a", "feb", 0),)
    assert find_incomplete_loads({"a": mine, "b": weeks}) == ()


def test_one_id_in_common_holds_no_history_back() -> None:
    """Ten batches that had been in every snapshot; a delivery under one id in both feeds; and on as before."""
    history = [f"{feed}{day}={feed}{day}" for day in range(1, 6) for feed in "ab"]
    assert _held(*history) == []
    assert _held(*history, "a6=fix") == ["a:fix"]
    assert _held(*history, "a6=fix", "b6=fix") == []
    assert _held(*history, "a6=fix", "b6=fix", "a7=a7") == ["a:a7"]
    assert _held(*history, "a6=fix", "b6=fix", "a7=a7", "b7=b7") == []


def test_a_delivery_that_reaches_back_waits_for_its_sibling_all_the_same() -> None:
    """The first rows of day 2 are of the evening before, which both feeds have."""
    both = _came("a1", "b1", "a2")
    both["a"][1] = replace(both["a"][1], event_time_min_us=17)
    assert find_incomplete_loads(both) == (("a", "d2", 0),)


def test_what_a_person_admits_waits_no_longer_and_takes_its_id_along() -> None:
    group = _came("a1", "b1", "c1", "a2", "b2")
    assert find_incomplete_loads(group) == (("a", "d2", 0), ("b", "d2", 0))
    group["a"][1] = replace(group["a"][1], alone=True)
    assert find_incomplete_loads(group) == ()


DELIVERY = st.tuples(st.sampled_from("abc"), st.sampled_from("uvwxyz"), st.integers(0, 12), st.integers(0, 5))


@examples(200)
@given(st.lists(DELIVERY, max_size=14, unique_by=lambda each: each[:2]))
def test_one_more_delivery_takes_nothing_out_of_the_next_snapshot(
    found: list[tuple[str, str, int, int]],
) -> None:
    """However deliveries are named, overlap and come: what was in a snapshot of all feeds is in every later one."""
    group: dict[str, list[GroupLoad]] = {
        feed: [GroupLoad("first", 0, at, at, at)] for at, feed in enumerate("abc")
    }
    before = set(find_incomplete_loads(group))
    for order, (feed, batch, low, length) in enumerate(found, 3):
        group[feed].append(GroupLoad(batch, 0, low, low + length, order))
        now = set(find_incomplete_loads(group))
        assert now - before <= {(feed, batch, 0)}
        for batch_held in {batch for _, batch, _ in now}:
            assert all(
                (other, load.batch, 0) in now
                for other, loads in group.items()
                for load in loads
                if load.batch == batch_held
            )
        before = now


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_histories_that_begin_at_different_times_hold_nothing_back(a: int, b: int, c: int) -> None:
    """Each feed delivers its days from its first to the tenth, day by day, or one history after the other."""
    begins = {"a": a, "b": b, "c": c}
    daily = [f"{feed}{day}" for day in range(1, 11) for feed in "abc" if day >= begins[feed]]
    assert _held(*daily) == []
    assert _held(*sorted(daily)) == []
    assert _held(*sorted(daily, reverse=True)) == []
    newest = [each for each in daily if each != "c10"]
    assert _held(*newest) == ["a:d10", "b:d10"]


def test_the_name_reports_what_is_left_out_and_of_which_day() -> None:
=======
def test_the_name_says_what_is_left_out_and_of_which_day() -> None:
>>>>>>> 1a44b0fe (feeds: tell the batches of a group by their period)
    names = {
        snapshot_name(7, "cc", SNAPSHOTS),
        snapshot_name(7, "cc", SNAPSHOTS, incomplete_loads=[("a", "d1", 0)]),
        snapshot_name(7, "cc", SNAPSHOTS, day=3),
        snapshot_name(7, "cc", SNAPSHOTS, day=4),
    }
    assert len(names) == 4
