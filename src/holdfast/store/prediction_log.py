"""The prediction log: what each server answered, on its own disk, before the answer went out.

A server appends to segments `<directory>/<segment:08d>.log`. A record is its length and its CRC-32 (two little-endian
32-bit numbers), then MessagePack. `write` hands the bytes to the kernel before the caller answers, so a killed process
loses nothing; a thread calls fdatasync every few milliseconds for all records together, so a power cut loses at most
that window. A writer never appends to a segment that it did not begin: a torn tail stays the last thing in its file.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import IntegrityError, UnavailableError
from holdfast.records import check_name
from holdfast.store.durable import sync_directory, write_all

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""A segment that reached this size is closed and the next one begun."""
DIRECTORY_BYTES: Final = 8 * 1024 * 1024 * 1024
"""A directory of this size takes no more records until somebody removes collected segments; drops are counted."""
SYNC_SECONDS: Final = 0.004
"""The longest time that a record waits for its fdatasync to begin."""
READ_BYTES: Final = 4 * 1024 * 1024
"""How much of a segment one call of `read` takes."""
REMEMBERED_SEGMENTS: Final = 8
"""Of so many segments it is remembered how many rows each answer has: 4 bytes a request."""
_IDLE_SECONDS: Final = 1.0
_NEWEST: Final = "newest"
_HEAD: Final = struct.Struct("<II")
Scalar = float | int | str | bool | None


class PredictionRecord(msgspec.Struct, frozen=True, array_like=True, tag="P", gc=False):
    """One answered request.

    `arm` and `version` name who answered. `challenger_failed` is not empty when the request was the challenger's and the
    champion had to answer for it. `result` is "ok", "champion_failed" (another version answered for the champion), or
    the kind of error when there is no answer; a request that was refused has `rollout` None, because it is no evidence
    about either side. `latency_us` is the processor time that the request itself took: reading and checking it, and of
    its batch's time in the model the part of its rows. `inputs` are the rows as received, in the order of the contract's
    request columns.
    """

    id: str
    at_us: int
    event_us: int
    unit: bytes
    arm: str
    version: str
    challenger_failed: str
    rollout: int | None
    result: str
    latency_us: int
    probabilities: list[float]
    inputs: list[list[Scalar]]


class FeedbackRecord(msgspec.Struct, frozen=True, array_like=True, tag="F", gc=False):
    """What came back for row `<prediction id>/<row>`."""

    prediction: str
    value: float
    source: str
    at_us: int


class ShadowRecord(msgspec.Struct, frozen=True, array_like=True, tag="S", gc=False):
    """What a shadow made of a copy of the request `id`, and the answer that was given: both sides of the pair.

    `result` is "ok" or the shadow's kind of failure; `latency_us` is the processor time that it took, and `beside_us`
    that of the version that had answered, there and for the same rows, None when it was not run again.
    `champion` names the version that answered the user, with its result, its time in the answer's path, and its
    probabilities: none when nobody could answer.
    """

    id: str
    at_us: int
    unit: bytes
    rollout: int | None
    version: str
    result: str
    latency_us: int
    beside_us: int | None
    probabilities: list[float]
    champion: str
    champion_result: str
    champion_latency_us: int
    champion_probabilities: list[float]


Record = PredictionRecord | FeedbackRecord | ShadowRecord
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(Record).decode
# How an encoded record begins: an array of as many elements as the struct has fields and the tag.
_BEGINNINGS: Final = (b"\x9d\xa1P", b"\x95\xa1F", b"\x9e\xa1S")


def frame(record: Record) -> bytes:
    """`record` as it stands in a segment."""
    payload = _ENCODE(record)
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


@dataclass(frozen=True, slots=True)
class Claim:
    """A server's name and log directory, held by this process alone until it ends."""

    server: str
    directory: Path
    lock: int

    def release(self) -> None:
        """Let another process take the name."""
        os.close(self.lock)


