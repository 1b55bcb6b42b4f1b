"""Failpoints: named points at which a test may kill the process or fail a step, as a power failure would.

A program arms them by setting `armed`; no setting and no environment variable does. An unarmed failpoint costs one comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final, NoReturn

POINTS: Final[tuple[str, ...]] = (
    "ingest.begun",  # nothing was read yet
    "ingest.read",  # the source is in memory
    "ingest.checked",  # every row has its verdict
    "files.created",  # an empty file has its name
    "files.written",  # the file is complete but not durable
    "files.synced",  # the file is durable, its name is not
    "ingest.staged",  # files and names are durable; the ledger has no row of them
    "commit.begun",  # the transaction is open
    "commit.before_commit",  # everything is in the transaction
    "commit.after_commit",  # committed, and not acknowledged
    "ingest.before_acknowledge",  # just before the caller gets the result
)
"""Every point on the way of a batch, in order."""

SOURCE_POINTS: Final[tuple[str, ...]] = (
    "source.read",  # every file of a directory or prefix is in memory; whether one has changed since was not looked at
)
"""Every point on the way of a delivery of several files into memory."""

COLLECT_POINTS: Final[tuple[str, ...]] = (
    "collect.written",  # the file of predictions is durable; the ledger has no row of it
    "collect.before_commit",  # everything is in the transaction
    "collect.after_commit",  # committed, and the next stretch was not begun
    "windows.before_commit",  # windows that are due are folded in the transaction
    "join.before_commit",  # outcomes and evidence are in the transaction
)
"""Every point on the way of what servers logged, in order."""

ROLLOUT_POINTS: Final[tuple[str, ...]] = (
    "rollout.before_commit",  # state, event and plan are in the transaction
    "rollout.after_commit",  # committed: servers may follow already
)
"""Every point on the way of a rollout's decision, in order."""

BACKOUT_POINTS: Final[tuple[str, ...]] = (
    "backout.before_begin",  # the back-out is in the transaction, and nothing was taken out
    "backout.begun",  # it is written down what will be done
    "backout.before_removal",  # rows, values, taints and the event are in the transaction
    "backout.removed",  # the rows are gone, and the traffic is as it was
    "backout.before_step",  # a change of the traffic is in the transaction
    "backout.after_step",  # it is committed, and what follows is not begun
    "backout.before_end",  # the end is in the transaction
    "backout.ended",  # everything is done, and not acknowledged
)
"""Every point on the way of a back-out, in order."""

COMPACT_POINTS: Final[tuple[str, ...]] = (
    "compact.written",  # the new files and their names are durable; the ledger has no row of them
    "compact.before_commit",  # everything is in the transaction
    "compact.after_commit",  # committed: readers follow already
    "vacuum.before_commit",  # removed files are out of the ledger, in the transaction
    "vacuum.after_commit",  # committed: the files are orphans now
)
"""Every point on the way of a compaction and of a vacuum, in order."""

_KNOWN: Final = frozenset(
    POINTS + SOURCE_POINTS + COLLECT_POINTS + ROLLOUT_POINTS + BACKOUT_POINTS + COMPACT_POINTS
)

Hook = Callable[[str], None]

armed: Hook | None = None
"""Called with the name of every failpoint that this process passes; None in production."""


def failpoint(name: str) -> None:
    """Call the armed hook with `name`; nothing happens if none is armed."""
    if armed is not None:
        if name not in _KNOWN:
            raise ValueError(f"unknown failpoint {name!r}")
        armed(name)


def kill_at(point: str) -> Hook:
    """Return a hook that kills this process with SIGKILL when it passes `point`."""
    if point not in _KNOWN:
        raise ValueError(f"unknown failpoint {point!r}")

    def hook(name: str) -> None:
        if name == point:
            kill_self()

    return hook


def kill_self() -> NoReturn:
    """End this process as kill -9 does: no handler runs, no buffer is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL cannot be survived")
