"""Tells a sink of CDEvents what happened to versions: the events of the ledger, in order, each at least once.

Nothing waits for the sink: this runs in a thread of its own beside the control loop, as `openlineage` does for a catalogue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from holdfast.control.http.post import tell
from holdfast.records import canonical_json
from holdfast.rollout.cdevents import CDEvent, cdevents, cloudevent
from holdfast.store import Store
from holdfast.store.db import event_cursors, events
from holdfast.store.integrations import cdevents as facts

FOLLOWER: Final = "cdevents"
"""Whose place in the story is kept."""

EVENTS_AT_ONCE: Final = 100
"""A round tells few events, so that it is short."""

_SECONDS: Final = 5.0
_JSON: Final = {"Content-Type": "application/cloudevents+json; charset=utf-8"}

_log = logging.getLogger("holdfast.control")


def told(store: Store, since: int, *, environment: str = "production") -> tuple[int, list[CDEvent]]:
    """The CDEvents of the events after number `since`, at most `EVENTS_AT_ONCE` events, and the number of the last of them."""
    with store.ledger.read() as connection:
        found = events.since(connection, since, limit=EVENTS_AT_ONCE)
        known = [fact for each in found if (fact := facts.of_event(connection, each)) is not None]
    reached = found[-1].event_id if found else since
    return reached, [one for fact in known for one in cdevents(fact, environment=environment)]


def announce(store: Store, url: str, *, environment: str = "production") -> int:
    """Post what happened since the last call to the sink at `url`; how many CDEvents that were.

    Raises `UnavailableError` HF209 when the sink does not take one; all of this call are then told again, by the same ids.
    """
    with store.ledger.read() as connection:
        reached = event_cursors.reached(connection, FOLLOWER) or 0
    last, found = told(store, reached, environment=environment)
    for each in found:
        _post(url, each)
    if last > reached:
        with store.ledger.write() as connection:
            event_cursors.follow(connection, FOLLOWER, last)
    return len(found)


def run(
    store: Store,
    url: str,
    *,
    environment: str,
    wait: Callable[[float], bool],
    pause_seconds: float = 1.0,
) -> None:
    """Announce until `wait`, which sleeps for `pause_seconds`, says that it is time to stop.

    A sink that is away is logged when that begins, and not again before it was back.
    """
    away = False
    while not wait(pause_seconds):
        try:
            announce(store, url, environment=environment)
            away = False
        except Exception as error:
            # Whatever it was, the events are in the ledger, and nothing else may suffer from it.
            if not away:
                _log.warning("%s", error)
            away = True


def _post(url: str, event: CDEvent) -> None:
    body = canonical_json(cloudevent(event)).encode()
    tell(
        url,
        body,
        _JSON,
        within_seconds=_SECONDS,
        who="the sink of CDEvents",
        next_command="check HOLDFAST_CDEVENTS_URL",
    )
