"""Profiles of the loads of a snapshot, and the contracts that judged them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from holdfast.contract.profile.profile import Profile, merge_compatible
from holdfast.store.db import schema
from holdfast.store.db.statements import LIVE, at_version, load_columns, same_load
from holdfast.store.feeds import contracts
from holdfast.store.files import data_files
from holdfast.tables import Snapshot
from holdfast.tables.snapshot_diff import TableFacts

_ADMISSIONS: Final = schema.admissions
_BATCHES: Final = schema.batches
_PARTS: Final = schema.file_row_groups
_FILES: Final = schema.files


def of_snapshot(connection: Connection, snapshot: Snapshot) -> list[TableFacts]:
    """Return the facts of each table of `snapshot`. Reads profiles only, a few kilobytes a load, and no row.

    Raises `NotFoundError` HF303 for a vacuumed snapshot: the files of its loads are gone.
    """
    data_files.raise_if_vacuumed(connection, snapshot.snapshot)
    return [_facts(connection, snapshot, table.table, table.rows) for table in snapshot.tables]


def newest(connection: Connection, feed: str, most: int) -> list[tuple[str, Profile | None]]:
    """Return the ids and profiles of the newest live loads of `feed` in order of event time, the oldest first.

    The profile of a load without one is None.
    """
    query = (
        select(_BATCHES.c.batch, _ADMISSIONS.c.profile_json)
        .outerjoin(_ADMISSIONS, _OF_LOAD)
        .where(_BATCHES.c.feed == feed, LIVE)
        .order_by(_BATCHES.c.event_time_min_us.desc(), _BATCHES.c.batch.desc())
        .limit(most)
    )
    return [(row.batch, _profile(row.profile_json)) for row in reversed(connection.execute(query).all())]


_OF_LOAD: Final = same_load(_ADMISSIONS, _BATCHES)


def _facts(connection: Connection, snapshot: Snapshot, table: str, rows: int) -> TableFacts:
    version = snapshot.table_version
    held = set(snapshot.incomplete_loads)
    there = (
        select(*load_columns(_PARTS))
        .distinct()
        .join(_FILES, _FILES.c.path == _PARTS.c.path)
        .where(_FILES.c.table_name == table, at_version(_FILES, version), at_version(_PARTS, version))
        .subquery()
    )
    query = (
        select(*load_columns(_BATCHES), _BATCHES.c.contract_hash, _ADMISSIONS.c.profile_json)
        .join(there, same_load(_BATCHES, there))
        .outerjoin(_ADMISSIONS, _OF_LOAD)
        .order_by(_BATCHES.c.table_version)
    )
    loads = [row for row in connection.execute(query).all() if (row.feed, row.batch, row.epoch) not in held]
    profile, apart = _together([_profile(row.profile_json) for row in loads])
    return TableFacts(
        table,
        rows,
        frozenset((row.batch, row.epoch) for row in loads),
        profile,
        contracts.find(connection, loads[-1].contract_hash) if loads else None,
        apart,
    )


def _profile(text: str | None) -> Profile | None:
    """Return the profile that a load was admitted with; None if it has none."""
    return Profile.from_json(text) if text and text != "{}" else None


def _together(profiles: list[Profile | None]) -> tuple[Profile | None, tuple[str, ...]]:
    """Return the sum of all, and the columns that it lacks because their bounds changed; None if one is missing."""
    known = [profile for profile in profiles if profile is not None]
    if not known or len(known) < len(profiles):
        return None, ()
    return merge_compatible(known)
