"""The local copy: what a server needs to start without the ledger. The plan, its versions and the online features, verified.

`<directory>/plan.json` names the files by their SHA-256 and carries its own; it is replaced in one step after they are
durable. Whenever a process dies, the directory holds one complete plan.

A thread of its own writes it, so that a disk that stalls delays no plan. A rollback is a plan, and following it needs
memory alone: the plan before it may still be being written.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import IntegrityError
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.rollout.model.abort import UnderWay
from holdfast.store.durability import access
from holdfast.store.durability.fsync import make_directory, replace

_log = logging.getLogger(__name__)

ERROR_SECONDS: Final = 1.0
"""How long to wait after a write failed."""
BUSY_SECONDS: Final = 0.2
"""How long to wait for another server that writes."""
_PLAN: Final = "plan.json"
_ONLINE: Final = "online.msgpack"
_LOCK: Final = "lock"


class LocalVersion(msgspec.Struct, frozen=True):
    """A version's file and its timestamps."""

    digest: str
    created_at_us: int
    deployed_us: int


class LocalState(msgspec.Struct, frozen=True):
    """A plan with its loaded versions, and when traffic was last rolled back (0: never).

    A rollback without the ledger needs `tainted`, the model's tainted versions, `under_way`, its rollout that has not ended,
    and `rollout_id`, the newest number of a rollout (0: none). `serving_config` is the document that the server runs with;
    empty if no plan ever named one. `inputs` has the datatypes of the inputs of every version that was rolled out, by name.
    `last_resort` names versions whose abort could not be carried out.
    """

    plan: TrafficPlan
    versions: dict[str, LocalVersion]
    rolled_back_us: int
    tainted: tuple[str, ...] = ()
    under_way: UnderWay | None = None
    rollout_id: int = 0
    serving_config: str = ""
    inputs: dict[str, tuple[str, ...]] = {}
    last_resort: tuple[str, ...] = ()


class LocalFeature(msgspec.Struct, frozen=True, array_like=True):
    """One value of an online feature."""

    aggregate: str
    entity: str
    known_at_us: int
    value: float


class _Checksummed(msgspec.Struct, frozen=True):
    sha256: str
    state: msgspec.Raw


