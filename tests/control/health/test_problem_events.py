"""The control loop reports each problem of a model once when it begins and once when it ends (R14, R133, R140)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.control.health.problem_events import ENDS_AFTER_US, EVERY_US, ProblemEvents
from holdfast.control.reports.metrics import StatusCollector
from holdfast.control.reports.status import StatusReader, status
from holdfast.errors import ConflictError
from holdfast.monitor.usage import UsageRow
from holdfast.records import MINUTE_US, BatchId, Level, Severity, Violation
from holdfast.store.db import events, leases
from holdfast.store.feeds import admissions
from holdfast.store.telemetry import problems, request_counts
from tests.support.rollout_world import MODEL, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.open(tmp_path)
    world.promote(world.add_version())
    return world


def count(world: World, minutes: range, *, result: str = "ok", requests: int = 20) -> None:
    start_us = world.now_us - world.now_us % MINUTE_US
    rows = [
        UsageRow("v1", "champion", result, start_us + at * MINUTE_US, requests, requests, 900, {10: requests})
        for at in minutes
    ]
    with world.store.ledger.write() as connection:
        request_counts.add(connection, MODEL, rows)


def refuse(world: World, batch: str) -> None:
    found = [Violation("volume", "", Level.CRITICAL, f"3 rows came in {batch}")]
    with world.store.ledger.write() as connection:
        admissions.refuse(
            connection, BatchId("weather", batch), found, contract_hash="c", now_us=world.now_us
        )


def look(world: World, reporter: ProblemEvents, *, times: int = 2) -> list[str]:
    """The subjects of every event of a problem so far, the oldest first."""
    for _ in range(times):
        world.now_us += EVERY_US
        reporter(world.store, MODEL, world.lease, now_us=world.now_us)
    with world.store.ledger.read() as connection:
        newest = [
            *events.newest(connection, kind=problems.FOUND),
            *events.newest(connection, kind=problems.ENDED),
        ]
    ordered = sorted(newest, key=lambda each: each.event_id)
    return [f"{each.kind.removeprefix('problem.')} {each.subject}" for each in ordered]


def test_six_silent_minutes_are_an_event_a_sentence_and_end(world: World) -> None:
    """R140: silence was in the JSON of the status alone."""
    reporter = ProblemEvents()
    count(world, range(-30, 0))
    assert look(world, reporter) == []
    world.now_us += 6 * MINUTE_US - world.now_us % MINUTE_US
    silent = [f"found {MODEL}/no_requests"]
    assert look(world, reporter, times=1) == [], "it is reported when a second look sees it"
    assert look(world, reporter) == look(world, reporter) == silent
    found = status(world.store, MODEL, now_us=world.now_us)
    texts = {each["kind"]: each["text"] for each in found["health"]["problems"]}
    assert texts["no_requests"] == "no request for 8 min; more than 5 min of silence is unusual"
    count(world, range(1))
    assert look(world, reporter) == silent
    assert look(world, reporter, times=ENDS_AFTER_US // EVERY_US) == [*silent, f"ended {MODEL}/no_requests"]
    world.now_us += 7 * MINUTE_US
    assert look(world, ProblemEvents())[-1] == silent[0], "the next silence is another one"


def test_two_requests_of_a_first_test_do_not_make_silence_unusual(world: World) -> None:
    """A pager was called 13 minutes after the first two requests: no pause had been measured."""
    reporter = ProblemEvents()
    count(world, range(-2, 0), requests=1)
    world.now_us += 13 * MINUTE_US
    assert look(world, reporter) == []
    use = status(world.store, MODEL, now_us=world.now_us)["use"]
    assert use["verdict"] == "inconclusive"
    assert "too few were counted to know the usual pause" in use["explanation"]
    world.now_us += 7 * 24 * 60 * MINUTE_US
    assert look(world, reporter) == [f"found {MODEL}/no_requests"]


def test_a_silence_of_days_stays_a_problem(world: World) -> None:
    """The pauses that it is compared with are those before it, so it cannot outlast them."""
    count(world, range(-30, 0))
    world.now_us += 6 * 24 * 60 * MINUTE_US + 23 * 60 * MINUTE_US + 45 * MINUTE_US
    assert look(world, ProblemEvents()) == [f"found {MODEL}/no_requests"]


def test_a_champion_that_was_never_requested_is_a_problem_until_it_is(world: World) -> None:
    """R140: "no request has been counted yet", for ever."""
    reporter = ProblemEvents()
    assert look(world, reporter) == []
    world.now_us += 60 * MINUTE_US
    assert look(world, reporter) == [], "no pause was measured"
    world.now_us += 7 * 24 * 60 * MINUTE_US
    silent = [f"found {MODEL}/no_requests"]
    assert look(world, reporter) == silent
    found = status(world.store, MODEL, now_us=world.now_us)
    (text,) = [each["text"] for each in found["health"]["problems"] if each["kind"] == "no_requests"]
    assert text == "no request has been counted since the first version began to serve 7 d ago"
    collector = StatusCollector(MODEL, lambda: StatusReader(world.store, MODEL).read(now_us=world.now_us))
    samples = [each for family in collector.collect() for each in family.samples]
    assert [each.value for each in samples if each.labels.get("kind") == "no_requests"] == [1.0]
    count(world, range(1))
    assert look(world, reporter, times=ENDS_AFTER_US // EVERY_US + 1)[1:] == [f"ended {MODEL}/no_requests"]


def test_a_declared_silence_outranks_the_derived_one(world: World) -> None:
    """A model that is called by a job each night is not silent at noon, also before its first night."""
    reporter = ProblemEvents(silent_after=timedelta(hours=26))
    count(world, range(-30, 0))
    world.now_us += 20 * 60 * MINUTE_US
    assert look(world, reporter) == []
    within = status(world.store, MODEL, silent_after=timedelta(hours=26), now_us=world.now_us)
    assert "no_requests" not in {each["kind"] for each in within["health"]["problems"]}
    world.now_us += 7 * 60 * MINUTE_US
    assert look(world, reporter) == [f"found {MODEL}/no_requests"]


def test_a_model_with_rare_requests_is_not_silent_between_them(world: World) -> None:
    """1,156 requests a week are one in nine minutes."""
    reporter = ProblemEvents()
    count(world, range(-9 * 60, 0, 9), requests=1)
    world.now_us += 40 * MINUTE_US
    assert look(world, reporter) == []
    world.now_us += 60 * MINUTE_US
    assert look(world, reporter) == [f"found {MODEL}/no_requests"]


def test_requests_that_the_contract_refuses_are_an_event(world: World) -> None:
    """R133: 300 of 300 requests with a renamed column were refused, and nothing reported it."""
    count(world, range(-3, 0), result="contract", requests=100)
    assert look(world, ProblemEvents(), times=4) == [f"found {MODEL}/requests_refused"]
    found = status(world.store, MODEL, now_us=world.now_us)
    assert (found["use"]["requests"], found["use"]["failed"], found["use"]["refused"]) == (300, 0, 300)
    texts = {each["kind"]: each["text"] for each in found["health"]["problems"]}
    assert texts["requests_refused"].endswith("were refused, by their callers' fault (contract)")


def test_the_problem_of_refused_requests_names_what_callers_got_wrong(world: World) -> None:
    minute_us = world.now_us - world.now_us % MINUTE_US - MINUTE_US
    for reasons in ({"carrier|missing": 150, "*|extra": 150}, {"carrier|missing": 150}):
        refused = UsageRow("v1", "champion", "contract", minute_us, 150, 0, 900, {}, {}, reasons)
        with world.store.ledger.write() as connection:
            request_counts.add(connection, MODEL, [refused])
    assert look(world, ProblemEvents(), times=4) == [f"found {MODEL}/requests_refused"]
    found = status(world.store, MODEL, now_us=world.now_us)
    texts = {each["kind"]: each["text"] for each in found["health"]["problems"]}
    assert texts["requests_refused"].endswith("fault (contract): carrier|missing (300), *|extra (150)")


def test_each_refused_batch_is_a_problem_until_the_next_one_is_good(world: World) -> None:
    """A refused batch left the status "healthy" once its feed had been suspect, and a second refusal was reported nowhere."""
    reporter = ProblemEvents()
    refuse(world, "day-1")
    assert look(world, reporter) == [f"found {MODEL}/feed_refusing/weather/day-1"]
    refuse(world, "day-2")
    assert look(world, reporter)[-1] == f"found {MODEL}/feed_refusing/weather/day-2"
    found = status(world.store, MODEL, now_us=world.now_us)["health"]["problems"]
    subjects = [each["subject"] for each in found if each["kind"] == "feed_refusing"]
    assert subjects == ["weather/day-1", "weather/day-2"]


def test_what_a_problem_was_is_kept_with_its_events(world: World) -> None:
    refuse(world, "day-1")
    look(world, ProblemEvents())
    with world.store.ledger.read() as connection:
        (event,) = events.newest(connection, kind=problems.FOUND)
        row = problems.of_event(connection, event.event_id)
        assert problems.of_event(connection, event.event_id - 1) is None
    assert row is not None
    assert (row.kind, row.subject, row.severity) == ("feed_refusing", "weather/day-1", Severity.ERROR)
    assert event.explanation == f"{row.explanation}; next: {row.next_command}"
    assert row.explanation == "batch day-1 of weather was refused: 3 rows came in day-1"


def test_a_loop_without_its_lease_reports_nothing_and_two_loops_report_once(world: World) -> None:
    refuse(world, "day-1")
    first, second = ProblemEvents(), ProblemEvents()
    look(world, first, times=1)
    look(world, second, times=1)
    stale = leases.Lease(world.lease.name, world.lease.holder, world.lease.epoch - 1, 1)
    world.now_us += EVERY_US
    with pytest.raises(ConflictError, match="HF304"):
        first(world.store, MODEL, stale, now_us=world.now_us)
    assert look(world, first) == look(world, second) == [f"found {MODEL}/feed_refusing/weather/day-1"]


def test_problems_that_the_loop_cannot_know_or_that_are_none_yet_are_not_reported(tmp_path: Path) -> None:
    world = World.open(tmp_path)
    assert look(world, ProblemEvents(label_delay=timedelta(days=3))) == []
    assert status(world.store, MODEL, now_us=world.now_us)["health"]["problems"][0]["kind"] == "no_version"
