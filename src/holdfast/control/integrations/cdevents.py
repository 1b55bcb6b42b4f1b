"""Export what happens to versions to a receiver of CDEvents."""

from __future__ import annotations

from typing import Final

from holdfast.control.integrations.exporter import EVENTS_AT_ONCE, deliver, forward
from holdfast.records import canonical_json
from holdfast.rollout.cdevents import CDEvent, cdevents, cloudevent
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.events import EventRow
from holdfast.store.db.ledger import Transaction
from holdfast.store.integrations import cdevents as facts

CURSOR: Final = "cdevents"


_JSON: Final = {"Content-Type": "application/cloudevents+json; charset=utf-8"}


def read(store: Store, since: int, *, environment: str = "production") -> tuple[int, list[CDEvent]]:
    """Return the number of the last event that was read, and the CDEvents of the events after number `since`.

    At most `EVENTS_AT_ONCE` events of the ledger are read.
    """
    with store.ledger.read() as connection:
        found = events.since(connection, since, limit=EVENTS_AT_ONCE)
        made = [one for each in found for one in _read(connection, each, environment)]
    return (found[-1].event_id if found else since), made


def export(store: Store, url: str, *, environment: str = "production") -> int:
    """Post the CDEvents since the last call, and return how many.

    Parameters
    ----------
    url
        Of the receiver, http or https.
    environment
        The id of the environment in the events.

    Raises
    ------
    UnavailableError
        HF601 if the receiver did not accept an event; the next call sends it again, with the same id.
    """

    def messages(connection: Transaction, event: EventRow) -> list[bytes]:
        return [canonical_json(cloudevent(one)).encode() for one in _read(connection, event, environment)]

    def send(_event: EventRow, body: bytes) -> None:
        named = {"receiver": "the receiver of CDEvents", "setting": "HOLDFAST_CDEVENTS_URL"}
        deliver(url, body, headers=_JSON, **named)

    return forward(store, CURSOR, messages, send)


def _read(connection: Transaction, event: EventRow, environment: str) -> list[CDEvent]:
    fact = facts.of_event(connection, event)
    return [] if fact is None else cdevents(fact, environment=environment)
