"""Forward events of the ledger to another system: in order, each at least once, and nothing waits for it.

An exporter runs in a thread next to the control loop. Its cursor is a row of the ledger, so a new process goes on where
the last one stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from holdfast.control.http.post import post
from holdfast.errors import UnavailableError
from holdfast.store import Store
from holdfast.store.db import event_cursors, events
from holdfast.store.db.events import EventRow
from holdfast.store.db.ledger import Transaction

EVENTS_AT_ONCE: Final = 100
"""How many events of the ledger one round forwards."""

MOST_PAUSE_ROUNDS: Final = 32
"""A job that failed is repeated in the 1st, 2nd, 4th, ... round after it, at most after this many."""

_SECONDS: Final = 5.0

Read: TypeAlias = Callable[[Transaction, EventRow], list[bytes]]
"""Returns the messages of one event, none if the receiver does not need it."""

_log = logging.getLogger("holdfast.control")


def forward(store: Store, cursor: str, read: Read, send: Callable[[EventRow, bytes], None]) -> int:
    """Send the messages of the events after `cursor`, and return how many were sent.

    If `send` raises, the cursor stays before the event that failed, and the next call sends that event again.

    Parameters
    ----------
    cursor
        Name of the row of `event_cursors` that holds the last event that was sent.
    read
        Called in a transaction that reads.
    send
        Called outside a transaction; it raises if the receiver did not accept the message.
    """
    with store.ledger.read() as connection:
        start = event_cursors.position(connection, cursor) or 0
        found = events.since(connection, start, limit=EVENTS_AT_ONCE)
        messages = [(each, read(connection, each)) for each in found]
    done, count = start, 0
    try:
        for event, bodies in messages:
            for body in bodies:
                send(event, body)
                count += 1
            done = event.event_id
    finally:
        if done > start:
            with store.ledger.write() as connection:
                event_cursors.advance(connection, cursor, done)
    return count


def deliver(
    url: str, body: bytes, *, receiver: str, setting: str, headers: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Post an event and require a 2xx response in time.

    Parameters
    ----------
    url, body, headers
        As for `post`.
    receiver, setting
        The receiver as the error names it, and the variable that holds its URL.

    Raises
    ------
    UnavailableError
        HF601 if the receiver did not accept the event.
    """
    try:
        status = post(url, body, headers, within_seconds=_SECONDS).status
        reason = "" if 200 <= status < 300 else f"it responded with status {status}"
    except UnavailableError as error:
        reason = error.what
    if reason:
        raise UnavailableError(
            "HF601",
            f"{receiver} at {url} did not accept an event: {reason}",
            state="nothing is lost: it is sent again",
            next_command=f"check {setting}",
        )


def run(
    jobs: Mapping[str, Callable[[], object]], *, wait: Callable[[float], bool], pause_seconds: float = 1.0
) -> None:
    """Call each job once a round, until `wait` returns True.

    A failure is logged when it begins or changes, not at every attempt. It delays its own job only.

    Parameters
    ----------
    jobs
        What to call, by the name that the log shows.
    wait
        Sleeps for `pause_seconds` and returns True when it is time to stop.
    """
    failures: dict[str, tuple[int, int, str]] = {}  # by job: failures in a row, rounds to pause, last reason
    while not wait(pause_seconds):
        for name, job in jobs.items():
            count, pause, reason = failures.get(name, (0, 0, ""))
            if pause > 0:
                failures[name] = (count, pause - 1, reason)
                continue
            try:
                job()
                failures.pop(name, None)
            except Exception as error:
                # Whatever it was, the events are in the ledger, and nothing else may suffer from it.
                if str(error) != reason:
                    _log.warning("%s failed and will be repeated: %s", name, error)
                failures[name] = (count + 1, min(2**count, MOST_PAUSE_ROUNDS) - 1, str(error))
