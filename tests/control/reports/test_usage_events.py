"""The control loop reports a model that is not used any more, and callers that the contract refuses."""

from __future__ import annotations

from pathlib import Path

from holdfast.control.reports.status import status
from holdfast.control.reports.usage_events import EVERY_US, UsageEvents
from holdfast.monitor.usage import UsageRow
from holdfast.records import MINUTE_US
from holdfast.store.db import events
from holdfast.store.telemetry import request_counts
from tests.support.rollout_world import MODEL, World


def count(world: World, minutes: range, *, result: str = "ok", requests: int = 20) -> None:
    start_us = world.now_us - world.now_us % MINUTE_US
    rows = [
        UsageRow("v1", "champion", result, start_us + at * MINUTE_US, requests, requests, 900, {10: requests})
        for at in minutes
    ]
    with world.store.ledger.write() as connection:
        request_counts.add(connection, MODEL, rows)


def kinds(world: World, reporter: UsageEvents) -> list[str]:
    world.now_us += EVERY_US
    reporter(world.store, MODEL, world.lease, now_us=world.now_us)
    with world.store.ledger.read() as connection:
        return [each.kind for each in events.newest(connection) if each.kind.startswith("requests.")]


def test_six_silent_minutes_are_an_event_once_and_a_sentence(tmp_path: Path) -> None:
    """R140: silence was in the JSON of the status alone."""
    world, reporter = World.open(tmp_path), UsageEvents()
    world.promote(world.add_version())
    count(world, range(-30, 0))
    assert kinds(world, reporter) == []
    world.now_us += 6 * MINUTE_US - world.now_us % MINUTE_US
    assert kinds(world, reporter) == kinds(world, reporter) == ["requests.silent"]
    found = status(world.store, MODEL, now_us=world.now_us)
    problems = {each["kind"]: each["text"] for each in found["health"]["problems"]}
    assert problems["no_requests"].startswith("no request for 6 min")
    count(world, range(1))
    world.now_us += 7 * MINUTE_US
    assert kinds(world, UsageEvents()) == ["requests.silent"] * 2, "the next silence is another one"


def test_a_model_with_rare_requests_is_not_silent_between_them(tmp_path: Path) -> None:
    """1,156 requests a week are one in nine minutes."""
    world, reporter = World.open(tmp_path), UsageEvents()
    count(world, range(-9 * 60, 0, 9), requests=1)
    world.now_us += 40 * MINUTE_US
    assert kinds(world, reporter) == []
    world.now_us += 60 * MINUTE_US
    assert kinds(world, reporter) == ["requests.silent"]


def test_requests_that_the_contract_refuses_are_an_event(tmp_path: Path) -> None:
    """R133: 300 of 300 requests with a renamed column were refused, and nothing reported it."""
    world, reporter = World.open(tmp_path), UsageEvents()
    count(world, range(-3, 0), result="contract", requests=100)
    assert kinds(world, reporter) == kinds(world, reporter) == ["requests.refused"]
    found = status(world.store, MODEL, now_us=world.now_us)["use"]
    assert (found["requests"], found["failed"], found["refused"]) == (300, 0, 300)
