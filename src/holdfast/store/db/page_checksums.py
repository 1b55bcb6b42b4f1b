"""The seal of a SQLite ledger: what every page of its file was when the last process let go of it.

SQLite has no checksums of its own: a bit that flips in free space, in a reason or in a moment contradicts nothing. PostgreSQL
can check its pages by itself, so only SQLite's file is sealed. The seal lies beside it and is removed before the first change
(`holding.py` says when), so there is none while somebody writes, and none after a kill; neither is damage.

    {"content": {"bytes": ..., "format": 1, "pages": <8 hexadecimal digits a page>, "sha256": ...}, "sha256": <of the content>}

A page is held against its CRC-32 (zlib's): one to three changed bits of 4096 bytes are always found, because that polynomial
keeps words of this length at least four bits apart (Koopman, DSN 2002, doi:10.1109/DSN.2002.1028931), and anything else is
missed once in 2^32. Only a repair needs the SHA-256 of the whole file (`bitflip.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.errors import IntegrityError
from holdfast.records import canonical_json, sha256_hex
from holdfast.store.durability import fsync

FORMAT: Final = 1
PAGE_BYTES: Final = 4096
LOGS: Final = ("-wal", "-journal")
"""What SQLite would play back into the file; it was sealed without one."""

_AT_ONCE_BYTES: Final = 256 * PAGE_BYTES
_NEXT: Final = "holdfast repair-ledger, or holdfast restore BACKUP"


@dataclass(frozen=True, slots=True)
class Seal:
    """The size of a file, its SHA-256 and the CRC-32 of each of its pages, eight hexadecimal digits each."""

    bytes: int
    sha256: str
    pages: str


def path_of(ledger: Path) -> Path:
    """Where the seal of the SQLite file `ledger` lies, or would lie."""
    return ledger.with_name(f"{ledger.name}-seal")


def measure(descriptor: int) -> Seal:
    """The seal that the open file should have as it is now."""
    digest = hashlib.sha256()
    checks: list[str] = []
    for data in _slices(descriptor):
        digest.update(data)
        checks.append(_checks(data))
    return Seal(os.fstat(descriptor).st_size, digest.hexdigest(), "".join(checks))


def write(ledger: Path, seal: Seal) -> None:
    """Put `seal` beside `ledger`; durable when this returns."""
    for unfinished in ledger.parent.glob(f".{path_of(ledger).name}.*{fsync.UNFINISHED}"):
        unfinished.unlink(missing_ok=True)  # of one that was killed: who is here is alone
    fsync.replace(path_of(ledger), _encoded(seal))


def read(ledger: Path) -> Seal | None:
    """The seal of `ledger`; None without one, and of one that a newer release has made.

    Raises `IntegrityError` HF309 when the seal itself is damaged.
    """
    try:
        data = path_of(ledger).read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = json.loads(data)
        content = found["content"]
        whole = found["sha256"] == sha256_hex(canonical_json(content))
        if whole and content["format"] > FORMAT:
            return None
        seal = Seal(content["bytes"], content["sha256"], content["pages"])
        whole = whole and _encoded(seal) == data
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise _broken(ledger, "its seal is damaged")
    return seal


def difference(ledger: Path, seal: Seal, descriptor: int) -> str:
    """In what the file differs from its seal, in words; empty when it is, to the bit, what was sealed."""
    for suffix in LOGS:
        waiting = log_bytes(ledger, suffix)
        if waiting:
            return f"{ledger.name}{suffix} of {waiting} bytes lies beside it, and it was sealed without one"
    size = os.fstat(descriptor).st_size
    if size != seal.bytes:
        return f"it has {size} bytes, and was sealed with {seal.bytes}"
    wrong = altered_pages(seal, descriptor)
    if not wrong:
        return ""
    first = wrong[0] * PAGE_BYTES
    more = f" and {len(wrong) - 1} more places" if len(wrong) > 1 else ""
    return f"bytes {first} to {min(first + PAGE_BYTES, size) - 1}{more} are not what was sealed"


def altered_pages(seal: Seal, descriptor: int) -> list[int]:
    """The numbers of the pages that are not what was sealed, from 0."""
    wrong: list[int] = []
    page = 0
    for data in _slices(descriptor):
        checks = _checks(data)
        expected = seal.pages[8 * page : 8 * page + len(checks)]
        if checks != expected:
            pairs = range(0, len(checks), 8)
            wrong += [page + at // 8 for at in pairs if checks[at : at + 8] != expected[at : at + 8]]
        page += len(checks) // 8
    return wrong


def is_what_was_sealed(seal: Seal, descriptor: int) -> bool:
    """Whether the file has the size and the pages that were sealed, whatever lies beside it."""
    return os.fstat(descriptor).st_size == seal.bytes and not altered_pages(seal, descriptor)


def refuse_broken(ledger: Path, descriptor: int) -> bool:
    """Whether `ledger` is sealed, and whole; for one who keeps others from sealing it meanwhile.

    Raises `IntegrityError` HF309 when it is not what was sealed. A seal that is gone afterwards was removed by a writer, who
    may have changed the file while it was read: then nothing can be said.
    """
    seal = read(ledger)
    if seal is None:
        return False
    found = difference(ledger, seal, descriptor)
    if not path_of(ledger).exists():
        return False
    if found:
        raise _broken(ledger, found)
    return True


def log_bytes(ledger: Path, suffix: str = LOGS[0]) -> int:
    """The size of SQLite's log beside `ledger`, 0 without one."""
    try:
        return ledger.with_name(ledger.name + suffix).stat().st_size
    except FileNotFoundError:
        return 0


def _slices(descriptor: int) -> Iterator[bytes]:
    at = 0
    while data := os.pread(descriptor, _AT_ONCE_BYTES, at):
        while len(data) % PAGE_BYTES and (more := os.pread(descriptor, _AT_ONCE_BYTES, at + len(data))):
            data += more  # a read that was cut short; only the last page of a file may be
        yield data
        at += len(data)


def _checks(data: bytes) -> str:
    view = memoryview(data)
    checks = [zlib.crc32(view[at : at + PAGE_BYTES]) for at in range(0, len(data), PAGE_BYTES)]
    return struct.pack(f">{len(checks)}I", *checks).hex()


def _encoded(seal: Seal) -> bytes:
    content = {"format": FORMAT, "bytes": seal.bytes, "sha256": seal.sha256, "pages": seal.pages}
    return canonical_json({"sha256": sha256_hex(canonical_json(content)), "content": content}).encode()


def _broken(ledger: Path, trouble: str) -> IntegrityError:
    return IntegrityError(
        "HF309",
        f"the ledger {ledger} was altered while nobody had it open: {trouble}",
        state="nothing was changed",
        next_command=_NEXT,
    )
