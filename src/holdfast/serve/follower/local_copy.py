"""What a server needs to begin without the ledger: the plan, its versions and the online values, verified, on its own disk.

`<directory>/plan.json` names the files by their SHA-256 and carries its own; it is replaced in one step after they are
durable, so whatever moment a process dies at, the directory holds one whole plan.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import IntegrityError
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.rollout.model.abort import UnderWay
from holdfast.store.durability.fsync import make_directory, sync_directory, write_all

_PLAN: Final = "plan.json"
_ONLINE: Final = "online.msgpack"
_LOCK: Final = "lock"


class KeptVersion(msgspec.Struct, frozen=True):
    """A version's file and what is told about it."""

    digest: str
    created_at_us: int
    deployed_us: int


class Kept(msgspec.Struct, frozen=True):
    """A plan with those of its versions that were warm, and when traffic last returned to a champion (0: never).

    `tainted` are the model's tainted versions, `under_way` is its rollout that had not ended, `rollout` the newest number
    of a rollout that was seen (0: none): what a roll-back without the ledger must know. `configuration` is the document of
    what the server ran with, empty when no plan ever asked for one.
    """

    plan: TrafficPlan
    versions: dict[str, KeptVersion]
    rolled_back_us: int
    tainted: tuple[str, ...] = ()
    under_way: UnderWay | None = None
    rollout_id: int = 0
    configuration: str = ""


class KeptValue(msgspec.Struct, frozen=True, array_like=True):
    """One value of an aggregate."""

    aggregate: str
    entity: str
    known_at_us: int
    value: float


class _Sealed(msgspec.Struct, frozen=True):
    sha256: str
    kept: msgspec.Raw


class _Values(msgspec.Struct, frozen=True):
    table_version: int
    values: list[KeptValue]


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """The copy in one directory; servers of the same model on one machine share it, one writer at a time."""

    directory: Path

    def save(self, kept: Kept, fetch: Callable[[str], bytes]) -> bool:
        """Keep `kept` with its files, and drop files of older plans. False when another server writes: try again.

        `fetch` gives the verified bytes of a digest whose file is not here yet. A newer plan that another server
        kept stays.
        """
        with self._alone() as alone:
            if not alone:
                return False
            if self._has_newer(kept.plan):
                return True
            digests = {version.digest for version in kept.versions.values()}
            for digest in digests:
                if self.file(digest) is None:
                    self._replace(f"{digest}.onnx", fetch(digest))
            encoded = msgspec.json.encode(kept)
            self._replace(_PLAN, msgspec.json.encode(_Sealed(sha256_hex(encoded), msgspec.Raw(encoded))))
            named = {self._file(digest) for digest in digests}
            for path in self.directory.glob("*.onnx"):
                if path not in named:
                    path.unlink(missing_ok=True)
            return True

    def load(self) -> Kept | None:
        """The plan that was kept; None when there is none, `IntegrityError` HF316 when it was altered.

        Of the plan's versions all those are named that were warm when it was kept, the champion among them.
        """
        try:
            data = (self.directory / _PLAN).read_bytes()
        except FileNotFoundError:
            return None
        try:
            sealed = msgspec.json.decode(data, type=_Sealed)
            kept = msgspec.json.decode(sealed.kept, type=Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _altered(self.directory / _PLAN) from error
        if sha256_hex(bytes(sealed.kept)) != sealed.sha256 or kept.plan.champion not in kept.versions:
            raise _altered(self.directory / _PLAN)
        return kept

    def file(self, digest: str) -> bytes | None:
        """The bytes of a version's file if they are here and are those of the digest."""
        try:
            data = self._file(digest).read_bytes()
        except OSError:  # whatever is wrong with the copy, the blob is the original
            return None
        return data if sha256_hex(data) == digest else None

    def save_online(self, values: Iterable[KeptValue], table_version: int) -> bool:
        """Keep the values of the online table, unless those of a newer table version are there.

        False when another server writes: try again.
        """
        with self._alone() as alone:
            if alone and self._load_values().table_version <= table_version:
                encoded = msgspec.msgpack.encode(_Values(table_version, list(values)))
                self._replace(_ONLINE, bytes.fromhex(sha256_hex(encoded)) + encoded)
            return alone

    def load_online(self) -> list[KeptValue]:
        """The values that were kept; none when they were never kept or were altered: unknown is what aggregates can be."""
        return self._load_values().values

    @contextmanager
    def read(self) -> Iterator[None]:
        """While several files are read: no other server drops one of them, unless it does not end within a second."""
        with self._locked(fcntl.LOCK_SH, patience_seconds=1.0):
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
        except (
            FileNotFoundError,
            msgspec.MsgspecError,
        ):  # never kept, or by a release that kept them otherwise
            pass
        return _Values(0, [])

    def _alone(self) -> AbstractContextManager[bool]:
        return self._locked(fcntl.LOCK_EX, patience_seconds=0.0)

    @contextmanager
    def _locked(self, kind: int, *, patience_seconds: float) -> Iterator[bool]:
        """Whether the directory's lock could be had. The kernel gives it back when its holder dies."""
        make_directory(self.directory)
        descriptor = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + patience_seconds
        try:
            while not (held := _try_lock(descriptor, kind)) and time.monotonic() < deadline:
                time.sleep(0.01)
            yield held
        finally:
            os.close(descriptor)

    def _file(self, digest: str) -> Path:
        return self.directory / f"{digest}.onnx"

    def _replace(self, name: str, data: bytes) -> None:
        unfinished = self.directory / f".{name}.{os.getpid()}"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        unfinished.replace(self.directory / name)
        sync_directory(self.directory)


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
