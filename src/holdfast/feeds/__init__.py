"""Feeds: what is delivered in batches, who a batch is, and what to do when it arrives (again).

`feed.py` says what a feed is, `identity.py` who a batch is, `arrival.py` decides what a delivery means
given what the ledger knows, `manifest.py` is what every file of a batch says about itself. `expectations.py` says what a
delivery should be as a whole, `delivery.py` measures it, `admission.py` judges it, and `machine.py` has the states that a
feed is in by it. Pure: nothing here reads a file.
"""

from __future__ import annotations

from holdfast.feeds.batch_id import batch_id, content_digest
from holdfast.feeds.expectations import (
    Completeness,
    Composition,
    Expectations,
    Granularity,
    Limits,
    Reference,
    TopValueShare,
    Volume,
)
from holdfast.feeds.feed import Feed, quarantine_table
from holdfast.feeds.idempotency import AlreadyLoaded, Load, Publish, decide
from holdfast.feeds.manifest import Manifest
from holdfast.feeds.postgres_query import BatchQuery, PostgresQuery

__all__ = [
    "AlreadyLoaded",
    "BatchQuery",
    "Completeness",
    "Composition",
    "Expectations",
    "Feed",
    "Granularity",
    "Limits",
    "Load",
    "Manifest",
    "PostgresQuery",
    "Publish",
    "Reference",
    "TopValueShare",
    "Volume",
    "batch_id",
    "content_digest",
    "decide",
    "quarantine_table",
]
