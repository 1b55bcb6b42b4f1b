"""Reads the rows that broke their contract, as they were delivered, with their reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import polars as pl
from sqlalchemy import and_, select

from holdfast.errors import NotFoundError
from holdfast.feeds import quarantine_table
from holdfast.store.catalog import batches
from holdfast.store.db import schema
from holdfast.store.db.ledger import Store
from holdfast.store.db.statements import LIVE, not_removed
from holdfast.store.files import data_files

_PARTS = schema.file_row_groups
_FILES = schema.files
_BATCHES = schema.batches

BATCH = "_batch"
"""The column that names the batch of a row."""


def read(store: Store, feed: str, batch: str | None = None) -> pl.DataFrame:
    """Return the quarantined rows of `feed`, or of one live batch of it.

    The columns are those delivered, all text, with `_reasons`, `_line` and `_batch`; there is no column without a row.

    Raises `NotFoundError` HF303 when the batch is not loaded, and as `data_files.read` does.
    """
    table = quarantine_table(feed)
    with store.ledger.read() as connection:
        if batch is not None:
            live = select(_BATCHES.c.batch).where(_BATCHES.c.feed == feed, _BATCHES.c.batch == batch, LIVE)
            if connection.execute(live).first() is None:
                raise NotFoundError(
                    "HF303",
                    f"batch {feed}/{batch} is not loaded",
                    next_command=f"holdfast feeds {feed} --batches",
                )
        found = data_files.entries(connection, table, batches.current_version(connection))
        query = (
            select(_PARTS.c.path, _PARTS.c.row_group, _PARTS.c.batch, _PARTS.c.rows)
            .join(_FILES, and_(_FILES.c.path == _PARTS.c.path, _FILES.c.table_name == table))
            .where(not_removed(_PARTS))
            .order_by(_PARTS.c.path, _PARTS.c.row_group)
        )
        parts = connection.execute(query).all()
    facts = {fact.path: fact for fact in found}
    alone = Counter(path for path, *_ in parts)
    frames = [
        data_files.read(
            store.root,
            [facts[path] if alone[path] == 1 else replace(facts[path], rows=rows, row_groups=(group,))],
        ).with_columns(pl.lit(name).alias(BATCH))
        for path, group, name, rows in parts
        if path in facts and (batch is None or name == batch)
    ]
    return pl.concat(frames, how="diagonal") if frames else pl.DataFrame()
