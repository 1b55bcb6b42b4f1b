"""Selection of the files and snapshots that a vacuum removes: pure, so that a dry run shows what is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileLifetime:
    """A file of `table`, present from version `added_version` until `removed_version`.

    `removed_at_us` is the time of that version. It is in microseconds UTC; both are None while the table has the file.
    """

    path: str
    table: str
    bytes: int
    added_version: int
    removed_version: int | None
    removed_at_us: int | None

    def is_in(self, version: int) -> bool:
        """Return True if the table has the file at `version`."""
        return self.added_version <= version and (
            self.removed_version is None or self.removed_version > version
        )


@dataclass(frozen=True, slots=True)
class ReadableSnapshot:
    """A readable snapshot: its table version, its tables, and the model versions trained on it that may get traffic.

    `exported_as` is the exported table whose newest version has it, if any.
    """

    snapshot: str
    table_version: int
    created_at_us: int
    tables: frozenset[str]
    needed_by: tuple[str, ...] = ()
    exported_as: str | None = None


@dataclass(frozen=True, slots=True)
class VacuumPlan:
    """The files to remove, and the snapshots that expire with them. `pinned` gives the reason for each kept snapshot.

    `exported` are the files of older versions of exported tables, which are removed too.
    """

    files: tuple[FileLifetime, ...]
    snapshots: tuple[str, ...]
    pinned: dict[str, str]
    exported: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Return the size of the files."""
        return sum(file.bytes for file in self.files)


def plan_vacuum(
    files: Sequence[FileLifetime],
    snapshots: Sequence[ReadableSnapshot],
    *,
    now_us: int,
    keep_us: int,
    keep_last: int,
) -> VacuumPlan:
    """Return the files and snapshots to remove at `now_us`.

    Parameters
    ----------
    files, snapshots
        Every file and every readable snapshot of the store.
    now_us
        The current time, microseconds UTC.
    keep_us
        Anything younger than this is kept: a snapshot since its creation, a file since its table lost it.
    keep_last
        This many of the newest snapshots are kept regardless of age.

    A file is removed if its table lost it more than `keep_us` ago and no pinned snapshot has it. A snapshot expires
    with the first of its files.

    >>> old = FileLifetime("a", "t", 10, added_version=1, removed_version=2, removed_at_us=5)
    >>> snapshot = ReadableSnapshot("s1", 1, 4, frozenset({"t"}))
    >>> plan_vacuum([old], [snapshot], now_us=100, keep_us=50, keep_last=0).snapshots
    ('s1',)
    >>> plan_vacuum([old], [snapshot], now_us=100, keep_us=50, keep_last=1).pinned
    {'s1': 'it is one of the newest 1'}
    """
    since_us = now_us - keep_us
    by_age = sorted(
        snapshots,
        key=lambda each: (each.created_at_us, each.table_version, each.snapshot),
        reverse=True,
    )
    pinned: dict[str, str] = {}
    for place, snapshot in enumerate(by_age):
        if snapshot.needed_by:
            pinned[snapshot.snapshot] = f"{snapshot.needed_by[0]} was trained on it"
        elif snapshot.exported_as is not None:
            pinned[snapshot.snapshot] = f"{snapshot.exported_as} has it"
        elif place < keep_last:
            pinned[snapshot.snapshot] = f"it is one of the newest {keep_last}"
        elif snapshot.created_at_us > since_us:
            pinned[snapshot.snapshot] = "it is young"
    kept = [
        (snapshot.table_version, snapshot.tables) for snapshot in snapshots if snapshot.snapshot in pinned
    ]
    removed = tuple(
        file
        for file in sorted(files, key=lambda file: file.path)
        if file.removed_at_us is not None
        and file.removed_at_us <= since_us
        and not any(file.table in tables and file.is_in(version) for version, tables in kept)
    )
    expired = [
        snapshot.snapshot
        for snapshot in snapshots
        if any(file.table in snapshot.tables and file.is_in(snapshot.table_version) for file in removed)
    ]
    return VacuumPlan(removed, tuple(sorted(expired)), pinned)
