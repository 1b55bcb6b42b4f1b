"""What is wrong with a feed is a fact of health, whatever state its feed is in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast import Contract, Feed, Text, Timestamp
from holdfast.control.health.facts import FactsReader, feed_facts
from holdfast.control.ingest.feed_status import FeedStatus
from holdfast.control.reports.metrics import StatusCollector
from holdfast.control.reports.status import StatusReader
from holdfast.feeds.state_machine import State
from holdfast.qualify import GateResult
from holdfast.records import BatchId, Level, Verdict, Violation
from holdfast.store.backout import backouts, taints
from holdfast.store.catalog.batches import FeedTotals
from holdfast.store.feeds import admissions
from holdfast.store.feeds.violations import ViolationRow
from holdfast.store.models import gate_results
from holdfast.tables.backout import BackoutPlan
from tests.support.rollout_world import MODEL, World

LOADED_US = 1_000
FLOWING = FeedStatus(
    "weather", State.FLOWING, "", 1, FeedTotals("weather", 3, "day-3", 9, 0, 1, 2, LOADED_US), (), None, ()
)


def violation(
    number: int, batch: str, level: Level, *, epoch: int | None = 1, found_at_us: int = LOADED_US
) -> ViolationRow:
    text = f"{batch} broke {level}"
    return ViolationRow(
        number, "weather", batch, epoch, "mix", "", level, None, None, text, found_at_us, None, None
    )


def test_a_refusal_while_the_feed_is_suspect_is_a_fact() -> None:
    """The feed stays suspect when a delivery is refused: the refusal was shown by nothing."""
    refused = violation(2, "day-4", Level.CRITICAL, epoch=None)
    status = replace(
        FLOWING,
        state=State.SUSPECT,
        suspect=("day-2",),
        open=(refused, violation(1, "day-2", Level.ERROR)),
    )
    facts = feed_facts(status)
    assert facts.suspect == {"day-2": "day-2 broke error"}
    assert facts.refused == {"day-4": "day-4 broke critical"}


def test_a_refusal_is_over_when_a_later_batch_was_loaded() -> None:
    before = violation(1, "day-2", Level.CRITICAL, epoch=None, found_at_us=LOADED_US - 1)
    assert feed_facts(replace(FLOWING, open=(before,))).refused == {}
    assert feed_facts(replace(FLOWING, open=(before,), totals=None)).refused == {
        "day-2": "day-2 broke critical"
    }


def test_warnings_are_those_of_the_newest_batch() -> None:
    """An unusual mixture left the status "healthy"; those of every old batch would never end."""
    status = replace(
        FLOWING, open=(violation(2, "day-3", Level.WARNING), violation(1, "day-1", Level.WARNING))
    )
    assert feed_facts(status).warned == {"day-3": "day-3 broke warning"}


def test_batches_found_again_in_files_are_one_fact() -> None:
    again = tuple(f"day-{number}" for number in range(3))
    facts = feed_facts(replace(FLOWING, suspect=(*again, "other"), reregistered=again, reason="why"))
    assert (facts.reregistered, facts.suspect) == (3, {"other": "why"})


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.open(tmp_path)
    world.promote(world.add_version())
    return world


def test_feeds_of_another_model_in_the_store_are_no_problem_of_this_one(world: World) -> None:
    with world.store.ledger.write() as connection:
        admissions.refuse(
            connection,
            BatchId("weather", "day-1"),
            [Violation("volume", "", Level.CRITICAL, "3 rows came")],
            contract_hash="c",
            now_us=world.now_us,
        )
    own = Feed("flights", Contract(Text("id"), Timestamp("at", tz="UTC"), key="id", event_time="at"))
    assert FactsReader(world.store, MODEL, [own]).read(now_us=world.now_us).feeds[0].feed == "flights"
    found = FactsReader(world.store, MODEL).read(now_us=world.now_us).feeds
    assert [each.feed for each in found if each.refused] == ["weather"]


def test_page_metric_and_health_count_the_same_failed_gates(world: World) -> None:
    """The metric counted failed gates of a version that has traffic; health and page did not."""
    failed = [
        GateResult("baseline", Verdict.FAIL, "worse"),
        GateResult("size", Verdict.PASS, "small"),
    ]

    def judged(version: str) -> tuple[float, bool]:
        with world.store.ledger.write() as connection:
            gate_results.append(connection, version, failed, now_us=world.tick())
        status = StatusReader(world.store, MODEL).read(now_us=world.now_us)
        samples = [
            sample.value
            for family in StatusCollector(MODEL, lambda: status).collect()
            for sample in family.samples
            if sample.name == "holdfast_failed_gates" and sample.labels["version"] == version
        ]
        (value,) = samples
        return value, any(each.kind == "gate_failed" for each in status.health.problems)

    assert judged(world.plan().champion) == (0.0, False)
    newest = world.add_version(state="registered")
    assert judged(newest) == (1.0, True)
    with world.store.ledger.write() as connection:
        plan = BackoutPlan("flights", "d1", ())
        number = backouts.begin(connection, plan, reason="r", actor="ann", now_us=world.now_us)
        taints.add(connection, "version", [newest], backout=number, now_us=world.now_us)
    assert judged(newest) == (0.0, False), "it cannot be qualified any more: HF406"
