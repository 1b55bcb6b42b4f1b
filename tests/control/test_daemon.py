"""The control loop in this process: what fails keeps nothing else from being done, and it is fenced."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from holdfast.control import daemon, loop
from holdfast.errors import ConflictError, IntegrityError
from holdfast.store import Store
from holdfast.store.db import leases

MODEL = "m"
CONCERNS = ("collecting the logs", "joining labels", "probing the servers", "carrying the rollout on")


class Clock:
    """Time that goes on by a tenth of a second at each look."""

    def __init__(self) -> None:
        self.now_us = 1_700_000_000_000_000

    def __call__(self) -> int:
        self.now_us += 100_000
        return self.now_us


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path)


def lease_of(store: Store, holder: str = "loop") -> leases.Lease:
    with store.ledger.write() as connection:
        held = leases.acquire(
            connection, f"control-{MODEL}", holder=holder, duration_us=loop.LEASE_US, now_us=1
        )
    assert isinstance(held, leases.Lease)
    return held


@pytest.mark.parametrize("broken", CONCERNS)
def test_a_concern_that_fails_starves_no_other(
    store: Store, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """R117: a rollback must not wait until a file is repaired."""
    done: list[str] = []

    def observed(name: str):
        def concern(*_: object, now_us: int) -> None:
            if name == broken:
                raise IntegrityError("HF301", "a file is damaged")
            done.append(name)

        return concern

    assert set(CONCERNS) < daemon.concerns().keys()
    doing = {name: observed(name) for name in CONCERNS}
    with caplog.at_level(logging.ERROR):
        loop.run_round(store, MODEL, lease_of(store), clock_us=Clock(), doing=doing)
    assert done == [name for name in CONCERNS if name != broken]
    assert f"{broken} failed" in caplog.text


def test_a_lost_lease_ends_the_round_and_is_not_taken_for_a_failure(store: Store) -> None:
    done: list[str] = []

    def lose(*_: object, now_us: int) -> None:
        lease_of(store)  # a twin with the same name: a new epoch

    def later(*_: object, now_us: int) -> None:
        done.append("later")

    with pytest.raises(ConflictError, match="HF304"):
        loop.run_round(
            store, MODEL, lease_of(store), clock_us=Clock(), doing={"joining labels": lose, "probing": later}
        )
    assert done == []


def test_the_lease_is_renewed_before_each_concern(store: Store) -> None:
    """Four slow concerns, each shorter than the lease and together longer: no other loop may take it."""
    clock = Clock()
    watcher: leases.Lease | leases.Sighting | None = None

    def slow(*_: object, now_us: int) -> None:
        nonlocal watcher
        for _ in range(2):
            clock.now_us += loop.LEASE_US // 3
            with store.ledger.write() as connection:
                watcher = leases.acquire(
                    connection,
                    f"control-{MODEL}",
                    holder="other",
                    duration_us=1,
                    now_us=clock(),
                    seen=watcher,
                )
            assert isinstance(watcher, leases.Sighting)

    loop.run_round(store, MODEL, lease_of(store), clock_us=clock, doing=dict.fromkeys(CONCERNS, slow))


def test_run_takes_the_lease_goes_round_and_gives_it_back(store: Store) -> None:
    rounds = 0

    def count(*_: object, now_us: int) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            lease_of(store, "loop")  # fenced once; the loop must find its way back

    doing = {**daemon.concerns(), "carrying the rollout on": count}
    waits = iter([False, False, False, False, True])
    loop.run(store, MODEL, holder="loop", clock_us=Clock(), wait=lambda _: next(waits), doing=doing)
    assert rounds >= 3
    assert isinstance(lease_of(store, "next"), leases.Lease)


def test_two_loops_in_one_ledger_take_turns_without_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    stop = threading.Event()

    def go(holder: str) -> None:
        store = Store.open(tmp_path)
        loop.run(
            store,
            MODEL,
            holder=holder,
            clock_us=clock,
            wait=lambda _: stop.wait(0.005),
            doing=daemon.concerns(),
        )
        store.ledger.close()

    Store.open(tmp_path).ledger.close()
    threads = [threading.Thread(target=go, args=(name,)) for name in ("a", "b")]
    with caplog.at_level(logging.ERROR):
        for thread in threads:
            thread.start()
        stop.wait(1.0)
        stop.set()
        for thread in threads:
            thread.join(20)
    assert caplog.text == ""
