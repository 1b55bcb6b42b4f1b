"""Compaction of collected predictions: by command, and in the control loop with a budget of its own.

A control loop writes a file in each round, some 345,000 a day. It merges them in a thread, so that neither collection nor a
rollback waits for it, and rests for four times its duration.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from holdfast.control.maintenance import vacuum
from holdfast.control.maintenance.compact import CompactedTable
from holdfast.errors import ConflictError, IntegrityError
from holdfast.records import Progress
from holdfast.store import Store
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files import staging
from holdfast.store.telemetry import collected_files, replaced_files
from holdfast.store.telemetry.collected_log import FileTable
from holdfast.tables.collected_files import MOST_FILES, TARGET_ROWS, Groups, LogFile, plan_merges

PART_ROWS: Final = 100_000
"""The maximum number of rows of a file that the control loop merges: they are in memory together."""
PART_FILES: Final = 500
"""The maximum number of files that the control loop merges at once."""
IDLE_US: Final = 60_000_000
"""How long the control loop waits before it looks for files again, when there were none to merge."""
REST: Final = 4
"""The rest of the control loop after a merge, in durations of that merge."""

_log = logging.getLogger("holdfast.control")


def compact_collected(
    store: Store, *, now_us: int, target_rows: int = TARGET_ROWS, progress: Progress | None = None
) -> tuple[CompactedTable, ...]:
    """Merge the collected predictions, and the copies of shadows.

    Files of a log segment that has ended become one; of a segment that still grows, many small ones do. Each merged file is
    committed alone. The files that it replaces stay for readers that had their names before, for `vacuum.KEEP_REPLACED`.
    Raises `IntegrityError` HF301 for a damaged file, after all others were merged.

    Parameters
    ----------
    now_us
        Timestamp of the compaction, microseconds since 1970 UTC.
    target_rows
        Maximum number of rows in a new file.
    progress
        Called with (files written, files to write).
    """
    before, plans = _plan(store, target_rows=target_rows, most_files=MOST_FILES)
    to_write, results, written = sum(map(len, plans.values())), list[CompactedTable](), 0
    damaged: IntegrityError | None = None
    for table in collected_files.KINDS:
        count, merged, rows = before[table.name], 0, 0
        for group in plans[table.name]:
            try:
                _merge(store, table, group, now_us=now_us)
            except IntegrityError as error:
                damaged = damaged or error
                continue
            except ConflictError:  # the control loop merged some of them: what is left is merged next time
                continue
            merged += len(group) - 1
            rows += sum(each.rows for each in group)
            written += 1
            if progress is not None:
                progress(written, to_write)
        results.append(CompactedTable(table.name, count, count - merged, rows))
    vacuum.delete_replaced(store, now_us=now_us)
    if damaged is not None:
        raise damaged
    return tuple(results)


def _plan(
    store: Store,
    *,
    target_rows: int,
    most_files: int,
    model: str | None = None,
    without: Collection[str] = (),
) -> tuple[Mapping[str, int], Mapping[str, Groups]]:
    """Return how many files of each kind there are (of `model`), and which of them, but those of `without`, become one."""
    with store.ledger.read() as connection:
        newest = collected_files.newest_segments(connection)
        found = {table.name: collected_files.all_of(connection, table) for table in collected_files.KINDS}
    of_model = {
        kind: [each for each in files if model is None or each.model == model]
        for kind, files in found.items()
    }
    plans = {
        kind: plan_merges(
            [each for each in files if each.path not in without],
            newest,
            target_rows=target_rows,
            most_files=most_files,
        )
        for kind, files in of_model.items()
    }
    return {kind: len(files) for kind, files in of_model.items()}, plans


def _merge(
    store: Store, table: FileTable, group: tuple[LogFile, ...], *, now_us: int, lease: Lease | None = None
) -> None:
    """Merge `group`. Raises `ConflictError` HF304 if another process merged or expired one of them, or has the lease."""
    with staging.staged(store.root) as stage:
        with store.ledger.read() as connection:
            numbers = collected_files.record_numbers(connection, table, group)
        try:
            merged = collected_files.merge(stage, table, group, numbers)
        except IntegrityError:
            with store.ledger.read() as connection:
                collected_files.raise_if_dropped(connection, table, group)
            raise
        stage.sync()
        failpoint("compact.written")
        with store.ledger.write() as connection:
            if lease is not None:
                assert_epoch(connection, lease.name, lease.epoch)
            collected_files.replace(connection, table, group, merged)
        failpoint("compact.after_commit")
        replaced_files.set_aside(store.root, [each.path for each in group], now_us=now_us)


@dataclass(slots=True)
class CompactCollected:
    """The concern of the control loop that merges collected files: it starts one merge in a thread and returns at once.

    Parameters
    ----------
    clock_us
        Returns the current time, microseconds since 1970 UTC.
    """

    clock_us: Callable[[], int]
    _next_us: int = field(default=0, init=False)
    _damaged: set[str] = field(default_factory=set, init=False)
    _worker: threading.Thread | None = field(default=None, init=False)

    def __call__(self, store: Store, model: str, lease: Lease, *, now_us: int) -> None:
        """Start the next merge of files of `model`, if the one before has ended and it has rested."""
        if (self._worker is not None and self._worker.is_alive()) or now_us < self._next_us:
            return
        work = (store, model, lease)
        self._worker = threading.Thread(target=self._work, args=work, name="compact-collected", daemon=True)
        self._worker.start()

    def finish(self, seconds: float) -> None:
        """Wait until the merge under way has ended, at most so long; one that is killed leaves an orphan at most."""
        if self._worker is not None:
            self._worker.join(seconds)

    def _work(self, store: Store, model: str, lease: Lease) -> None:
        begun_us = self.clock_us()
        try:
            has_merged = self._advance(store, model, lease, begun_us)
        except ConflictError:  # the lease has gone, or a command merged the same files
            has_merged = False
        except Exception:
            _log.exception("merging collected files failed; it will be tried again")
            has_merged = False
        ended_us = self.clock_us()
        rest_us = REST * max(0, ended_us - begun_us) if has_merged else IDLE_US
        self._next_us = ended_us + rest_us

    def _advance(self, store: Store, model: str, lease: Lease, now_us: int) -> bool:
        """Merge one group of files. Returns False if there is none."""
        _, plans = _plan(
            store, target_rows=PART_ROWS, most_files=PART_FILES, model=model, without=self._damaged
        )
        for table in collected_files.KINDS:
            for group in plans[table.name][:1]:
                try:
                    _merge(store, table, group, now_us=now_us, lease=lease)
                except IntegrityError as error:
                    # Readers report a damaged file; here its group waits until the next start, or the command.
                    _log.warning(
                        "collected files of %s/%s were not merged: %s",
                        group[0].server,
                        group[0].segment,
                        error,
                    )
                    self._damaged.update(each.path for each in group)
                return True
        vacuum.delete_replaced(store, now_us=now_us)
        return False
