"""Selection of collected files that become one, and of those that expire: pure, so that the same files give the same plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

TARGET_ROWS: Final = 500_000
"""The maximum number of rows of a merged file."""


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
        for each in run:
            if group and sum(file.rows for file in group) + each.rows > target_rows:
                groups.append(tuple(group))
                group = []
            group.append(each)
        groups.append(tuple(group))
    return tuple(group for group in groups if len(group) > 1)


def _place(file: LogFile) -> tuple[str, str, int, int, str]:
    # The smallest first, so that a file that is full already is left alone.
    return file.model, file.server, file.segment, file.rows, file.path
