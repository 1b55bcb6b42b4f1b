"""Write the prediction log: a prediction is on the server's disk before its response goes out.

`write` hands the bytes to the kernel before the response, so that a killed process loses nothing. A thread calls
fdatasync every few milliseconds for all records together, so that a power failure loses at most that window. A writer
never appends to a segment of another run: a torn tail stays the last thing in its file.

A disk that takes no segment stops no server: records are dropped and counted, their predictions have no id, and about
once a second a new segment is tried.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from array import array
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from holdfast.feedback import SECRET_BYTES, IdKey
from holdfast.records import check_name
from holdfast.store.durability import access
from holdfast.store.durability.fsync import sync
from holdfast.store.serving.log_directory import newest_begun, path_of, record_newest, segments

_log = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""A segment that reached this size is closed and the next one begun."""
DIRECTORY_BYTES: Final = 8 * 1024 * 1024 * 1024
"""A directory of this size takes no more records until collected segments are deleted; drops are counted."""
SYNC_SECONDS: Final = 0.004
"""The longest time that a record waits for its fdatasync to begin."""
RETAINED_SEGMENTS: Final = 8
"""The row counts of so many segments stay in memory: 4 bytes a request."""
_IDLE_SECONDS: Final = 1.0


def is_place(prediction: str) -> bool:
    """Return True if a prediction id names a server, a segment and a record in it.

    >>> is_place("s4k7wq2mzt5ha-7-81.0123456789abcdef"), is_place("81.0123456789abcdef"), is_place("")
    (True, False, False)
    """
    return "-" in prediction


