"""Tells a catalogue of OpenLineage what happened to the tables: the events of the ledger, in order, each at least once.

Nothing waits for the catalogue: this runs in a thread of its own beside the control loop. When an event is not taken the
ledger says how far it has come, and the next round goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from holdfast.control.http.post import tell
from holdfast.records import canonical_json
from holdfast.store import Store
from holdfast.store.db import event_cursors, events
from holdfast.store.integrations import openlineage as facts
from holdfast.tables.openlineage import run_events

FOLLOWER: Final = "openlineage"
"""Whose place in the story is kept."""

EVENTS_AT_ONCE: Final = 50
"""A round tells few events, so that it is short."""

_SECONDS: Final = 5.0
_ENDPOINT: Final = "/api/v1/lineage"

_log = logging.getLogger("holdfast.control")


def announce(store: Store, url: str) -> int:
    """Post what happened since the last call to the catalogue at `url`; how many events of the ledger that were.

    `url` is http or https, with or without the path of the endpoint. Raises `UnavailableError` HF209 when the catalogue
    does not take it; what it took before stays told.
    """
    with store.ledger.read() as connection:
        reached = event_cursors.reached(connection, FOLLOWER) or 0
        found = events.since(connection, reached, limit=EVENTS_AT_ONCE)
        runs = [
            (each.event_id, [one for fact in facts.of_event(connection, each) for one in run_events(fact)])
            for each in found
        ]
    told = reached
    try:
        for number, each in runs:
            for one in each:
                _post(url, one)
            told = number
    finally:
        if told > reached:
            with store.ledger.write() as connection:
                event_cursors.follow(connection, FOLLOWER, told)
    return len(runs)


def run(store: Store, url: str, *, wait: Callable[[float], bool], pause_seconds: float = 1.0) -> None:
    """Announce until `wait`, which sleeps for `pause_seconds`, says that it is time to stop.

    A catalogue that is away is logged when that begins, and not again before it was back.
    """
    away = False
    while not wait(pause_seconds):
        try:
            announce(store, url)
            away = False
        except Exception as error:
            # Whatever it was, the events are in the ledger, and nothing else may suffer from it.
            if not away:
                _log.warning("%s", error)
            away = True


def _post(url: str, event: dict[str, Any]) -> None:
    target = url if url.rstrip("/").endswith(_ENDPOINT) else url.rstrip("/") + _ENDPOINT
    body = canonical_json(event).encode()
    tell(
        target,
        body,
        {},
        within_seconds=_SECONDS,
        who="the OpenLineage catalogue",
        next_command="check HOLDFAST_OPENLINEAGE_URL",
    )
