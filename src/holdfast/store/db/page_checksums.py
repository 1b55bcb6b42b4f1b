"""Page checksums of a SQLite ledger: a file next to it with one checksum per page.

SQLite has no checksums of its own: nothing detects a flipped bit in free space, in a reason or in a timestamp.
PostgreSQL can check its pages itself, so only SQLite's file gets them. The last process that closes the ledger writes them, and
the first that changes it removes them (`sqlite_handles.py`). There are none while a process writes, and none after a kill.

    {"content": {"bytes": ..., "format": 1, "pages": <8 hexadecimal digits per page>, "sha256": ...}, "sha256": ...}

The checksum of a page is its CRC-32 (zlib's). One to three changed bits of 4096 bytes are always found, because that polynomial
keeps words of this length at least four bits apart (Koopman, DSN 2002, doi:10.1109/DSN.2002.1028931); any other change is
missed once in 2^32.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from holdfast import records
from holdfast.errors import IntegrityError
from holdfast.store.durability import fsync

FORMAT: Final = 1
PAGE_BYTES: Final = 4096
LOGS: Final = ("-wal", "-journal")
"""Suffixes of the logs that SQLite would replay into the file; checksums are written only without one."""

_AT_ONCE_BYTES: Final = 256 * PAGE_BYTES
_NEXT: Final = "holdfast restore BACKUP, or holdfast rebuild-ledger"


@dataclass(frozen=True, slots=True)
class PageChecksums:
    """The size of a file, its SHA-256 and the CRC-32 of each of its pages, eight hexadecimal digits each."""

    bytes: int
    sha256: str
    pages: str


def path_of(ledger: Path) -> Path:
    """Return the path of the checksums of the SQLite file `ledger`."""
    return ledger.with_name(f"{ledger.name}-checksums")


def compute(descriptor: int) -> PageChecksums:
    """Compute the checksums of the open file."""
    digest = hashlib.sha256()
    pages: list[str] = []
    for data in _slices(descriptor):
        digest.update(data)
        pages.append(_checksums(data))
    return PageChecksums(os.fstat(descriptor).st_size, digest.hexdigest(), "".join(pages))


def write(ledger: Path, checksums: PageChecksums) -> None:
    """Write `checksums` next to `ledger`; they are durable on return. The caller is the only process that has it open."""
    for unfinished in ledger.parent.glob(f".{path_of(ledger).name}.*{fsync.UNFINISHED}"):
        unfinished.unlink(missing_ok=True)  # of a writer that was killed
    fsync.replace(path_of(ledger), _encoded(checksums))


def read(ledger: Path) -> PageChecksums | None:
    """Load the checksums of `ledger`; None if there are none. Raises `IntegrityError` HF309 if they are damaged."""
    try:
        data = path_of(ledger).read_bytes()
    except FileNotFoundError:
        return None
    try:
        content = records.from_checked_json(data)
        checksums = PageChecksums(content["bytes"], content["sha256"], content["pages"])
        intact = _encoded(checksums) == data
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        reason = "its page checksums are damaged"
        raise _altered(ledger, reason, f"remove {path_of(ledger)}, then holdfast verify")
    return checksums


def verify(ledger: Path, descriptor: int) -> bool:
    """Return True if `ledger` has page checksums and matches them, False if it has none.

    The caller keeps other processes from writing checksums meanwhile. If they are gone afterwards, a writer removed them and
    may have changed the file while it was read: the result is False.

    Raises `IntegrityError` HF309 on a mismatch.
    """
    checksums = read(ledger)
    if checksums is None:
        return False
    logs = {f"{ledger.name}{suffix}": log_bytes(ledger, suffix) for suffix in LOGS}
    found = difference(checksums, descriptor)
    if not path_of(ledger).exists():
        return False
    for name, size in logs.items():
        if size:
            reason = f"the log {name} of {size} bytes does not belong to it"
            raise _altered(ledger, reason, f"move {name} away, then the same command again")
    if found:
        raise _altered(ledger, found)
    return True


def difference(checksums: PageChecksums, descriptor: int) -> str:
    """Describe how the open file differs from its checksums; empty if it matches."""
    size = os.fstat(descriptor).st_size
    if size != checksums.bytes:
        return f"it has {size} bytes, its checksums are of {checksums.bytes}"
    wrong = _altered_pages(checksums, descriptor)
    if not wrong:
        return ""
    first = wrong[0] * PAGE_BYTES
    more = f" and {len(wrong) - 1} more pages" if len(wrong) > 1 else ""
    return f"bytes {first} to {min(first + PAGE_BYTES, size) - 1}{more} do not match their checksums"


def log_bytes(ledger: Path, suffix: str = LOGS[0]) -> int:
    """Return the size of SQLite's log of `ledger`, 0 without one."""
    try:
        return ledger.with_name(ledger.name + suffix).stat().st_size
    except FileNotFoundError:
        return 0


def _altered_pages(checksums: PageChecksums, descriptor: int) -> list[int]:
    """Return the numbers of the pages that do not match, from 0."""
    wrong: list[int] = []
    page = 0
    for data in _slices(descriptor):
        found = _checksums(data)
        expected = checksums.pages[8 * page : 8 * page + len(found)]
        if found != expected:
            pairs = range(0, len(found), 8)
            wrong += [page + at // 8 for at in pairs if found[at : at + 8] != expected[at : at + 8]]
        page += len(found) // 8
    return wrong


def _slices(descriptor: int) -> Iterator[bytes]:
    at = 0
    while data := os.pread(descriptor, _AT_ONCE_BYTES, at):
        while len(data) % PAGE_BYTES and (more := os.pread(descriptor, _AT_ONCE_BYTES, at + len(data))):
            data += more  # a short read; only the last page of a file may be short
        yield data
        at += len(data)


def _checksums(data: bytes) -> str:
    view = memoryview(data)
    found = [zlib.crc32(view[at : at + PAGE_BYTES]) for at in range(0, len(data), PAGE_BYTES)]
    return struct.pack(f">{len(found)}I", *found).hex()


def _encoded(checksums: PageChecksums) -> bytes:
    return records.checked_json({"format": FORMAT, **asdict(checksums)})


def _altered(ledger: Path, reason: str, next_command: str = _NEXT) -> IntegrityError:
    return IntegrityError(
        "HF309",
        f"the ledger {ledger} was altered while no process had it open: {reason}",
        state="nothing was changed",
        next_command=next_command,
    )
