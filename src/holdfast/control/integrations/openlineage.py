"""Export loads, snapshots, trainings and back-outs, also those that failed, to a catalog that takes OpenLineage."""

from __future__ import annotations

from typing import Final

from holdfast.control.integrations.exporter import deliver, forward
from holdfast.records import canonical_json
from holdfast.store import Store
from holdfast.store.db.events import EventRow
from holdfast.store.db.ledger import Transaction
from holdfast.store.integrations import openlineage as facts
from holdfast.tables.openlineage import NAMESPACE, run_events

CURSOR: Final = "openlineage"


_ENDPOINT: Final = "/api/v1/lineage"


def export(store: Store, url: str, *, namespace: str = NAMESPACE, api_key: str = "") -> int:
    """Post the run events since the last call, and return how many.

    Parameters
    ----------
    url
        Of the catalog, http or https, with or without the path of its endpoint.
    namespace
        The namespace of jobs and datasets in the events.
    api_key
        Sent as a bearer token if it is not empty.

    Raises
    ------
    UnavailableError
        HF601 if the catalog did not accept an event; the next call sends it again.
    """
    target = url if url.rstrip("/").endswith(_ENDPOINT) else url.rstrip("/") + _ENDPOINT

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def messages(connection: Transaction, event: EventRow) -> list[bytes]:
        return [
            canonical_json(each).encode()
            for fact in facts.of_event(connection, event)
            for each in run_events(fact, namespace=namespace)
        ]

    def send(_event: EventRow, body: bytes) -> None:
        named = {"receiver": "the OpenLineage catalog", "setting": "HOLDFAST_OPENLINEAGE_URL"}
        deliver(target, body, headers=headers, **named)

    return forward(store, CURSOR, messages, send)
