"""Conditions that many questions to the ledger share: the same load, there at a version, there now."""

from __future__ import annotations

from sqlalchemy import BindParameter, ColumnElement, FromClause, and_, or_


def same_load(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Whether a row of `one` and a row of `other` are of the same load: feed, batch and epoch.

    >>> from holdfast.store import schema
    >>> str(same_load(schema.batches, schema.admissions)).count(" AND ")
    2
    """
    return and_(one.c.feed == other.c.feed, one.c.batch == other.c.batch, one.c.epoch == other.c.epoch)


def at_version(
    table: FromClause, version: int | ColumnElement[int] | BindParameter[int]
) -> ColumnElement[bool]:
    """Whether a row of `files` or `file_batches` belongs to table version `version`: time travel is a validity interval.

    A part of a file came with the file, so that `file_batches` says only when it went: join `files`, and ask both.
    """
    there = or_(table.c.removed_version.is_(None), table.c.removed_version > version)
    return and_(table.c.added_version <= version, there) if "added_version" in table.c else there


def not_removed(*tables: FromClause) -> ColumnElement[bool]:
    """Whether the rows of all of `tables` (`files`, `file_batches`) belong to the newest table version."""
    return and_(*(table.c.removed_version.is_(None) for table in tables))
