"""Selection of collected files that become one, and of those that expire: pure, so that the same files give the same plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeAlias

TARGET_ROWS: Final = 500_000
"""The maximum number of rows of a merged file."""
MOST_FILES: Final = 5_000
"""The maximum number of files that become one: they are in memory together."""
OPEN_FILES: Final = 64
"""So many files of one size become one while their segment still grows."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file that was collected from one segment of one server's log."""

    path: str
    model: str
    server: str
    segment: int
    rows: int


Groups: TypeAlias = tuple[tuple[LogFile, ...], ...]
"""Files that are each to become one."""


def plan_merges(
    files: Sequence[LogFile],
    newest: Mapping[str, int],
    *,
    target_rows: int = TARGET_ROWS,
    most_files: int = MOST_FILES,
    open_files: int = OPEN_FILES,
) -> Groups:
    """Return the files that are each to become one.

    Parameters
    ----------
    files
        All files of one kind, in any order.
    newest
        The newest segment of each server. It still grows.
    target_rows
        The maximum number of rows of a merged file.
    most_files
        The maximum number of files that become one.
    open_files
        Of a segment that still grows, so many files of about one size become one, at least. A row is then rewritten only when
        its file grows `open_files` times, and such a segment never has more files than that of each size.

    >>> files = [LogFile(name, "m", "s1", segment, 10) for name, segment in (("a", 1), ("b", 1), ("c", 2), ("d", 2))]
    >>> [[each.path for each in group] for group in plan_merges(files, {"s1": 2})]
    [['a', 'b']]
    >>> [[each.path for each in group] for group in plan_merges(files, {"s1": 2}, open_files=2)]
    [['a', 'b'], ['c', 'd']]
    """
    groups: list[tuple[LogFile, ...]] = []
    for _, run in groupby(sorted(files, key=_place), key=lambda each: _place(each)[:3]):
        of_segment = list(run)
        if of_segment[0].segment < newest.get(of_segment[0].server, 0):
            groups += [group for group in _split(of_segment, target_rows, most_files) if len(group) > 1]
            continue
        small = [each for each in of_segment if each.rows <= target_rows // open_files]
        for _, of_size in groupby(small, key=lambda each: _size(each.rows, open_files)):
            split = _split(list(of_size), target_rows, most_files)
            groups += [group for group in split if len(group) >= open_files]
    return tuple(groups)


def _split(files: Sequence[LogFile], target_rows: int, most_files: int) -> list[tuple[LogFile, ...]]:
    """Return `files` in groups within both bounds, in their order."""
    groups: list[tuple[LogFile, ...]] = []
    group: list[LogFile] = []
    rows = 0
    for each in files:
        if group and (rows + each.rows > target_rows or len(group) == most_files):
            groups.append(tuple(group))
            group, rows = [], 0
        group.append(each)
        rows += each.rows
    return [*groups, tuple(group)] if group else groups


def _size(rows: int, step: int) -> int:
    """Return how often `rows` can be divided by `step`."""
    size = 0
    while rows >= step:
        rows //= step
        size += 1
    return size


def _place(file: LogFile) -> tuple[str, str, int, int, str]:
    # The smallest first, so that a file that is full already is left alone.
    return file.model, file.server, file.segment, file.rows, file.path
