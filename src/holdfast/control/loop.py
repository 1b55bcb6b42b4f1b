"""Run the control loop: observe, do the next step of each concern, repeat.

It is level-triggered: only the ledger remembers anything between two rounds. So a loop can be killed at any time and started
again, and two of them at once are harmless. Between rounds it rests until there may be something to do (`rest.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeAlias

from holdfast.control.round_trigger import POLL_SECONDS, RoundTrigger
from holdfast.errors import ConflictError
from holdfast.store import Store
from holdfast.store.db import leases

LEASE_US: Final = 3_000_000
"""How long a holder may fall silent, in microseconds, before another takes the lease."""

STANDBY_SECONDS: Final = 0.3
"""How long a loop without the lease rests besides its pause: it must notice soon that the holder has died."""

Concern: TypeAlias = Callable[..., object]
"""What the loop takes care of: called with the store, the model, the lease and `now_us`."""

_log = logging.getLogger("holdfast.control")


def request_lease(
    store: Store,
    name: str,
    *,
    holder: str,
    duration_us: int,
    clock_us: Callable[[], int],
    seen: leases.Sighting | None,
) -> leases.Lease | leases.Sighting:
    """Call `leases.acquire` once, by the clock of a caller that calls again with what it returned."""
    with store.ledger.write(quiet=True) as connection:
        found = leases.acquire(
            connection, name, holder=holder, duration_us=duration_us, now_us=clock_us(), seen=seen
        )
    if isinstance(found, leases.Sighting) and found != seen:
        # The clock is read again: a caller that was stopped between its clock and the ledger would count that time as
        # observed, and take a lease that has just been renewed.
        return replace(found, since_us=clock_us())
    return found


def take_lease(
    store: Store,
    name: str,
    *,
    holder: str,
    duration_us: int,
    clock_us: Callable[[], int],
    within_seconds: float,
) -> leases.Lease | None:
    """Wait until the lease is free or its holder stopped renewing it; None if that takes more than `within_seconds`."""
    until = time.monotonic() + within_seconds
    seen: leases.Sighting | None = None
    while True:
        found = request_lease(
            store, name, holder=holder, duration_us=duration_us, clock_us=clock_us, seen=seen
        )
        if isinstance(found, leases.Lease):
            return found
        if time.monotonic() >= until:
            return None
        seen = found
        time.sleep(duration_us / 4e6)


def run_round(
    store: Store,
    model: str,
    lease: leases.Lease,
    *,
    clock_us: Callable[[], int],
    doing: Mapping[str, Concern],
) -> bool:
    """Call each concern of `doing` once, in order, each for itself; return True if none failed.

    A concern that fails is logged and tried again in the next round, and the others are done all the same: a
    file that cannot be read must not keep a bad version in its place. Raises `ConflictError` HF304 when `lease`
    has gone to another loop; that ends the round.
    """
    succeeded = True
    _renew(store, lease, clock_us())
    renewed_us = clock_us()
    for name, concern in doing.items():
        try:
            is_recent = 0 <= clock_us() - renewed_us < lease.duration_us // 10  # a clock may go back
            if not is_recent or not _is_held(store, lease):
                _renew(store, lease, clock_us())
                renewed_us = clock_us()
            concern(store, model, lease, now_us=clock_us())
        except ConflictError:
            raise
        except Exception:
            # A locked or unreachable database, for example: the next round begins from the ledger again.
            _log.exception("%s failed; it will be tried again", name)
            succeeded = False
    return succeeded


def _renew(store: Store, lease: leases.Lease, now_us: int) -> None:
    with store.ledger.write(quiet=True) as connection:
        leases.renew(connection, lease, now_us=now_us)


def _is_held(store: Store, lease: leases.Lease) -> bool:
    with store.ledger.read() as connection:
        return leases.is_held(connection, lease)


def run(
    store: Store,
    model: str,
    *,
    holder: str,
    clock_us: Callable[[], int],
    wait: Callable[[float], bool],
    pause_seconds: float = 0.2,
    doing: Mapping[str, Concern],
    trigger: RoundTrigger | None = None,
    between_rounds: Mapping[str, Concern] = MappingProxyType({}),
) -> None:
    """Run rounds until `wait`, which sleeps for `pause_seconds`, returns True.

    The pause gathers what many requests logged into one transaction and one file, also when there is much to do.

    What fails leaves the ledger as it was and is tried again; its error is logged with its traceback.

    Parameters
    ----------
    holder
        The name of this loop in the lease.
    doing
        The concerns of a round.
    trigger
        Decides when a round is due; by default it is after each pause.
    between_rounds
        The concerns that go on meanwhile, about once a second: those of what no commit and no log shows.
    """
    held: leases.Lease | leases.Sighting | None = None
    while True:
        try:
            if not isinstance(held, leases.Lease):
                held = request_lease(
                    store,
                    f"control-{model}",
                    holder=holder,
                    duration_us=LEASE_US,
                    clock_us=clock_us,
                    seen=held,
                )
            if isinstance(held, leases.Lease):
                due = doing
                if trigger is not None and not trigger.begins_round():
                    due = between_rounds if trigger.has_servers_elsewhere else {}
                succeeded = run_round(store, model, held, clock_us=clock_us, doing=due)
                if not succeeded and trigger is not None:
                    trigger.hasten()
        except ConflictError as error:
            _log.warning("another control loop has taken over %s: %s", model, error)
            held = None
        except Exception:
            _log.exception("the lease of the control loop cannot be had; it will be tried again")
        if wait(pause_seconds):
            break
        if trigger is not None:
            trigger.wait(POLL_SECONDS if isinstance(held, leases.Lease) else STANDBY_SECONDS)
            if wait(0.0):
                break
    if isinstance(held, leases.Lease):
        with store.ledger.write() as connection:
            leases.release(connection, held)
