"""Batches of a group belong together by period, whatever their ids are (R8, R56)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.feeds.groups import (
    FeedGroup,
    GroupLoad,
    find_incomplete_loads,
    find_lacking_feeds,
    find_siblings,
    periods_of,
)
from tests.support.profile import examples


def _came(*ids: str) -> dict[str, list[GroupLoad]]:
    """Deliveries in the order in which they came: "a3" is the third day of feed a, "b7=fix" day 7 of b under another id."""
    found: dict[str, list[GroupLoad]] = {}
    for order, each in enumerate(ids):
        place, _, named = each.partition("=")
        feed, day = place[0], int(place[1:])
        load = GroupLoad(named or f"d{day}", 0, range(day, day + 1), order)
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


def test_a_delivery_of_several_periods_waits_for_each_of_them() -> None:
    mine = [GroupLoad("jan", 0, range(10), 0), GroupLoad("feb", 0, range(10, 20), 1)]
    weeks = [GroupLoad(f"w{week}", 0, range(7 * week, 7 * week + 7), 2 + week) for week in range(4)]
    assert find_incomplete_loads({"a": mine, "b": weeks[:1]}) == (("a", "feb", 0), ("a", "jan", 0))
    assert find_incomplete_loads({"a": mine, "b": weeks[:2]}) == (("a", "feb", 0),)
    assert find_incomplete_loads({"a": mine, "b": weeks[:3]}) == (("b", "w2", 0),)


def test_one_id_in_common_holds_no_history_back() -> None:
    """Ten batches that had been in every snapshot; a delivery under one id in both feeds; and on as before."""
    history = [f"{feed}{day}={feed}{day}" for day in range(1, 6) for feed in "ab"]
    assert _held(*history) == []
    assert _held(*history, "a6=fix") == ["a:fix"]
    assert _held(*history, "a6=fix", "b6=fix") == []
    assert _held(*history, "a6=fix", "b6=fix", "a7=a7") == ["a:a7"]
    assert _held(*history, "a6=fix", "b6=fix", "a7=a7", "b7=b7") == []


@pytest.mark.parametrize("ids", ["{}{}", "d{1}", "{0}-2026-09-{1:02}"])
def test_a_period_that_never_comes_is_missed(ids: str) -> None:
    """Orders, prices, taxes, day by day; prices of day 3 never come, and days 4 to 10 do: whatever the ids are."""
    days = [(feed, day) for day in range(1, 11) for feed in "opt" if (feed, day) != ("p", 3)]
    found = [f"{feed}{day}={ids.format(feed, day)}" for feed, day in days]
    assert _held(*found) == [f"{feed}:{ids.format(feed, 3)}" for feed in "ot"]
    assert _held(*found, f"p3={ids.format('p', 3)}") == []
    group = _came(*found)
    assert find_lacking_feeds(group, "t", ids.format("t", 3)) == ("p",)


DAY = 86_400_000_000
HOUR = DAY // 24


def test_the_period_of_a_batch_is_where_most_of_its_time_is() -> None:
    """Rows of the evening before, or of the midnight after, make no period of their own; nor does a table of midnights."""
    assert periods_of(DAY - 4 * HOUR, 2 * DAY - 1, DAY) == range(1, 2)
    assert periods_of(DAY, 2 * DAY, DAY) == range(1, 2)
    assert periods_of(DAY, DAY, DAY) == periods_of(DAY + 8 * HOUR, DAY + 20 * HOUR, DAY) == range(1, 2)
    assert periods_of(7 * DAY, 14 * DAY - HOUR, DAY) == range(7, 14)
    assert periods_of(-DAY, -1, DAY) == range(-1, 0)


def test_one_date_of_the_year_9999_makes_no_millions_of_periods() -> None:
    """Such a batch waits for its first and last period alone; for the other feed it is there in all of them."""
    far = FeedGroup("g", period_us=HOUR).periods(DAY, 8_029_200 * DAY)
    assert len(far) == 2
    assert (far[0], far[1], far.start, far.stop) == (24, 192_700_799, 24, 192_700_800)
    mine = [GroupLoad("a0", 0, range(23, 24), 0), GroupLoad("a1", 0, far, 2)]
    others = [GroupLoad("b0", 0, range(23, 24), 1), GroupLoad("b1", 0, range(24, 25), 3)]
    assert find_incomplete_loads({"a": mine, "b": others}) == (("a", "a1", 0),)
    between = [*others, GroupLoad("b2", 0, range(99, 100), 4)]
    assert find_incomplete_loads({"a": mine, "b": between}) == (("a", "a1", 0),)
    assert find_lacking_feeds({"a": mine, "b": between}, "b", "b2") == ()
    assert find_incomplete_loads({"a": mine, "b": [*others, replace(mine[1], batch="b9")]}) == ()


def test_a_day_begins_at_midnight_where_the_sender_is() -> None:
    """Prices stamped 00:00 in Oslo, and orders of the day there: in UTC these are two days."""
    oslo = FeedGroup("books", zone="Europe/Oslo")
    assert (
        oslo.periods(DAY - HOUR, DAY - HOUR) == oslo.periods(DAY + 7 * HOUR, DAY + 19 * HOUR) == range(1, 2)
    )
    assert oslo.periods(2**61, 2**61)


@pytest.mark.parametrize("named", [True, False])
def test_a_backout_takes_the_period_from_every_feed(named: bool) -> None:
    mine = [GroupLoad(f"orders-{day}", 0, range(day, day + 1), day) for day in range(5)]
    others = [
        GroupLoad(f"{'orders' if named else 'prices'}-{day}", 0, range(day, day + 1), day) for day in range(5)
    ]
    assert find_siblings("orders-3", range(3, 4), mine, others) == [others[3]]
    week = GroupLoad("week", 0, range(7), 9)
    assert find_siblings("week", range(7), [week], others) == others
    assert find_siblings("orders-3", range(3, 4), mine, [week]) == []  # it goes on, and waits for day 3


def test_what_a_person_admits_waits_no_longer_and_takes_its_id_along() -> None:
    group = _came("a1", "b1", "c1", "a2", "b2")
    assert find_incomplete_loads(group) == (("a", "d2", 0), ("b", "d2", 0))
    group["a"][1] = replace(group["a"][1], alone=True)
    assert find_incomplete_loads(group) == ()


DELIVERY = st.tuples(st.sampled_from("abc"), st.sampled_from("uvwxyz"), st.integers(0, 12), st.integers(1, 5))


@examples(200)
@given(st.lists(DELIVERY, max_size=14, unique_by=lambda each: each[:2]))
def test_one_more_delivery_takes_nothing_out_of_the_next_snapshot(
    found: list[tuple[str, str, int, int]],
) -> None:
    """However deliveries are named, overlap and come: what was in a snapshot of all feeds is in every later one."""
    group: dict[str, list[GroupLoad]] = {
        feed: [GroupLoad(f"first-{feed}", 0, range(at, at + 1), at)] for at, feed in enumerate("abc")
    }
    before = set(find_incomplete_loads(group))
    for order, (feed, batch, low, length) in enumerate(found, 3):
        group[feed].append(GroupLoad(batch, 0, range(low, low + length), order))
        now = set(find_incomplete_loads(group))
        assert now - before <= {(feed, batch, 0)}
        before = now


DAYS = range(1, 6)


@examples(200)
@given(
    st.sets(st.sampled_from(list(product("abc", DAYS))), min_size=1),
    st.randoms(use_true_random=False),
    st.sampled_from(["d{1}", "{0}-{1}"]),
)
def test_a_snapshot_has_whole_days_and_nothing_else(there, draw, ids) -> None:
    """By brute force: of feeds that all delivered day 0, a day is read if and only if every feed has it, in any order."""
    days = [("a", 0), ("b", 0), ("c", 0)]
    days += draw.sample(sorted(there), len(there))
    group = _came(*(f"{feed}{day}={ids.format(feed, day)}" for feed, day in days))
    expected = {
        (feed, ids.format(feed, day), 0)
        for feed, day in there
        if not all((other, day) in there for other in "abc")
    }
    assert set(find_incomplete_loads(group)) == expected
    for feed, day in days:
        periods = range(day, day + 1)
        gone = {
            (other, load.batch)
            for other in "abc"
            if other != feed
            for load in find_siblings(ids.format(feed, day), periods, group[feed], group[other])
        }
        assert gone == {
            (other, ids.format(other, day)) for other, same in days if same == day and other != feed
        }


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