def claim(logs: Path, model: str) -> Claim:
    """The first of the names s1, s2, ... under `logs` that no running server holds and no other model has used.

    A restarted server so finds its own name again, and ids stay short and unique: a name is used with one log
    directory, and a directory never begins the same segment twice.
    """
    for number in range(1, 10_000):
        server = f"s{number}"
        directory = logs / server
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / "model", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        owner = os.pread(lock, 64, 0).decode()
        if owner and owner != model:
            os.close(lock)
            continue
        os.pwrite(lock, model.encode(), 0)
        os.fsync(lock)
        return Claim(server, directory, lock)
    raise UnavailableError("HF504", f"10,000 servers hold names under {logs}", state="no server was started")


def segments(directory: Path) -> list[tuple[int, Path]]:
    """Every segment in `directory` with its number, oldest first."""
    return sorted((int(path.stem), path) for path in directory.glob("*.log") if path.stem.isdigit())


def _newest_begun(directory: Path) -> int:
    """The greatest number of a segment that was ever begun in `directory`; 0 before the first."""
    listed = segments(directory)
    newest = listed[-1][0] if listed else 0
    path = directory / _NEWEST
    try:
        kept = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return newest
    if not kept.isdigit():
        raise IntegrityError(
            "HF301",
            f"{path} does not hold the number of the newest segment",
            state="no server was started, so that no id is given twice",
            next_command=f"write into it a number that no segment of {directory.name} in the ledger has reached",
        )
    return max(newest, int(kept))


