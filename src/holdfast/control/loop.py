"""The control loop: look at what is, do the next step of each concern, begin again.

It is level-triggered: nothing is remembered between two rounds except in the ledger, so it may be killed at any moment and
started again, and two of them at once are harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from holdfast.control import observe, rollout
from holdfast.control.probe import probe
from holdfast.errors import ConflictError
from holdfast.store import Store, leases

LEASE_US: Final = 3_000_000
"""How long a holder may fall silent, in microseconds, before another takes the lease."""

_log = logging.getLogger("holdfast.control")


def run_round(store: Store, model: str, lease: leases.Lease, *, now_us: int) -> None:
    """Collect what the servers logged, join labels, probe, and carry the rollout on."""
    observe.collect(store, model, lease, now_us=now_us)
    observe.join(store, model, lease, now_us=now_us)
    probe(store, model, lease, now_us=now_us)
    rollout.reconcile(store, model, lease, now_us=now_us)


def run(
    store: Store,
    model: str,
    *,
    holder: str,
    clock_us: Callable[[], int],
    wait: Callable[[float], bool],
    pause_seconds: float = 0.2,
) -> None:
    """Go round until `wait`, which sleeps for `pause_seconds`, says that it is time to stop.

    The pause gathers what many requests logged into one transaction and one file, also when there is much to do.

    A round that fails leaves the ledger as it was and is tried again; its error is logged with its traceback.
    """
    held: leases.Lease | leases.Sighting | None = None
    while True:
        try:
            held = _hold(store, model, holder, held, clock_us())
            if isinstance(held, leases.Lease):
                run_round(store, model, held, now_us=clock_us())
        except ConflictError as error:
            _log.warning("another control loop has taken over %s: %s", model, error)
            held = None
        except Exception:
            # Whatever it was (a locked or unreachable database, say), the next round begins from the ledger again.
            _log.exception("a round of the control loop failed; it will be tried again")
        if wait(pause_seconds):
            break
    if isinstance(held, leases.Lease):
        leases.release(store, held)


def _hold(
    store: Store, model: str, holder: str, held: leases.Lease | leases.Sighting | None, now_us: int
) -> leases.Lease | leases.Sighting:
    """The lease, renewed when it is ours already; what another holder's looks like otherwise."""
    if isinstance(held, leases.Lease):
        leases.renew(store, held, now_us=now_us)
        return held
    return leases.acquire(
        store, f"control-{model}", holder=holder, duration_us=LEASE_US, now_us=now_us, seen=held
    )
