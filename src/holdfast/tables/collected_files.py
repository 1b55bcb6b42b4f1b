"""Selection of collected files that become one, and of those that expire: pure, so that the same files give the same plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

TARGET_ROWS: Final = 500_000
"""The maximum number of rows of a merged file."""
MOST_FILES: Final = 5_000
"""The maximum number of files that become one: they are in memory together."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file that was collected from one segment of one server's log."""

    path: str
    model: str
    server: str
    segment: int
    rows: int


def plan_merges(
    files: Sequence[LogFile], newest: Mapping[str, int], *, target_rows: int = TARGET_ROWS
) -> tuple[tuple[LogFile, ...], ...]:
    """Return the files that are each to become one.

    Parameters
    ----------
    files
        All files of one kind, in any order.
    newest
        The newest segment of each server. It still grows, so its files wait: each row is rewritten once.
    target_rows
        The maximum number of rows of a merged file.

    >>> files = [LogFile(name, "m", "s1", segment, 10) for name, segment in (("a", 1), ("b", 1), ("c", 2), ("d", 2))]
    >>> [[each.path for each in group] for group in plan_merges(files, {"s1": 2})]
    [['a', 'b']]
    """
    closed = [each for each in files if each.segment < newest.get(each.server, 0)]
    groups: list[tuple[LogFile, ...]] = []
    for _, run in groupby(sorted(closed, key=_place), key=lambda each: _place(each)[:3]):
        group: list[LogFile] = []
        rows = 0
        for each in run:
            if group and (rows + each.rows > target_rows or len(group) == MOST_FILES):
                groups.append(tuple(group))
                group, rows = [], 0
            group.append(each)
            rows += each.rows
        groups.append(tuple(group))
    return tuple(group for group in groups if len(group) > 1)


def _place(file: LogFile) -> tuple[str, str, int, int, str]:
    # The smallest first, so that a file that is full already is left alone.
    return file.model, file.server, file.segment, file.rows, file.path
