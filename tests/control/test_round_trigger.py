"""When rounds of a control loop are due: a round follows what happened, and nothing else goes on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from holdfast.control import loop, round_trigger
from holdfast.control.round_trigger import RoundTrigger
from holdfast.rollout.model.abort import Abort
from holdfast.store import Store
from holdfast.store.db import events, leases, schema
from holdfast.store.rollout import rollouts
from holdfast.store.serving import aborts, servers
from holdfast.store.serving.servers import Server
from tests.support import serving_world
from tests.support.queries import write
from tests.support.serving_world import World
from tests.support.waiting import wait_until

MODEL = "m"
LONG = 60.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def trigger(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[RoundTrigger]:
    """A trigger after the first rounds, whose next round nothing but an event makes due."""
    monkeypatch.setattr(round_trigger, "ROUND_SECONDS", LONG)
    with closing(RoundTrigger(store, MODEL)) as made:
        assert made.begins_round()
        while made.begins_round():
            pass
        yield made


def commit(store: Store) -> None:
    write(store, events.append, at_us=1, kind="a.kind", subject="s", explanation="e")


def announce(store: Store, log: Path) -> None:
    write(store, servers.announce, Server("s1", MODEL, "http://x", log, 1), tagged_from_segment=1)


def renewed_us(store: Store) -> int:
    with store.ledger.read() as connection:
        return int(connection.execute(select(schema.leases.c.renewed_at_us)).scalar_one())


@pytest.mark.usefixtures("each_ledger")
def test_a_commit_ends_the_wait_and_a_lease_does_not(store: Store, trigger: RoundTrigger) -> None:
    with store.ledger.write(quiet=True) as connection:
        leases.acquire(connection, "control-m", holder="h", duration_us=1, now_us=1)
    trigger.wait(0.0)
    assert not trigger.begins_round()
    commit(store)
    trigger.wait(LONG)
    assert trigger.begins_round()
    assert not trigger.begins_round()


@pytest.mark.usefixtures("each_ledger")
def test_a_commit_whose_nudge_was_lost_is_found_by_the_next_look(store: Store, trigger: RoundTrigger) -> None:
    with store.ledger.write(quiet=True) as connection:
        events.append(connection, at_us=1, kind="a.kind", subject="s", explanation="e")
    assert trigger.begins_round()
    assert not trigger.begins_round()


def test_a_log_that_grows_makes_a_round_due(store: Store, trigger: RoundTrigger, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    announce(store, log)
    while trigger.begins_round():
        pass
    assert not trigger.has_servers_elsewhere
    for change in (b"a", b"ab"):
        (log / "00000001.log").write_bytes(change)
        assert trigger.begins_round()
        assert not trigger.begins_round()
    (log / "00000002.log").write_bytes(b"")
    assert trigger.begins_round()


def test_an_abort_ends_the_wait(store: Store, trigger: RoundTrigger) -> None:
    aborts.add(aborts.directory_of(store.root, MODEL), Abort("v1", 1, 0, "bad", "ann", 1))
    trigger.wait(LONG)
    assert trigger.begins_round()
    assert not trigger.begins_round()


def test_time_alone_makes_a_round_due(
    store: Store, trigger: RoundTrigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_trigger, "ROUND_SECONDS", 0.0)
    commit(store)
    assert trigger.begins_round()
    assert trigger.begins_round()


def test_a_round_that_left_something_undone_is_repeated(trigger: RoundTrigger) -> None:
    trigger.hasten()
    trigger.wait(LONG)
    assert trigger.begins_round()


def test_a_rollout_under_way_lets_no_loop_wait(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    challenger = world.version("half")
    write(
        world.store, rollouts.insert_pending, model=serving_world.MODEL, challenger=challenger, champion=None, policy="{}",
        reason="r", actor="ann", now_us=1,
    )  # fmt: skip
    with closing(RoundTrigger(world.store, serving_world.MODEL)) as trigger:
        for _ in range(3):
            assert trigger.begins_round()
            trigger.wait(LONG)
    world.store.ledger.close()


def test_a_server_on_another_machine_gets_requests_for_its_aborts_between_rounds(
    store: Store, trigger: RoundTrigger, tmp_path: Path
) -> None:
    announce(store, tmp_path / "elsewhere")
    while trigger.begins_round():
        pass
    assert trigger.has_servers_elsewhere


def test_an_idle_loop_rests_keeps_its_lease_and_meets_the_next_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 13: it looks, and neither reads the ledger for its concerns nor lets another loop take over."""
    monkeypatch.setattr(round_trigger, "ROUND_SECONDS", LONG)
    monkeypatch.setattr(loop, "POLL_SECONDS", 0.01)
    rounds, looks, stopped = list[int](), list[bool](), threading.Event()
    trigger = RoundTrigger(store, MODEL)
    begins = trigger.begins_round

    def begins_round() -> bool:
        looks.append(begins())
        return looks[-1]

    monkeypatch.setattr(trigger, "begins_round", begins_round)
    run = partial(
        loop.run, store, MODEL, holder="h", clock_us=lambda: 1 + len(looks), wait=stopped.wait, pause_seconds=0.001,
        doing={"observing": lambda *_, now_us: rounds.append(now_us)}, trigger=trigger,
    )  # fmt: skip
    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: looks[-3:] == [False] * 3, "the loop rests")
        done, before_us = len(rounds), renewed_us(store)
        looked = len(looks)
        wait_until(lambda: len(looks) > looked + 1, "the loop looks again")
        assert len(rounds) == done
        assert renewed_us(store) > before_us
        monkeypatch.setattr(loop, "POLL_SECONDS", LONG)
        commit(store)
        wait_until(lambda: len(rounds) > done, "a round follows the commit")
    finally:
        stopped.set()
        trigger.wake()
        thread.join(60)
    assert not thread.is_alive()
    trigger.close()
