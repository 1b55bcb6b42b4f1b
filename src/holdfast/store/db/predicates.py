"""Conditions that many questions to the ledger share: this load, the same load, there at a version, there now."""

from __future__ import annotations

from typing import Final, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, FromClause, and_, or_

from holdfast.records import Level
from holdfast.store.db import schema
from holdfast.tables.snapshots import LoadKey

PUBLISHED: Final = "published"
"""The state of a load that is there."""
BACKED_OUT: Final = "backed_out"
"""The state of a load that was taken out."""

LIVE: Final = schema.batches.c.state == PUBLISHED
"""True for a row of `batches` that is currently loaded."""
UNACCEPTED_ERROR: Final = and_(
    schema.violations.c.level == Level.ERROR, schema.violations.c.accepted_at_us.is_(None)
)
"""True for a row of `violations` that makes its load suspect."""

BoundLoad: TypeAlias = tuple[BindParameter[str], BindParameter[str], BindParameter[int]]
"""A load as parameters of a statement: feed, batch and epoch."""


def of_load(table: FromClause, load: LoadKey | BoundLoad) -> ColumnElement[bool]:
    """Return the condition that a row of `table` belongs to `load`.

    >>> str(of_load(schema.batches, ("flights", "d1", 0))).count(" AND ")
    2
    """
    feed, batch, epoch = load
    return and_(table.c.feed == feed, table.c.batch == batch, table.c.epoch == epoch)


def refers_to(load: LoadKey) -> ColumnElement[bool]:
    """Return the condition that a row of `batch_references` refers to a key of `load`."""
    to, (feed, batch, epoch) = schema.batch_references.c, load
    return and_(to.to_feed == feed, to.to_batch == batch, to.to_epoch == epoch)


def same_load(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the condition that a row of `one` and a row of `other` belong to the same load.

    >>> str(same_load(schema.batches, schema.admissions)).count(" AND ")
    2
    """
    return and_(one.c.feed == other.c.feed, one.c.batch == other.c.batch, one.c.epoch == other.c.epoch)


def at_version(
    table: FromClause, version: int | ColumnElement[int] | BindParameter[int]
) -> ColumnElement[bool]:
    """Return the condition that a row of `files` or `file_row_groups` belongs to table version `version`.

    A row group has no `added_version`: it came with its file. Join `files`, and apply the condition to both.
    """
    there = or_(table.c.removed_version.is_(None), table.c.removed_version > version)
    return and_(table.c.added_version <= version, there) if "added_version" in table.c else there


def not_removed(*tables: FromClause) -> ColumnElement[bool]:
    """Return the condition that the rows of all of `tables` belong to the newest table version."""
    return and_(*(table.c.removed_version.is_(None) for table in tables))