class LogWriter:
    """Appends records. `write` and `next_id` belong to one thread; the sync thread is the writer's own.

    Parameters
    ----------
    directory
        The server's log directory; made when it is not there.
    server, model
        Names; the server's becomes part of every id.
    segment_bytes, directory_bytes
        Bounds, in bytes, on one segment and on all segments that lie in the directory.
    sync_seconds
        The longest wait of a record for its fdatasync.
    gives_ids
        Whether callers may get ids from the start; if not, from the first call of `tag_with` on.
    """

    def __init__(
        self,
        directory: Path,
        server: str,
        model: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        directory_bytes: int = DIRECTORY_BYTES,
        sync_seconds: float = SYNC_SECONDS,
        gives_ids: bool = True,
    ) -> None:
        self.server = check_name(server, "server")
        self.model = check_name(model, "model")
        self.directory = directory
        self.dropped = 0
        """Records that could not be written, since the start."""
        self.failed_syncs = 0
        self._segment_bytes = segment_bytes
        self._directory_bytes = directory_bytes
        self._sync_seconds = sync_seconds
        directory.mkdir(mode=access.directory_mode(), parents=True, exist_ok=True)
        self._segment = newest_begun(directory)
        self._rows_of: dict[int, array[int]] = {}
        self._lock = threading.Lock()
        self._retired: list[int] = []
        self._waiting: list[Future[bool]] = []
        self._fd = -1
        self._size = 0
        self._writes = 0
        self._synced_writes = 0
        self._broken = False
        self._retry_at = 0.0
        self._asleep = False
        self._closing = False
        self._wake = threading.Event()
        self.is_contested = False
        """Whether another process has, or may have, the name of this server: it gives the same ids, and this log may never be
        collected."""
        self._has_key = gives_ids
        self._tag = IdKey(os.urandom(SECRET_BYTES)).tag
        self.first_segment = self._segment + 1
        """The first segment of this run: its ids and all later ones have tags."""
        self._prefix, self._count, self._rows = "", 0, array("I")
        self.error = ""
        """Why the current segment cannot be written; empty while it can."""
        try:
            self._begin_segment()
        except OSError as error:
            self._break(error.strerror or str(error), time.monotonic())
        self._thread = threading.Thread(target=self._run_sync, name="prediction-log-sync", daemon=True)
        self._thread.start()

    @property
    def gives_ids(self) -> bool:
        """Whether callers may get ids: other servers verify those that are tagged with the ledger's key."""
        return self._has_key and not self.is_contested

    @property
    def segment(self) -> int:
        """The number of the current segment."""
        return self._segment

    def tag_with(self, key: IdKey) -> None:
        """Tag ids by `key` from now on, and give them. Before, the key is one of this run alone."""
        self._tag = key.tag
        self._has_key = True

    def next_id(self, rows: int = 1) -> str:
        """Return a new prediction id for `rows` rows, 0 if there will be no prediction. No other server or run issues it.

        Without a segment it has no place (`is_place`), so no caller may get it, and no record may have it.
        """
        self._count += 1
        self._rows.append(rows)
        place = f"{self._prefix}{self._count}"
        return f"{place}.{self._tag(place)}"

    def has_issued(self, segment: int, number: int, row: int = 0) -> bool:
        """Return True if this server can have issued an id of record `number` in `segment` for that row.

        Ids of an earlier run, or of many segments ago, are not known: for these it returns True.
        """
        rows = self._rows_of.get(segment)
        if rows is None:
            return 1 <= segment < self._segment and number >= 1
        return 1 <= number <= len(rows) and 0 <= row < rows[number - 1]

    def count_rows(self, segment: int, number: int) -> int | None:
        """Return how many rows record `number` of `segment` has; None if it is of an earlier run or of many segments ago."""
        rows = self._rows_of.get(segment)
        return rows[number - 1] if rows is not None and 1 <= number <= len(rows) else None

    def write(self, frames: Iterable[bytes]) -> bool:
        """Hand `frames` to the kernel in one piece. Return False if they were dropped: none of their ids may be issued.

        After True the records survive the death of this process at any later time.
        """
        data = b"".join(frames)
        had_segment = bool(self._prefix)
        if self._size >= self._segment_bytes or self._broken:
            self._rotate()
        # Without a segment their ids have no number of this run, so none may be issued.
        if self._broken or not had_segment or not self._append(data):
            return False
        self._size += len(data)
        self._writes += 1
        if self._asleep:
            self._wake.set()
        return True

    def drop(self, records: int) -> None:
        """Count `records` that the caller could not write."""
        self.dropped += records

    def durability(self) -> Future[bool]:
        """Return a future of everything written so far: True when it is on disk, False if that fails."""
        found: Future[bool] = Future()
        with self._lock:
            self._waiting.append(found)
        if self._asleep:
            self._wake.set()
        return found

    def close(self) -> None:
        """Sync everything and end the sync thread."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _append(self, data: bytes) -> bool:
        try:
            written = os.write(self._fd, data)
        except OSError:
            written = 0
        if written == len(data):
            return True
        # A short write is the disk being full. What was written of the group must not stay in the middle of a segment.
        self._broken = True
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._size = self._segment_bytes  # the tail stays torn, and nothing is appended behind it
        else:
            self._broken = self._size >= self._segment_bytes
        return False

    def _rotate(self) -> None:
        now = time.monotonic()
        if now < self._retry_at:
            return
        self._retry_at = now + _IDLE_SECONDS if self._broken else 0.0
        try:
            size = sum(path.stat().st_size for _, path in segments(self.directory))
            if size + self._segment_bytes > self._directory_bytes:
                self._break("segments that are not collected yet fill the directory's bound", now)
                return
            self._begin_segment()
        except OSError as error:
            self._break(error.strerror or str(error), now)

    def _break(self, why: str, now: float) -> None:
        if why != self.error:
            _log.error("no prediction log, so predictions have no id: %s", why)
        self.error, self._broken, self._retry_at = why, True, now + _IDLE_SECONDS

    def _begin_segment(self) -> None:
        # The number is stored first: it stays used when this segment was collected and deleted.
        record_newest(self.directory, self._segment + 1)
        path = path_of(self.directory, self._segment + 1)
        fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, access.file_mode()
        )
        sync(self.directory)
        with self._lock:
            if self._fd >= 0:
                self._retired.append(self._fd)
            self._fd = fd
        self._segment += 1
        self._prefix = f"{self.server}-{self._segment}-"
        self._count = 0
        self._rows = self._rows_of[self._segment] = array("I")
        self._rows_of.pop(self._segment - RETAINED_SEGMENTS, None)
        self._size = 0
        self._broken = False
        if self.error:
            _log.warning("the prediction log is written again, after %d dropped records", self.dropped)
            self.error = ""

    def _run_sync(self) -> None:
        quiet = 0
        while True:
            closing = self._closing
            if self._writes != self._synced_writes or self._waiting or self._retired:
                self._sync()
                quiet = 0
            elif closing:
                return
            else:
                quiet += 1
            if closing:
                continue
            if quiet * self._sync_seconds < _IDLE_SECONDS:
                time.sleep(self._sync_seconds)
                continue
            self._wake.clear()
            self._asleep = True
            if self._writes == self._synced_writes and not self._waiting:
                self._wake.wait(_IDLE_SECONDS)
            self._asleep = False
            quiet = 0 if self._wake.is_set() else quiet

    def _sync(self) -> None:
        with self._lock:
            retired, self._retired = self._retired, []
            waiting, self._waiting = self._waiting, []
            fd, writes = self._fd, self._writes
        durable = True
        for each in (*retired, *([fd] if fd >= 0 else [])):
            try:
                os.fdatasync(each)
            except OSError:
                # The kernel may have thrown the pages away: no later success can vouch for these bytes.
                durable = False
                self.failed_syncs += 1
        for each in retired:
            os.close(each)
        self._synced_writes = writes
        for future in waiting:
            future.set_result(durable)
