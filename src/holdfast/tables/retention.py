"""Which files and which snapshots may go: pure, so that what is shown is what is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of `table`, there from version `added_version` until `removed_version`, which was made at `removed_us`
    (microseconds UTC); both are None while the table has the file.
    """

    path: str
    table: str
    bytes: int
    added_version: int
    removed_version: int | None
    removed_us: int | None

    def is_in(self, version: int) -> bool:
        """Whether the table has the file at `version`."""
        return self.added_version <= version and (
            self.removed_version is None or self.removed_version > version
        )


@dataclass(frozen=True, slots=True)
class KeptCut:
    """A snapshot that can be read: the version and the tables that it cuts, and the versions of models that were trained
    on it and may still be given traffic.
    """

    snapshot: str
    table_version: int
    created_at_us: int
    tables: frozenset[str]
    needed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retention:
    """What a vacuum lets go: the files, and the snapshots that cannot be read without them. `pinned` says of every
    snapshot that is kept for certain why.
    """

    files: tuple[KeptFile, ...]
    snapshots: tuple[str, ...]
    pinned: dict[str, str]

    @property
    def bytes(self) -> int:
        """What the files take."""
        return sum(file.bytes for file in self.files)


def plan(
    files: Sequence[KeptFile], cuts: Sequence[KeptCut], *, now_us: int, keep_us: int, newest: int
) -> Retention:
    """What may go at `now_us`.

    Parameters
    ----------
    files, cuts
        Every file and every readable snapshot of the store.
    keep_us
        What is younger than this stays: a snapshot since it was made, a file since its table lost it.
    newest
        So many of the newest snapshots stay however old they are.

    A file goes when its table has lost it for longer than `keep_us` and no pinned snapshot has it; a snapshot goes with
    the first of its files.

    >>> old = KeptFile("a", "t", 10, added_version=1, removed_version=2, removed_us=5)
    >>> cut = KeptCut("s1", 1, 4, frozenset({"t"}))
    >>> plan([old], [cut], now_us=100, keep_us=50, newest=0).snapshots
    ('s1',)
    >>> plan([old], [cut], now_us=100, keep_us=50, newest=1).pinned
    {'s1': 'it is one of the newest 1'}
    """
    since_us = now_us - keep_us
    by_age = sorted(cuts, key=lambda cut: (cut.created_at_us, cut.table_version, cut.snapshot), reverse=True)
    pinned: dict[str, str] = {}
    for place, cut in enumerate(by_age):
        if cut.needed_by:
            pinned[cut.snapshot] = f"{cut.needed_by[0]} was trained on it"
        elif place < newest:
            pinned[cut.snapshot] = f"it is one of the newest {newest}"
        elif cut.created_at_us > since_us:
            pinned[cut.snapshot] = "it is young"
    kept = [(cut.table_version, cut.tables) for cut in cuts if cut.snapshot in pinned]
    gone = tuple(
        file
        for file in sorted(files, key=lambda file: file.path)
        if file.removed_us is not None
        and file.removed_us <= since_us
        and not any(file.table in tables and file.is_in(version) for version, tables in kept)
    )
    lost = [
        cut.snapshot
        for cut in cuts
        if any(file.table in cut.tables and file.is_in(cut.table_version) for file in gone)
    ]
    return Retention(gone, tuple(sorted(lost)), pinned)
