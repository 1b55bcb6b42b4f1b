"""Find the loads of a snapshot that no training row of a version is from, so that a back-out of them need not taint it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import polars as pl

from holdfast.control.training.labels import loads_of_labels
from holdfast.declaration import Model
from holdfast.records import BATCH_COLUMN
from holdfast.store.catalog.lineage import LoadRow
from holdfast.train import Split
from holdfast.train.artifact import UntrainedLoad


def find_untrained(
    model: Model, loads: Iterable[LoadRow], split: Split, selected: pl.DataFrame
) -> tuple[UntrainedLoad, ...]:
    """Return the loads without a training row, each with the number of its held-out rows.

    A row is from a load of the feed of examples, and from the loads of label feeds that its label was taken from.

    Parameters
    ----------
    model
        The model that is trained. Loads of a feed with an aggregate over it are not returned: any row may have gone into the
        values of others.
    loads
        The loads of the snapshot, of any feed. Those of other feeds are joined by key or time, and are not returned.
    split
        The rows that were due, split, with the metadata column `_batch`.
    selected
        The rows trained on, with the same column. With caps every row of `split.train` counts, because which rows a cap keeps
        depends on the others.
    """
    train = split.train if model.selection.caps else selected
    aggregated = {aggregate.over for aggregate in model.aggregates}
    of_feed = {
        feed.name: (
            set(_batches(model, feed.name, train)),
            Counter(_batches(model, feed.name, split.holdout)),
        )
        for feed in (model.examples, *model.label_feeds)
        if feed.name not in aggregated
    }
    found: list[UntrainedLoad] = []
    for load in loads:
        trained, held_out = of_feed.get(load.feed, ({None}, Counter()))
        if None not in trained and load.batch not in trained:
            found.append((load.feed, load.batch, load.epoch, held_out[load.batch]))
    return tuple(found)


def _batches(model: Model, feed: str, rows: pl.DataFrame) -> list[str | None]:
    """Return the batch of each row, or of each label, that is from `feed`; None for one that is not known."""
    found = rows[BATCH_COLUMN] if feed == model.examples.name else loads_of_labels(rows, feed)
    return found.to_list()
