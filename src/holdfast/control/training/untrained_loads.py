"""Find the loads of a snapshot that no training row of a version is from, so that a back-out of them need not taint it."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from holdfast.declaration import Model
from holdfast.records import BATCH_COLUMN
from holdfast.store.catalog.lineage import LoadRow
from holdfast.train import Split
from holdfast.train.artifact import UntrainedLoad


def find_untrained(
    model: Model, loads: Iterable[LoadRow], split: Split, selected: pl.DataFrame
) -> tuple[UntrainedLoad, ...]:
    """Return the loads of the feed of examples without a training row, each with the number of its held-out rows.

    Parameters
    ----------
    model
        The model that is trained. With an aggregate over the feed of examples nothing is returned: any row may have gone into
        the values of others.
    loads
        The loads of the snapshot, of any feed. Those of other feeds are joined by key or time, and are not returned.
    split
        The rows that were due, split, with the metadata column `_batch`.
    selected
        The rows trained on, with the same column. With caps every row of `split.train` counts, because which rows a cap keeps
        depends on the others.
    """
    feed = model.examples.name
    if any(aggregate.over == feed for aggregate in model.aggregates):
        return ()
    trained = set((split.train if model.selection.caps else selected)[BATCH_COLUMN].unique())
    if None in trained:
        return ()
    held_out = dict(split.holdout[BATCH_COLUMN].value_counts(name="rows").iter_rows())
    return tuple(
        (feed, load.batch, load.epoch, int(held_out.get(load.batch, 0)))
        for load in loads
        if load.feed == feed and load.batch not in trained
    )
