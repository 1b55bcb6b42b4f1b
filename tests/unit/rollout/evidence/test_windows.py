"""Windows do not know how requests fell on servers and rounds, and what they hold counts once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import IntegrityError
from holdfast.records import MINUTE_US, Arm
from holdfast.rollout import Canary, RequestOutcome, begin, fold_requests
from holdfast.rollout.evidence.windows import (
    LINGER_US,
    MOST_ENTRIES,
    MOST_OPEN,
    OpenWindow,
    RequestGroup,
    Window,
    close_due,
    gather,
    requests_from_json,
)
from tests.soak import windows

SECOND_US = 1_000_000
AT_US = 28_333_333 * MINUTE_US


def group(*units: str, minute: int = 0, share_ppm: int = 100_000, failed: bool = False) -> RequestGroup:
    requests = tuple(RequestOutcome(unit.encode(), Arm.CHAMPION, failed, 900.0) for unit in units)
    return RequestGroup(1, AT_US + minute * MINUTE_US, share_ppm, requests)


def opened_at(now_us: int, minute: int = 0) -> OpenWindow:
    (opened,) = gather([], [group("a", minute=minute)], most_units=200, now_us=now_us).opened
    return opened


def units_of(found: Iterable[Window]) -> list[list[str]]:
    return [[each.unit.decode() for each in window.requests] for window in found]


def test_a_unit_of_two_servers_counts_once_in_a_window() -> None:
    first = gather([], [group("a", "b")], most_units=4, now_us=AT_US)
    after = gather(first.opened, [group("b", "a", "c")], most_units=4, now_us=AT_US)
    assert [each.units for each in after.opened] == [3]
    states = fold_requests(begin(Canary(), 0.02), after.opened[0].window.requests)
    assert states[0].champion_units == 3


def test_requests_under_two_shares_never_share_a_window() -> None:
    found = gather([], [group("a"), group("a", share_ppm=500_000)], most_units=2, now_us=AT_US)
    assert sorted((each.window.share_ppm, each.units) for each in found.opened) == [
        (100_000, 1),
        (500_000, 1),
    ]


def test_a_window_closes_with_its_last_unit_and_later_ones_make_the_next() -> None:
    found = gather([], [group(*"abcabcdefg")], most_units=3, now_us=AT_US)
    assert units_of(found.closed) == [["a", "b", "c"], ["a", "b", "c"], ["d", "e", "f"]]
    assert units_of(each.window for each in found.opened) == [["g"]]


def test_a_window_closes_two_seconds_after_its_minute() -> None:
    opened = opened_at(AT_US + 30 * SECOND_US)
    ends_us = AT_US + MINUTE_US + LINGER_US
    assert not opened.is_due(ends_us - 1)
    assert opened.is_due(ends_us)
    assert close_due([opened], ends_us).closed == (opened.window,)


def test_late_requests_of_several_rounds_meet_for_a_minute() -> None:
    """A server that is always a little late would have windows of one unit otherwise, which show nothing."""
    now_us = AT_US + 2 * MINUTE_US
    opened = opened_at(now_us)
    assert opened.closes_at_us == now_us + MINUTE_US
    after = gather([opened], [group("b")], most_units=200, now_us=now_us + 9 * SECOND_US)
    assert [(each.units, each.closes_at_us) for each in after.opened] == [(2, opened.closes_at_us)]


def test_a_server_whose_clock_runs_ahead_holds_nothing_up() -> None:
    assert opened_at(AT_US - 3 * SECOND_US).closes_at_us == AT_US + MINUTE_US + LINGER_US
    ahead = opened_at(AT_US, minute=60 * 24)
    assert ahead.closes_at_us == AT_US + 2 * MINUTE_US


def test_a_window_of_a_clock_that_went_back_closes() -> None:
    assert opened_at(AT_US).is_due(AT_US - 1)


def test_open_windows_are_bounded() -> None:
    """Those that would close first are folded early: nothing is lost."""
    groups = [group("a", minute=-at) for at in range(2 * MOST_OPEN)]
    found = gather([], groups, most_units=200, now_us=AT_US)
    assert len(found.opened) == MOST_OPEN
    assert len(found.closed) == MOST_OPEN
    row = tuple(f"carrier={at}" for at in range(MOST_ENTRIES))
    large = replace(group("a"), requests=(RequestOutcome(b"a", Arm.CHAMPION, False, 1.0, row),))
    assert len(gather([], [large], most_units=200, now_us=AT_US).closed) == 1


def test_a_client_does_not_make_a_window_grow() -> None:
    slow = replace(group("a"), requests=(RequestOutcome(b"a", Arm.CHAMPION, False, 5_000.0),))
    found = gather([], [group(*"a" * 1000), slow], most_units=200, now_us=AT_US)
    assert found.opened[0].window.requests == (
        RequestOutcome(b"a", Arm.CHAMPION, False, 5_000.0, requests=1001),
    )


def test_a_damaged_window_is_refused() -> None:
    with pytest.raises(IntegrityError, match="HF309"):
        requests_from_json('[["a"]]')


REQUESTS = st.builds(
    RequestOutcome,
    unit=st.sampled_from([b"a", b"b", b"c", b"d"]),
    arm=st.sampled_from([Arm.CHALLENGER, Arm.CHAMPION]),
    failed=st.booleans(),
    latency_us=st.sampled_from([900.0, 90_000.0]),
    slices=st.sampled_from([(), ("carrier=AA",), ("carrier=AA", "carrier=UA")]),
)


@given(st.lists(st.lists(REQUESTS, max_size=6), max_size=5), st.integers(1, 5))
def test_each_request_is_in_one_window_and_is_folded_as_it_was_logged(
    rounds: Sequence[list[RequestOutcome]], most_units: int
) -> None:
    """Merged requests are the same evidence as the requests themselves."""
    opened: tuple[OpenWindow, ...] = ()
    closed: list[Window] = []
    for requests in rounds:
        found = gather(
            opened, [RequestGroup(1, AT_US, 0, tuple(requests))], most_units=most_units, now_us=AT_US
        )
        opened = found.opened
        closed += found.closed
    closed += [each.window for each in opened]
    assert sum(each.requests for window in closed for each in window.requests) == sum(map(len, rounds))
    policy = Canary(slices=("carrier",))
    states = plain = begin(policy, 0.02)
    requests = [each for found in rounds for each in found]
    for window in closed:
        states = fold_requests(states, window.requests)
        many = sum(each.requests for each in window.requests)
        plain = fold_requests(plain, requests[:many])
        requests = requests[many:]
    assert states == plain


@pytest.mark.parametrize("mistake", ["", *windows.PLANTED])
def test_the_evidence_does_not_know_how_requests_fell_on_servers_and_rounds(mistake: str) -> None:
    """The whole is `python -m tests.soak.windows`; a planted mistake is found by the same rules."""
    servers, orders = ((20,), 1) if mistake else ((1, 20), 2)
    found = windows.check(orders=orders, servers=servers, mistake=mistake)
    assert bool(found.broken) == bool(mistake), found.broken
