"""Export loads, snapshots, trainings and back-outs to a catalog that takes OpenLineage."""

from __future__ import annotations

from typing import Final

from holdfast.control.integrations.exporter import deliver, forward
from holdfast.records import canonical_json
from holdfast.store import Store
from holdfast.store.db.events import EventRow
from holdfast.store.db.ledger import Transaction
from holdfast.store.integrations import openlineage as facts
from holdfast.tables.openlineage import run_events

CURSOR: Final = "openlineage"


_ENDPOINT: Final = "/api/v1/lineage"


def export(store: Store, url: str) -> int:
    """Post the run events since the last call, and return how many.

    Parameters
    ----------
    url
        Of the catalog, http or https, with or without the path of its endpoint.

    Raises
    ------
    UnavailableError
        HF601 if the catalog did not accept an event; the next call sends it again.
    """
    target = url if url.rstrip("/").endswith(_ENDPOINT) else url.rstrip("/") + _ENDPOINT

    def send(_event: EventRow, body: bytes) -> None:
        deliver(target, body, receiver="the OpenLineage catalog", setting="HOLDFAST_OPENLINEAGE_URL")

    return forward(store, CURSOR, _read, send)


def _read(connection: Transaction, event: EventRow) -> list[bytes]:
    return [
        canonical_json(each).encode()
        for fact in facts.of_event(connection, event)
        for each in run_events(fact)
    ]
