"""Snapshots: several tables at one table version, without incomplete loads.

Every load makes one new table version, which counts across *all* tables, so one number fixes them all at the same
time. Feeds of one group are loaded one after the other: between two of their loads, one has a period that the other
lacks. A snapshot leaves such a period out until it is complete (R8, R56); see `feeds.groups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from holdfast.records import canonical_json, sha256_hex

DAY_US: Final = 86_400_000_000

LoadKey: TypeAlias = tuple[str, str, int]
"""The key of a load in the ledger: feed, batch, epoch."""


@dataclass(frozen=True, slots=True)
class SnapshotTable:
    """One table in a snapshot, with its number of rows and files."""

    table: str
    rows: int
    files: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The exact version of every table that a training reads. It never changes, because versions never do.

    `contract_hash` is of the contract of the model's rows; `created_at_us` is microseconds since 1970 UTC.
    """

    snapshot: str
    table_version: int
    contract_hash: str
    created_at_us: int
    tables: tuple[SnapshotTable, ...]
    incomplete_loads: tuple[LoadKey, ...] = ()
    """Loads that are left out because the rest of their group had not delivered them yet."""

    @property
    def rows(self) -> int:
        """Return the number of rows over all tables."""
        return sum(table.rows for table in self.tables)


def known_day(now_us: int, last_due_us: int) -> int:
    """Return the day (since 1970, UTC) of a snapshot; after the last label is due, all days are the same.

    Parameters
    ----------
    now_us
        The time of the snapshot, microseconds since 1970 UTC.
    last_due_us
        The time at which the label of the newest row is due.

    The time of the snapshot decides which labels count. Unchanged tables therefore give the same snapshot all day,
    and another one on the next day while labels come due.

    >>> [known_day(day * DAY_US, last_due_us=3 * DAY_US + 5) for day in (2, 3, 4, 99)]
    [2, 3, 4, 4]
    """
    return min(now_us // DAY_US, last_due_us // DAY_US + 1)


def snapshot_name(
    table_version: int,
    contract_hash: str,
    tables: Sequence[SnapshotTable],
    *,
    incomplete_loads: Sequence[LoadKey] = (),
    day: int | None = None,
) -> str:
    """Return the name of a snapshot: the same content always has the same name.

    Parameters
    ----------
    table_version
        The table version of all tables.
    contract_hash
        The hash of the contract of the model's rows.
    tables
        Rows and files of each table.
    incomplete_loads
        The loads that are left out.
    day
        `known_day` if labels come due later than their rows, None otherwise.

    >>> snapshot_name(7, "ab", [SnapshotTable("flights", 10, 1)])
    's7-c61bc883'
    """
    content: list[object] = [
        table_version,
        contract_hash,
        [[table.table, table.rows, table.files] for table in tables],
    ]
    if incomplete_loads or day is not None:
        content += [[list(load) for load in incomplete_loads], day]
    return f"s{table_version}-{sha256_hex(canonical_json(content))[:8]}"
