"""A back-out that was killed, and what came between: another load under the id, a feed of the group, another declaration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.control.backout.backout import execute_backout, finish_interrupted, plan_backout
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.backout import backout_loads, backouts
from holdfast.store.durability import failpoints
from tests.support import backout_world
from tests.support.queries import newest_backouts

if TYPE_CHECKING:
    from types import ModuleType


class KilledError(Exception):
    """Stands for the end of the process: nothing after it runs, and what was not committed is gone."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    yield Store.open(tmp_path / "store")
    failpoints.armed = None


def _killed_at(point: str) -> None:
    def die(reached: str) -> None:
        if reached == point:
            raise KilledError

    failpoints.armed = die


def _live(store: Store, world: ModuleType, hour: int) -> list[tuple[str, str, int]]:
    with store.ledger.read() as connection:
        names = [feed.name for feed in world.FEEDS]
        return [load.key for load in backout_loads.live(connection, names, f"h{hour}")]


def _execute_backout(
    store: Store, world: ModuleType, feed: str, reason: str, declared: tuple[object, ...]
) -> str:
    done = execute_backout(
        store, declared, BatchId(feed, "h0"), reason=reason, actor="ann", now_us=world.NOW_US
    )
    assert done.reason == reason or done.state != "backed_out"
    return done.state


def test_a_correction_that_is_bad_too_is_backed_out_after_the_one_before(
    tmp_path: Path, store: Store
) -> None:
    """R6: "carried on" is no answer while what was requested is loaded."""
    world = backout_world
    world.load(store, tmp_path, world.ALONE, 0)
    _killed_at("backout.removed")
    with pytest.raises(KilledError):
        world.take_out(store, world.ALONE, 0)
    failpoints.armed = None
    assert world.load(store, tmp_path, world.ALONE, 0, 1).epoch == 1
    assert _execute_backout(store, world, "alone", "the correction is bad too", world.FEEDS) == "backed_out"
    assert _live(store, world, 0) == []
    with store.ledger.read() as connection:
        assert [row.reason for row in newest_backouts(connection)] == [
            "the correction is bad too",
            "the clock was wrong",
        ]
        assert backouts.under_way(connection) == []
    assert _execute_backout(store, world, "alone", "once more", world.FEEDS) == "already_backed_out"


@pytest.mark.parametrize("by_loop", [True, False])
def test_a_feed_of_the_group_that_is_loaded_after_the_beginning_goes_too(
    tmp_path: Path, store: Store, by_loop: bool
) -> None:
    """R8: what is right only together goes together, and is found under its own name afterwards."""
    world = backout_world
    world.load(store, tmp_path, world.FLIGHTS, 0)
    _killed_at("backout.begun")
    with pytest.raises(KilledError):
        world.take_out(store, world.FLIGHTS, 0)
    failpoints.armed = None
    world.load(store, tmp_path, world.WEATHER, 0)
    if by_loop:
        assert finish_interrupted(store, now_us=world.NOW_US) == [1]
    else:
        assert _execute_backout(store, world, "flights", "again", world.FEEDS) == "carried_on"
    assert _live(store, world, 0) == []
    assert _execute_backout(store, world, "weather", "again", world.FEEDS) == "already_backed_out"


@pytest.mark.parametrize("named", ["flights", "weather"])
def test_the_group_is_that_of_the_loading_whatever_is_declared_now(
    tmp_path: Path, store: Store, named: str
) -> None:
    """R8, R16: a feed that lost its group, or is not declared any more, goes all the same, with what servers read of it."""
    world = backout_world
    for feed in (world.FLIGHTS, world.WEATHER):
        world.load(store, tmp_path, feed, 0)
    for declared in ((), (world.FLIGHTS,), (replace(world.FLIGHTS, group=None), world.WEATHER)):
        plan = plan_backout(store, declared, BatchId(named, "h0"))
        assert {feed for feed, _, _ in plan.loads} == {"flights", "weather"}
        assert plan == plan_backout(store, world.FEEDS, BatchId(named, "h0"))
    assert _execute_backout(store, world, named, "gone", ()) == "backed_out"
    assert _live(store, world, 0) == []
    assert world.served(store) == {}
