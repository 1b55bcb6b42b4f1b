"""Leases: one holder, taken over only after standing still, and fenced by the epoch for ever after (D6,
P16).
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.control import loop
from holdfast.errors import ConflictError
from holdfast.store import Store
from holdfast.store.db import leases
from holdfast.store.db.leases import Lease, Sighting
from tests.support.profile import examples

pytestmark = pytest.mark.usefixtures("each_ledger")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def _take(store: Store, holder: str, now_us: int, seen: Sighting | None = None) -> Lease | Sighting:
    with store.ledger.write() as connection:
        return leases.acquire(connection, "control", holder=holder, duration_us=100, now_us=now_us, seen=seen)


def test_a_lease_that_is_renewed_is_never_taken(store: Store) -> None:
    mine = _take(store, "a", 0)
    assert isinstance(mine, Lease)
    seen: Sighting | None = None
    for now_us in range(0, 1000, 60):
        with store.ledger.write() as connection:
            leases.renew(connection, mine, now_us=0)  # even with a clock that stands still
        response = _take(store, "b", now_us, seen)
        assert isinstance(response, Sighting)
        seen = response


def test_a_lease_that_stands_still_is_taken_and_the_old_holder_fenced(store: Store) -> None:
    old = _take(store, "a", 1_000_000)
    first = _take(store, "b", 5)  # b's clock has nothing to do with a's
    assert isinstance(old, Lease)
    assert isinstance(first, Sighting)
    early = _take(store, "b", 104, first)
    assert early == first  # the time of the first sighting runs on
    new = _take(store, "b", 105, first)
    assert isinstance(new, Lease)
    assert new.epoch == old.epoch + 1
    with pytest.raises(ConflictError, match="HF304"), store.ledger.write() as connection:
        leases.renew(connection, old, now_us=2)
    with pytest.raises(ConflictError, match="HF304"), store.ledger.write() as connection:
        leases.assert_epoch(connection, "control", old.epoch)
    with store.ledger.write() as connection:
        leases.assert_epoch(connection, "control", new.epoch)
    with store.ledger.write() as connection:
        assert not leases.release(connection, old)


def test_a_released_lease_is_free_at_once(store: Store) -> None:
    mine = _take(store, "a", 0)
    assert isinstance(mine, Lease)
    with store.ledger.write() as connection:
        assert leases.release(connection, mine)
    with pytest.raises(ConflictError, match="no process"), store.ledger.write() as connection:
        leases.assert_epoch(connection, "control", mine.epoch)
    assert isinstance(_take(store, "b", 0), Lease)


def test_the_same_holder_again_fences_its_twin(store: Store) -> None:
    first, second = _take(store, "a", 0), _take(store, "a", 0)
    assert isinstance(first, Lease)
    assert isinstance(second, Lease)
    assert second.epoch == first.epoch + 1


def test_a_lease_is_waited_for_as_long_as_is_allowed_and_no_longer(store: Store) -> None:
    def take(holder: str, duration_us: int, within_seconds: float) -> Lease | None:
        return loop.take_lease(
            store,
            "control",
            holder=holder,
            duration_us=duration_us,
            clock_us=lambda: time.monotonic_ns() // 1_000,
            within_seconds=within_seconds,
        )

    first = take("a", 40_000, 0.0)  # a free one is had at once
    assert first is not None
    assert take("b", 40_000, 0.0) is None
    second = take("b", 40_000, 30.0)
    assert second is not None
    assert second.epoch == first.epoch + 1


def test_a_process_that_was_stopped_before_the_ledger_responded_has_observed_nothing(store: Store) -> None:
    """The lease that it then sees may have been renewed a time ago."""
    _take(store, "a", 0)
    clock_us = iter((0, 1_000_000, 1_000_099))
    seen: Sighting | None = None
    for _ in range(2):
        found = loop.request_lease(
            store, "control", holder="b", duration_us=100, clock_us=lambda: next(clock_us), seen=seen
        )
        assert isinstance(found, Sighting)
        seen = found
    assert seen is not None
    assert seen.since_us == 1_000_000


def test_a_lease_that_is_not_there_is_requested_in_vain(store: Store) -> None:
    with pytest.raises(ValueError, match="holder"):
        _take(store, "", 0)


@examples(15)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 90), st.booleans()), max_size=25))
def test_however_three_loops_interleave_only_the_newest_epoch_can_write(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]]
) -> None:
    store = Store.open(tmp_path_factory.mktemp("store"))
    clock = dict.fromkeys("abc", 0)
    held: dict[str, Lease] = {}
    seen: dict[str, Sighting | None] = dict.fromkeys("abc")
    for holder, pause_us, renews in steps:
        clock[holder] += pause_us
        if holder in held and renews:
            try:
                with store.ledger.write() as connection:
                    leases.renew(connection, held[holder], now_us=clock[holder])
            except ConflictError:
                del held[holder]
        else:
            response = _take(store, holder, clock[holder], seen[holder])
            if isinstance(response, Lease):
                held[holder] = response
                seen[holder] = None
            else:
                seen[holder] = response
        writers = 0
        for lease in held.values():
            try:
                with store.ledger.write() as connection:
                    leases.assert_epoch(connection, lease.name, lease.epoch)
                writers += 1
            except ConflictError:
                continue
        assert writers <= 1
    store.ledger.close()