class _Values(msgspec.Struct, frozen=True):
    table_version: int
    values: list[LocalFeature]


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """The copy in one directory; servers of the same model on one machine share it, one writer at a time."""

    directory: Path

    def save(self, state: LocalState, fetch: Callable[[str], bytes]) -> bool:
        """Write `state` with its files, and delete files of older plans.

        Parameters
        ----------
        state
            Stays unwritten if another server has written a newer plan.
        fetch
            Returns the verified bytes of a digest whose file is not here yet.

        Returns
        -------
        False while another server writes: try again.
        """
        with self._locked(fcntl.LOCK_EX) as locked:
            if not locked:
                return False
            if self._has_newer(state.plan):
                return True
            digests = {version.digest for version in state.versions.values()}
            for digest in digests:
                if self.file(digest) is None:
                    replace(self._file(digest), fetch(digest))
            encoded = msgspec.json.encode(state)
            replace(self._plan, msgspec.json.encode(_Checksummed(sha256_hex(encoded), msgspec.Raw(encoded))))
            named = {self._file(digest) for digest in digests}
            for path in self.directory.glob("*.onnx"):
                if path not in named:
                    path.unlink(missing_ok=True)
            return True

    def load(self) -> LocalState | None:
        """Return the stored state, None if there is none. Raises `IntegrityError` HF316 when it was altered.

        Its versions are those that were loaded when it was written, the champion among them.
        """
        try:
            data = (self._plan).read_bytes()
        except FileNotFoundError:
            return None
        try:
            checksummed = msgspec.json.decode(data, type=_Checksummed)
            state = msgspec.json.decode(checksummed.state, type=LocalState)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _altered(self._plan) from error
        if (
            sha256_hex(bytes(checksummed.state)) != checksummed.sha256
            or state.plan.champion not in state.versions
        ):
            raise _altered(self._plan)
        return state

    def file(self, digest: str) -> bytes | None:
        """Return the bytes of a version's file if they are here and have the digest, else None."""
        try:
            data = self._file(digest).read_bytes()
        except OSError:  # the blob is the original
            return None
        return data if sha256_hex(data) == digest else None

    def save_online(self, values: Iterable[LocalFeature], table_version: int) -> bool:
        """Write the online features, unless those of a newer table version are there.

        Returns False while another server writes: try again.
        """
        with self._locked(fcntl.LOCK_EX) as locked:
            if locked and self._load_values().table_version <= table_version:
                encoded = msgspec.msgpack.encode(_Values(table_version, list(values)))
                replace(self.directory / _ONLINE, bytes.fromhex(sha256_hex(encoded)) + encoded)
            return locked

    def load_online(self) -> list[LocalFeature]:
        """Return the stored online features; none if they are absent or were altered, since an aggregate may be unknown."""
        return self._load_values().values

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold off writers while several files are read, for at most a second of waiting."""
        with self._locked(fcntl.LOCK_SH, wait_seconds=1.0):
            yield

    def _has_newer(self, plan: TrafficPlan) -> bool:
        try:
            there = self.load()
        except IntegrityError:
            return False
        return there is not None and there.plan.plan_id > plan.plan_id

    def _load_values(self) -> _Values:
        try:
            data = (self.directory / _ONLINE).read_bytes()
            if sha256_hex(data[32:]) == data[:32].hex():
                return msgspec.msgpack.decode(data[32:], type=_Values)
        except (FileNotFoundError, msgspec.MsgspecError):
            pass
        return _Values(0, [])

    @contextmanager
    def _locked(self, kind: int, *, wait_seconds: float = 0.0) -> Iterator[bool]:
        """Yield True if the directory's lock was taken. The kernel releases it when its holder dies."""
        make_directory(self.directory)
        descriptor = os.open(
            self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, access.file_mode()
        )
        deadline = time.monotonic() + wait_seconds
        try:
            while not (locked := _try_lock(descriptor, kind)) and time.monotonic() < deadline:
                time.sleep(0.01)
            yield locked
        finally:
            os.close(descriptor)

    @property
    def _plan(self) -> Path:
        return self.directory / _PLAN

    def _file(self, digest: str) -> Path:
        return self.directory / f"{digest}.onnx"


Write = Callable[[LocalCopy], bool]
"""Writes a part of the copy; returns False while another server writes. Raises `OSError` or `IntegrityError`."""


class LocalCopyWriter:
    """Runs submitted writes on `copy`, the newest of each part, until they succeed."""

    def __init__(self, copy: LocalCopy) -> None:
        self.error = ""
        """Why the copy is out of date."""
        self._copy = copy
        self._waiting: dict[str, Write] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="local-copy-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further write. Does not wait: the thread may hang in a disk that does not respond."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()

    def submit(self, part: str, write: Write) -> None:
        """Queue `write` for `part`, in place of one that waits; returns at once."""
        with self._changed:
            self._waiting[part] = write
            self._changed.notify()

    @property
    def is_idle(self) -> bool:
        """Return True if everything that was submitted is on disk."""
        return not self._waiting

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                while not self._waiting and not self._stopping.is_set():
                    self._changed.wait()
                waiting = dict(self._waiting)
            self._stopping.wait(self._write(waiting))

    def _write(self, waiting: Mapping[str, Write]) -> float:
        """Run the waiting writes; return the seconds to wait before the rest is tried again."""
        try:
            done = {part: write for part, write in waiting.items() if write(self._copy)}
        except (OSError, IntegrityError) as error:
            if str(error) != self.error:
                _log.warning("local copy is out of date, writing it failed: %s", error)
            self.error = str(error)
            return ERROR_SECONDS
        self.error = ""
        with self._changed:
            for part, write in done.items():
                if self._waiting.get(part) is write:  # else a newer one came meanwhile
                    del self._waiting[part]
        return 0.0 if done == waiting else BUSY_SECONDS


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _altered(path: Path) -> IntegrityError:
    return IntegrityError(
        "HF316",
        f"{path} was altered",
        state="the server waits for the ledger",
        next_command="holdfast verify",
    )
