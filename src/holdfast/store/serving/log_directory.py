"""The log directory of a server: its name, its owner, its segments, and the newest number of a segment.

Segments are `<directory>/<segment:08d>.log`. Collected ones are removed. The greatest number ever used is stored
next to them, so that no id is issued twice.

A directory gets a name of 60 random bits when it is made, so that no other directory anywhere has it. Directories that
earlier releases made keep their names: s1, s2, ...
"""

from __future__ import annotations

import base64
import fcntl
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import IntegrityError, UnavailableError
from holdfast.records import NAME
from holdfast.store.durability import access, fsync

_log = logging.getLogger(__name__)

LOGS_DIRECTORY: Final = "log"
"""Where the prediction logs lie under the store's root: `log/<server>`."""
OWNER: Final = "model"
"""The file in a server's directory that names its model; the process that runs as that server has its lock."""
NEWEST: Final = "newest"
"""The file in a server's directory with the greatest number of a segment that was ever used."""
IDENTITY: Final = "identity.json"
"""The file in a server's directory with its name and the boot ids of its processes."""
RETAINED_BOOTS: Final = 1_000
"""The newest boot ids that `IDENTITY` keeps, besides the first of them."""

_OF_EARLIER_RELEASES: Final = re.compile(r"s[1-9][0-9]{0,3}")
_NAME_BYTES: Final = 8
_BOOT_BYTES: Final = 8
_ATTEMPTS: Final = 16


class Identity(msgspec.Struct, frozen=True):
    """The identity of the server of a log directory.

    `boots` are the boot ids of its processes in their order: the first one, and the newest ones.
    """

    server: str
    boots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A server's name and log directory, locked by this process until it ends; `boot_id` is the id of this process."""

    server: str
    directory: Path
    lock: int
    boot_id: str

    def release(self) -> None:
        """Release the name for another process."""
        os.close(self.lock)


def new_name(random: bytes) -> str:
    """Return the name of a new server: `s` and 60 of the 64 bits of `random` in base32 (RFC 4648), in small letters.

    >>> new_name(bytes(8)), new_name(bytes([255] * 8))
    ('saaaaaaaaaaaa', 's777777777777')
    """
    return "s" + base64.b32encode(random[:_NAME_BYTES]).decode().lower()[:12]


def claim(logs: Path, model: str, *, random: Callable[[int], bytes] = os.urandom) -> Claim:
    """Claim a directory under `logs` that no running server holds and no other model has used; make one if there is none.

    A restarted server finds its own name again, and ids stay short and unique: a name has one log directory, and a
    directory never has the same segment twice.

    Parameters
    ----------
    logs
        The directory of all logs under the store's root.
    model
        The model that the server serves.
    random
        Returns so many random bytes, for the name of a new directory and for the boot id.

    Raises
    ------
    UnavailableError
        HF507 if every directory that was made was claimed by another process first.
    """
    for directory in sorted(logs.glob("*"), key=lambda path: (len(path.name), path.name)):
        if _is_of_a_server(directory) and (found := _claimed(directory, model, random)) is not None:
            return found
    for _ in range(_ATTEMPTS):
        directory = logs / new_name(random(_NAME_BYTES))
        fsync.make_directory(directory)
        if (found := _claimed(directory, model, random)) is not None:
            return found
    raise UnavailableError(
        "HF507", f"other servers claimed each new name under {logs}", state="no server was started"
    )


def _is_of_a_server(directory: Path) -> bool:
    """Return True if the directory has the name of its server: a copy under another name has the ids of the original."""
    if not NAME.match(directory.name) or not directory.is_dir():
        return False
    try:
        identity = read_identity(directory)
    except IntegrityError as error:
        _log.error("%s", error)
        return False
    if identity is None:
        return _OF_EARLIER_RELEASES.fullmatch(directory.name) is not None
    if identity.server != directory.name:
        _log.warning(
            "%s is not used: it is a copy of the log directory of server %s", directory, identity.server
        )
    return identity.server == directory.name


def _claimed(directory: Path, model: str, random: Callable[[int], bytes]) -> Claim | None:
    lock = os.open(directory / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, access.file_mode())
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    owner = os.pread(lock, 64, 0).decode()
    if owner and owner != model:
        os.close(lock)
        return None
    os.pwrite(lock, model.encode(), 0)
    os.fsync(lock)
    found = Claim(directory.name, directory, lock, random(_BOOT_BYTES).hex())
    try:
        record_boot(directory, found.boot_id)
    except OSError as error:
        # A full disk stops no server. Before it announces itself, it tries again.
        _log.warning("%s cannot be written: %s", directory / IDENTITY, error.strerror or error)
    return found


def read_identity(directory: Path) -> Identity | None:
    """Return the identity of the server of `directory`; None if an earlier release made it, or if it is not there.

    Raises `IntegrityError` HF316 if the file is damaged.
    """
    path = directory / IDENTITY
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            "HF316",
            f"{path} does not hold the name of a server",
            state="no server uses the directory, so that no id is issued twice; another one is made",
            next_command=f"write into it the name and the boot ids that the ledger has of server {directory.name}",
        ) from error


def is_log_of(directory: Path, server: str, boot_id: str | None) -> bool:
    """Return True if `directory` is here and has the log of the process `boot_id` of `server`, or of one after it.

    A directory with the path and the name of another host's is not. Without a boot id, of an earlier release, it counts as
    the server's.
    """
    if boot_id is None:
        return directory.is_dir()
    try:
        found = read_identity(directory)
    except (IntegrityError, OSError):
        return False
    return found is not None and found.server == server and boot_id in found.boots


def separate(directory: Path, boot_id: str) -> None:
    """Store that the log of `directory` does not continue that of any process before `boot_id`."""
    write_identity(directory, Identity(directory.name, (boot_id,)))


def record_boot(directory: Path, boot_id: str) -> None:
    """Store that the server of `directory` runs as process `boot_id`. Synced when this returns."""
    known = read_identity(directory)
    boots = () if known is None else known.boots
    if boot_id not in boots:
        kept = (*boots[:1], *boots[1:][-RETAINED_BOOTS:])
        write_identity(directory, Identity(directory.name, (*kept, boot_id)))


def write_identity(directory: Path, identity: Identity) -> None:
    """Store the identity of the server of `directory`. Synced when this returns."""
    fsync.replace(directory / IDENTITY, msgspec.json.encode(identity))


def all_of(root: Path) -> list[Path]:
    """Return the log directory of every server of the store under `root`, by name."""
    return sorted((root / LOGS_DIRECTORY).glob("*"))


def path_of(directory: Path, segment: int) -> Path:
    """Return the path of segment number `segment` in `directory`."""
    return directory / f"{segment:08d}.log"


def segments(directory: Path) -> list[tuple[int, Path]]:
    """Return every segment in `directory` with its number, oldest first."""
    return sorted((int(path.stem), path) for path in directory.glob("*.log") if path.stem.isdigit())


def newest_begun(directory: Path) -> int:
    """Return the greatest number of a segment that was ever used in `directory`; 0 before the first."""
    listed = segments(directory)
    newest = listed[-1][0] if listed else 0
    path = directory / NEWEST
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return newest
    if not text.isdigit():
        raise IntegrityError(
            "HF316",
            f"{path} does not hold the number of the newest segment",
            state="no server was started, so that no id is issued twice",
            next_command=f"write into it a number that no segment of {directory.name} in the ledger has reached",
        )
    return max(newest, int(text))


def record_newest(directory: Path, number: int) -> None:
    """Store that segment `number` is used in `directory`, before it is created. Synced when this returns."""
    fsync.replace(directory / NEWEST, str(number).encode())
