"""What a person may ask for in every state of a rollout: done, done already, or refused with nothing changed (R118, R135)."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import update

from holdfast.control.rollout import pause, reconcile
from holdfast.errors import HoldfastError
from holdfast.rollout import RESTING, TRANSITIONS, Event, State
from holdfast.store.db import events, schema
from holdfast.store.rollout import rollouts
from tests.support import rollout_world
from tests.support.queries import read

pytestmark = pytest.mark.sqlite


ALREADY = {
    Event.ROLLBACK: {State.ROLLING_BACK},
    Event.PAUSE: {State.PAUSED},
    Event.RESUME: {State.CANARY},
}
"""Where requesting again writes nothing."""


def impact(world: Any, state: State) -> None:
    """Bring the newest rollout of `world` to `state` on its real way."""
    way: list[Callable[[], object]]
    canary = [world.champion_responses, world.reconcile]
    end = [world.probe, world.reconcile]
    match state:
        case State.PENDING:
            way = []
        case State.SHADOWING:
            way = [lambda: _set(world, State.SHADOWING)]
        case State.CANARY:
            way = canary
        case State.PAUSED:
            way = [*canary, lambda: _pause(world)]
        case State.VERIFYING:
            way = [*canary, *(3 * [world.traffic, world.reconcile])]
        case State.PROMOTED:
            way = [*canary, *(3 * [world.traffic, world.reconcile]), *end]
        case State.ROLLING_BACK:
            way = [*canary, world.rollback]
        case State.ROLLED_BACK:
            way = [*canary, world.rollback, *end]
        case State.CANCELLED:
            way = [world.rollback]
    for step in way:
        step()
    assert world.row().state is state


def _set(world: Any, state: State) -> None:
    with world.store.ledger.write() as connection:
        connection.execute(
            update(schema.rollouts)
            .where(schema.rollouts.c.rollout_id == world.row().rollout_id)
            .values(state=state)
        )


def _pause(world: Any) -> int:
    return pause.pause(world.store, rollout_world.MODEL, actor="ann", reason="a look", now_us=world.tick())


def _resume(world: Any) -> int:
    return pause.resume(world.store, rollout_world.MODEL, actor="ann", reason="seen", now_us=world.tick())


def _all(world: Any) -> tuple[Any, ...]:
    with world.store.ledger.read() as connection:
        reported = len(events.newest(connection, limit=1000))
    return read(world.store, rollouts.of_model, rollout_world.MODEL), world.plan(), reported


def _code(operation: Callable[[], object]) -> str:
    try:
        operation()
    except HoldfastError as error:
        return error.code
    return ""


@pytest.fixture(scope="module")
def begin_again(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Any]]:
    """Gives a world with a champion, each time as it was: a ledger is filled sooner than it is migrated."""
    world = rollout_world.World.open(tmp_path_factory.mktemp("matrix"))
    world.promote(world.add_version())
    path = world.store.root / "ledger.db"
    kept = sqlite3.connect(":memory:")
    with closing(sqlite3.connect(path)) as source:
        source.backup(kept)

    def again() -> Any:
        with closing(sqlite3.connect(path)) as target:
            kept.backup(target)
        return dataclasses.replace(world)

    yield again
    kept.close()
    world.store.ledger.close()


@pytest.mark.parametrize("state", list(State))
def test_every_command_in_every_state(begin_again: Callable[[], Any], state: State) -> None:
    """Each on a world of its own, so that none leans on another's effect."""
    requested: dict[Event, Callable[[Any], object]] = {
        Event.ROLLBACK: lambda world: world.rollback(),
        Event.PAUSE: _pause,
        Event.RESUME: _resume,
    }
    for event, ask in requested.items():
        world = begin_again()
        champion = world.row().challenger
        world.begin(world.add_version())
        impact(world, state)
        before = _all(world)
        code = _code(lambda ask=ask, world=world: ask(world))
        after = _all(world)
        number = before[0][0].rollout_id
        if (state, event) in TRANSITIONS:
            assert code == ""
            assert read(world.store, rollouts.get, number).state is TRANSITIONS[state, event]
            assert after[2] > before[2]
        elif state in ALREADY[event]:
            assert (code, after) == ("", before)
        elif event is Event.ROLLBACK:
            # It is over, and so the promotion of the champion would be undone: only when it is named.
            assert (code, after) == ("HF404", before)
            assert _code(lambda world=world, champion=champion: world.rollback(champion)) == ""
            assert world.plan().champion != champion
            assert read(world.store, rollouts.get, number) == before[0][0]
        else:
            assert (code, after) == ("HF410" if state in RESTING else "HF404", before)


@pytest.mark.parametrize("state", list(State))
def test_another_version_begins_only_where_none_is_under_way(
    begin_again: Callable[[], Any], state: State
) -> None:
    world = begin_again()
    first = world.begin(world.add_version())
    impact(world, state)
    other, before = world.add_version(), _all(world)
    code = _code(lambda: world.begin(other))
    if state in RESTING:
        assert code == ""
        assert (world.row().rollout_id > first, world.row().state) == (True, State.PENDING)
        return
    assert (code, _all(world)) == ("HF404", before)
    # Requesting again for what is under way is no second wish.
    assert world.begin(read(world.store, rollouts.get, first).challenger) == first
    assert _all(world) == before


def test_a_loop_changes_nothing_where_nothing_is_left_to_do(begin_again: Callable[[], Any]) -> None:
    for state in sorted(RESTING):
        world = begin_again()
        world.begin(world.add_version())
        impact(world, state)
        before = _all(world)
        assert reconcile.reconcile(world.store, rollout_world.MODEL, world.lease, now_us=world.tick()) == []
        assert _all(world) == before
