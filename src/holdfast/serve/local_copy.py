"""What a server needs to begin without the ledger: the plan, its versions and the online values, verified, on its own disk.

`<directory>/plan.json` names the files by their SHA-256 and carries its own; it is replaced in one step after they are
durable, so whatever moment a process dies at, the directory holds one whole plan.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import IntegrityError
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.store.durable import make_directory, sync_directory, write_all

_PLAN: Final = "plan.json"
_ONLINE: Final = "online.msgpack"


class KeptVersion(msgspec.Struct, frozen=True):
    """A version's file and what is told about it."""

    digest: str
    created_us: int
    deployed_us: int


class Kept(msgspec.Struct, frozen=True):
    """A plan with the versions that it needs, and when traffic last returned to a champion (0: never)."""

    plan: TrafficPlan
    versions: dict[str, KeptVersion]
    rolled_back_us: int


class KeptValue(msgspec.Struct, frozen=True, array_like=True):
    """One value of an aggregate."""

    aggregate: str
    entity: str
    known_us: int
    value: float


class _Sealed(msgspec.Struct, frozen=True):
    sha256: str
    kept: msgspec.Raw


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """The copy in one directory; servers of the same model on one machine share it."""

    directory: Path

    def save(self, kept: Kept, files: Mapping[str, bytes]) -> None:
        """Keep `kept` with `files` by digest (those that are here already may be left out), and drop files of older plans."""
        make_directory(self.directory)
        for digest, data in files.items():
            if not self._file(digest).exists():
                self._replace(f"{digest}.onnx", data)
        encoded = msgspec.json.encode(kept)
        self._replace(_PLAN, msgspec.json.encode(_Sealed(sha256_hex(encoded), msgspec.Raw(encoded))))
        named = {self._file(version.digest) for version in kept.versions.values()}
        for path in self.directory.glob("*.onnx"):
            if path not in named:
                path.unlink(missing_ok=True)

    def load(self) -> Kept | None:
        """The plan that was kept; None when there is none, `IntegrityError` HF301 when it was altered."""
        try:
            data = (self.directory / _PLAN).read_bytes()
        except FileNotFoundError:
            return None
        try:
            sealed = msgspec.json.decode(data, type=_Sealed)
            kept = msgspec.json.decode(sealed.kept, type=Kept)
        except msgspec.MsgspecError as error:
            raise _altered(self.directory / _PLAN) from error
        if sha256_hex(bytes(sealed.kept)) != sealed.sha256 or set(kept.versions) != set(kept.plan.versions()):
            raise _altered(self.directory / _PLAN)
        return kept

    def file(self, digest: str) -> bytes | None:
        """The bytes of a version's file if they are here and are those of the digest."""
        try:
            data = self._file(digest).read_bytes()
        except FileNotFoundError:
            return None
        return data if sha256_hex(data) == digest else None

    def save_online(self, values: Iterable[KeptValue]) -> None:
        """Keep the values of the online table."""
        make_directory(self.directory)
        encoded = msgspec.msgpack.encode(list(values))
        self._replace(_ONLINE, bytes.fromhex(sha256_hex(encoded)) + encoded)

    def load_online(self) -> list[KeptValue]:
        """The values that were kept; none when they were never kept or were altered: unknown is what aggregates can be."""
        try:
            data = (self.directory / _ONLINE).read_bytes()
        except FileNotFoundError:
            return []
        if sha256_hex(data[32:]) != data[:32].hex():
            return []
        return msgspec.msgpack.decode(data[32:], type=list[KeptValue])

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


def _altered(path: Path) -> IntegrityError:
    return IntegrityError(
        "HF301",
        f"{path} was altered",
        state="the server waits for the ledger",
        next_command="holdfast verify",
    )