def _keep_newest(directory: Path, number: int) -> None:
    unfinished = directory / f"{_NEWEST}.unfinished"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_all(descriptor, str(number).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(directory / _NEWEST)
    sync_directory(directory)


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
        directory.mkdir(parents=True, exist_ok=True)
        self._segment = _newest_begun(directory)
        self._rows_of: dict[int, array[int]] = {}
        self._lock = threading.Lock()
        self._retired: list[int] = []
        self._waiting: list[Callable[[bool], None]] = []
        self._fd = -1
        self._size = 0
        self._writes = 0
        self._synced_writes = 0
        self._broken = False
        self._retry_at = 0.0
        self._asleep = False
        self._closing = False
        self._wake = threading.Event()
        self._begin_segment()
        self._thread = threading.Thread(target=self._sync_forever, name="prediction-log-sync", daemon=True)
        self._thread.start()

    @property
    def segment(self) -> int:
        """The number of the segment that is being written."""
        return self._segment

    def next_id(self, rows: int = 1) -> str:
        """A new prediction id for an answer of `rows` rows, 0 when there will be none; no other server, start or call
        gives the same."""
        self._count += 1
        self._rows.append(rows)
        return f"{self._prefix}{self._count}"

    def given(self, segment: int, number: int, row: int = 0) -> bool:
        """Whether this server can have given an answer with that row and an id that ends in `-<segment>-<number>`.

        What an earlier run answered, or this one many segments ago, it does not know, and says yes.
        """
        rows = self._rows_of.get(segment)
        if rows is None:
            return 1 <= segment < self._segment and number >= 1
        return 1 <= number <= len(rows) and 0 <= row < rows[number - 1]

    def write(self, frames: Iterable[bytes]) -> bool:
        """Hand `frames` to the kernel in one piece. False when they were dropped: then no id of theirs may be given out.

        After True the records survive the death of this process at any later moment.
        """
        data = b"".join(frames)
        if self._size >= self._segment_bytes or self._broken:
            self._rotate()
        if self._broken or not self._append(data):
            return False
        self._size += len(data)
        self._writes += 1
        if self._asleep:
            self._wake.set()
        return True

    def drop(self, records: int) -> None:
        """Count `records` that the caller could not write."""
        self.dropped += records

    def when_durable(self, then: Callable[[bool], None]) -> None:
        """Call `then(True)` on the sync thread when all that was written so far is on disk, `then(False)` if that fails."""
        with self._lock:
            self._waiting.append(then)
        if self._asleep:
            self._wake.set()

    def close(self) -> None:
        """Bring everything to disk and end the sync thread."""
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
            held = sum(path.stat().st_size for _, path in segments(self.directory))
            if held + self._segment_bytes > self._directory_bytes:
                self._broken, self._retry_at = True, now + _IDLE_SECONDS
                return
            self._begin_segment()
        except OSError:
            self._broken, self._retry_at = True, now + _IDLE_SECONDS

    def _begin_segment(self) -> None:
        # The number is kept first: it stays taken when this segment was collected and removed.
        _keep_newest(self.directory, self._segment + 1)
        path = self.directory / f"{self._segment + 1:08d}.log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        sync_directory(self.directory)
        with self._lock:
            if self._fd >= 0:
                self._retired.append(self._fd)
            self._fd = fd
        self._segment += 1
        self._prefix = f"{self.server}-{self._segment}-"
        self._count = 0
        self._rows = self._rows_of[self._segment] = array("I")
        self._rows_of.pop(self._segment - REMEMBERED_SEGMENTS, None)
        self._size = 0
        self._broken = False

    def _sync_forever(self) -> None:
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
        for each in (*retired, fd):
            try:
                os.fdatasync(each)
            except OSError:
                # The kernel may have thrown the pages away: no later success can vouch for these bytes.
                durable = False
                self.failed_syncs += 1
        for each in retired:
            os.close(each)
        self._synced_writes = writes
        for then in waiting:
            then(durable)


def read(path: Path, offset: int = 0, *, limit_bytes: int = READ_BYTES) -> tuple[list[Record], int]:
    """The records of the segment `path` from byte `offset` on, and the offset behind the last of them.

    Takes about `limit_bytes` at once: call again with the new offset until it does not grow. Stops before a torn tail (a
    record that a dying or still running writer has not finished). What is damaged before the tail (whole records follow
    it) ends the records likewise, so that those before it are kept; called at its own offset, `read` raises
    `IntegrityError` HF301.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if offset > size:
            raise IntegrityError("HF301", f"{path} has {size} bytes, but {offset} of it were read before")
        file.seek(offset)
        data = file.read(min(limit_bytes, size - offset))
        records, used = _parse(data)
        if not used and offset + len(data) < size:
            data += file.read(
                size - offset - len(data)
            )  # a record longer than the limit, or a damaged length
            records, used = _parse(data)
    # Bytes that do not parse are a torn tail only if nothing whole comes after them.
    if not used and (_record_end(data, 0) or _whole_record_after(data, 0)):
        raise IntegrityError(
            "HF301",
            f"{path} is damaged at byte {offset}: whole records follow",
            state="the records before it can be read",
            next_command="holdfast verify",
        )
    return records, offset + used


def _parse(data: bytes) -> tuple[list[Record], int]:
    """The records from the beginning of `data` up to the first that is not whole or cannot be understood."""
    records: list[Record] = []
    position = 0
    while (following := _record_end(data, position)) > 0:
        try:
            records.append(_DECODE(data[position + _HEAD.size : following]))
        except msgspec.MsgspecError:
            break
        position = following
    return records, position


def _record_end(data: bytes, position: int) -> int:
    """Where the whole, undamaged record at `position` ends; 0 when there is none."""
    begin = position + _HEAD.size
    if begin > len(data):
        return 0
    length, checksum = _HEAD.unpack_from(data, position)
    end: int = begin + length
    if length == 0 or end > len(data) or zlib.crc32(memoryview(data)[begin:end]) != checksum:
        return 0
    return end


def _whole_record_after(data: bytes, position: int) -> bool:
    for beginning in _BEGINNINGS:
        found = data.find(beginning, position + 1)
        while found >= 0:
            if found - _HEAD.size > position and _record_end(data, found - _HEAD.size):
                return True
            found = data.find(beginning, found + 1)
    return False
