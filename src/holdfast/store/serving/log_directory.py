"""The log directory of a server: its owner, its segments, and the newest number of a segment.

Segments are `<directory>/<segment:08d>.log`. Collected ones are removed. The greatest number ever used is stored
next to them, so that no id is issued twice.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.errors import IntegrityError, UnavailableError
from holdfast.store.durability import access, fsync

LOGS_DIRECTORY: Final = "log"
"""Where the prediction logs lie under the store's root: `log/<server>`."""
OWNER: Final = "model"
"""The file in a server's directory that names its model; the process that runs as that server has its lock."""
NEWEST: Final = "newest"
"""The file in a server's directory with the greatest number of a segment that was ever used."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A server's name and log directory, locked by this process until it ends."""

    server: str
    directory: Path
    lock: int

    def release(self) -> None:
        """Release the name for another process."""
        os.close(self.lock)


def claim(logs: Path, model: str) -> Claim:
    """Claim the first of the names s1, s2, ... under `logs` that no running server holds and no other model has used.

    A restarted server finds its own name again, and ids stay short and unique: a name has one log directory, and a
    directory never has the same segment twice.
    """
    for number in range(1, 10_000):
        server = f"s{number}"
        directory = logs / server
        directory.mkdir(mode=access.directory_mode(), parents=True, exist_ok=True)
        lock = os.open(directory / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, access.file_mode())
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
    raise UnavailableError("HF507", f"10,000 servers hold names under {logs}", state="no server was started")


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
