"""Selection of the small files of a table that become one: pure, so that the same table gives the same plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

TARGET_ROWS: Final = 1_000_000
"""The maximum number of rows of a compacted file."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A current file of a table.

    `rows` are those that are still read. `event_time_min_us` is its first event time (microseconds UTC). `contract_hash`
    is of the contract that checked its rows; None if there are several.
    """

    path: str
    rows: int
    event_time_min_us: int | None
    contract_hash: str | None


Groups = tuple[tuple[TableFile, ...], ...]


def plan_compaction(files: Sequence[TableFile], *, target_rows: int = TARGET_ROWS) -> Groups:
    """Return the runs of adjacent `files` that are each to become one file.

    Parameters
    ----------
    files
        All files of the table, in the order in which they are read.
    target_rows
        The maximum number of rows of a compacted file.

    Only adjacent files are merged, so that rows are read in the same order as before, and only files of one contract,
    so that the columns agree. A file is merged only where it is at most half of the whole: so each row is rewritten
    at most log2(`target_rows`) times, however often this runs.

    >>> small = [TableFile(name, 100, at, "c") for at, name in enumerate("abc")]
    >>> [[file.path for file in group] for group in plan_compaction([*small, TableFile("d", 5_000, 9, "c")])]
    [['a', 'b', 'c']]
    """
    groups = [
        group
        for _, run in groupby(files, key=lambda file: (file.contract_hash, file.event_time_min_us is None))
        for filled in _split_by_rows(list(run), target_rows)
        for group in _split_unbalanced(filled)
    ]
    return _keep_order(files, groups)


def _split_by_rows(run: Sequence[TableFile], target_rows: int) -> Iterator[list[TableFile]]:
    if run[0].contract_hash is None or run[0].event_time_min_us is None:
        return
    group: list[TableFile] = []
    for file in run:
        if group and sum(each.rows for each in group) + file.rows > target_rows:
            yield group
            group = []
        group.append(file)
    yield group


def _split_unbalanced(group: Sequence[TableFile]) -> Iterator[tuple[TableFile, ...]]:
    """Yield `group`, or the parts of it around a file that is larger than all the others together."""
    if len(group) < 2:
        return
    largest = max(range(len(group)), key=lambda position: group[position].rows)
    if 2 * group[largest].rows <= sum(file.rows for file in group):
        yield tuple(group)
        return
    yield from _split_unbalanced(group[:largest])
    yield from _split_unbalanced(group[largest + 1 :])


def _keep_order(files: Sequence[TableFile], groups: Sequence[tuple[TableFile, ...]]) -> Groups:
    """Return `groups` without those whose rows would be read later than now, after a neighbour.

    A new file is newer than every other, and of files with the same first event time the newer is read later.
    """
    position = {file.path: place for place, file in enumerate(files)}
    kept: list[tuple[TableFile, ...]] = []
    rewritten: set[str] = set()
    for group in reversed(groups):
        after = position[group[-1].path] + 1
        follower = files[after] if after < len(files) else None
        if (
            follower is None
            or follower.event_time_min_us != group[0].event_time_min_us
            or follower.path in rewritten
        ):
            kept.append(group)
            rewritten.update(file.path for file in group)
    return tuple(reversed(kept))
