"""Feeds: what is delivered in batches, and what is decided about a delivery. Pure: nothing here reads a file.

`feed.py` and `expectations.py` are the declaration; `groups.py` decides which batches belong together. `idempotency.py` decides
whether a delivery is new, `measurements.py` and `admission.py` whether it is admitted; `state_machine.py` has the states of a
feed.
"""

from __future__ import annotations

from holdfast.contract.batch.csv_format import Csv
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
from holdfast.feeds.groups import FeedGroup
from holdfast.feeds.idempotency import (
    AlreadyLoaded,
    Load,
    Manifest,
    Publish,
    batch_id,
    content_digest,
    decide,
)
from holdfast.feeds.postgres_query import BatchQuery, PostgresQuery

__all__ = [
    "AlreadyLoaded",
    "BatchQuery",
    "Completeness",
    "Composition",
    "Csv",
    "Expectations",
    "Feed",
    "FeedGroup",
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
