"""Count the labels of a delivery that have a row or a prediction: labels of another model have none."""

from __future__ import annotations

from typing import Final

import polars as pl

from holdfast.control.collect import prediction_keys
from holdfast.feeds import Feed
from holdfast.feeds.feed import PREDICTION_ID
from holdfast.feeds.measurements import LabelMatches
from holdfast.store import Store
from holdfast.store.feeds import loaded_rows
from holdfast.store.files import data_files
from holdfast.store.telemetry import collected_log
from holdfast.store.telemetry.collected_log import PREDICTIONS

_FILES_AT_ONCE: Final = 32


def count(store: Store, feed: Feed, valid: pl.DataFrame, version: int) -> LabelMatches | None:
    """Count which labels of `valid`, the accepted rows of `feed`, have a row or prediction; None if it is no label feed.

    Rows are looked up at table version `version`, the newest first, until enough labels have one. A row that is loaded
    meanwhile may be overlooked: no label is kept or dropped by the result.
    """
    if feed.labels_for is None or valid.is_empty():
        return None
    keys = valid.select(feed.label_key).unique(maintain_order=True)
    if feed.label_key == (PREDICTION_ID,):
        return LabelMatches(keys.height, _predictions(store, keys[PREDICTION_ID]), "collected prediction")
    found = _rows(store, feed.labels_for, keys, version)
    matches = LabelMatches(keys.height, found, f"row in feed {feed.labels_for}")
    if not matches.are_few:
        return matches
    with store.ledger.read() as connection:
        loaded = data_files.entries(connection, feed.name, version)[-_FILES_AT_ONCE:]
    earlier = data_files.read(store.root, loaded, dict(keys.schema)) if loaded else keys.clear()
    had = LabelMatches(earlier.height, _rows(store, feed.labels_for, earlier.unique(), version), matches.what)
    return LabelMatches(keys.height, found, matches.what, had_before=bool(had.labels) and not had.are_few)


def _rows(store: Store, feed: str, keys: pl.DataFrame, version: int) -> int:
    """Return how many of `keys` are loaded in `feed`: all of them, or as many as are enough."""
    with store.ledger.read() as connection:
        files = data_files.entries(connection, feed, version)[::-1]
    flags = pl.repeat(value=False, n=keys.height, dtype=pl.Boolean(), eager=True)
    for start in range(0, len(files), _FILES_AT_ONCE):
        if not LabelMatches(keys.height, int(flags.sum()), "").are_few:
            break
        known = loaded_rows.known(store.root, keys, files[start : start + _FILES_AT_ONCE])
        flags = flags if known is None else flags | known[0]
    return int(flags.sum())


def _predictions(store: Store, names: pl.Series) -> int:
    """Return how many of the prediction ids `names` were collected. A damaged file is reported by other checks."""
    ids = names.unique().sort().to_list()
    with store.ledger.read() as connection:
        located = collected_log.locate(connection, PREDICTIONS, prediction_keys.sought_for(ids))
    found, _ = collected_log.read_inputs(store.root, located)
    return prediction_keys.predictions_of(ids, found["prediction"]).height
