"""Feeds: what is delivered in batches, who a batch is, and what to do when it arrives (again).

`feed.py` says what a feed is, `identity.py` who a batch is, `arrival.py` decides what a delivery means
given what the ledger knows, `manifest.py` is what every file of a batch says about itself. Pure: nothing
here reads a file.
"""

from __future__ import annotations

from holdfast.feeds.arrival import AlreadyLoaded, Load, Publish, decide
from holdfast.feeds.feed import Feed, quarantine_table
from holdfast.feeds.identity import batch_id, content_digest
from holdfast.feeds.manifest import Manifest

__all__ = [
    "AlreadyLoaded",
    "Feed",
    "Load",
    "Manifest",
    "Publish",
    "batch_id",
    "content_digest",
    "decide",
    "quarantine_table",
]
