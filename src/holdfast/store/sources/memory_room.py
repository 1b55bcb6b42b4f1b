"""The memory that the system leaves this process: what its address space and its control groups still allow.

Polars and Arrow end the process, without an error of Python, when they cannot allocate. So a delivery is refused before.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KEPT_BYTES: Final = 64 << 20
"""Room that is left for what is not counted: stacks of threads, arenas of allocators."""
_PROCESS: Final = Path("/proc/self")
_GROUPS: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 60
"""A limit beyond this is none: version 1 of control groups writes the largest number of pages."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes the process may still allocate, the limit that decides it, and how to raise that."""

    left_bytes: int
    limit: str
    next_command: str


def find_room(process: Path = _PROCESS, groups: Path = _GROUPS) -> Room | None:
    """Return the smallest room that a limit leaves this process; None if none limits it, or the system has no such files."""
    found = [*_address_space(process), *_control_groups(process, groups)]
    return min(found, key=lambda room: room.left_bytes, default=None)


def _address_space(process: Path) -> Iterator[Room]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return
    with suppress(OSError, ValueError, IndexError):
        used = int((process / "statm").read_text().split()[0]) * resource.getpagesize()
        yield _room(soft, used, "its address space (ulimit -v)", "raise ulimit -v")


def _control_groups(process: Path, groups: Path) -> Iterator[Room]:
    """Yield the room in each control group that this process is in, of version 2 and of version 1."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers == "":
            top, limit, usage, cache = groups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, usage = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        directory = top / name.lstrip("/")
        # Inside of a container the name may be that outside; then only the top is there.
        for each in (directory, *directory.parents):
            if not each.is_relative_to(top):
                break
            with suppress(OSError, ValueError):  # no limit is "max"
                most = int((each / limit).read_text())
                if most < _UNLIMITED:
                    used = int((each / usage).read_text()) - _statistic(each / "memory.stat", cache)
                    yield _room(most, used, "its control group", "raise the memory limit of the container")


def _statistic(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _room(most: int, used: int, limit: str, next_command: str) -> Room:
    return Room(max(0, most - used - KEPT_BYTES), f"{limit} of {most:,} bytes", next_command)
