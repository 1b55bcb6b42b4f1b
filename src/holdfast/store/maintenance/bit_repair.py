"""A sealed ledger of which one bit was turned, beside which a strange log lies, or whose seal was damaged, is mended without
losing anything: its seal says what it was.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import IntegrityError
from holdfast.store.db import page_checksums, sqlite_handles
from holdfast.store.db.page_checksums import PAGE_BYTES, Seal
from holdfast.store.durability import file_locks, fsync
from holdfast.store.maintenance import repairs


@dataclass(frozen=True, slots=True)
class Bit:
    """One bit of a file: the byte that it is in, from 0, and the byte with this bit alone set."""

    byte: int
    mask: int


def mend(root: Path) -> str:
    """Mend the SQLite ledger in `root` where its seal proves how; what was done, empty when nothing was.

    Nothing is done while anybody has it open. What is taken away lies in `aside`.
    """
    ledger = root / "ledger.db"
    if not ledger.exists() or not page_checksums.path_of(ledger).exists():
        return ""
    lock = file_locks.share(sqlite_handles.lock_of(ledger), sqlite_handles.PATIENCE_SECONDS)
    try:
        if not file_locks.is_last(lock, sqlite_handles.lock_of(ledger)):
            return ""
        try:
            found = page_checksums.read(ledger)
        except IntegrityError:
            return _without_seal(root, ledger)
        return _as_sealed(root, ledger, found) if found else ""
    finally:
        os.close(lock)


def _as_sealed(root: Path, ledger: Path, found: Seal) -> str:
    # Nobody in this process has a connection either, so this descriptor may be closed.
    descriptor = os.open(ledger, os.O_RDWR)
    try:
        if page_checksums.is_what_was_sealed(found, descriptor):
            return _without_log(root, ledger)
        bit = turned_bit(found, descriptor)
        if bit is None:
            return ""
        (value,) = os.pread(descriptor, 1, bit.byte)
        os.pwrite(descriptor, bytes([value ^ bit.mask]), bit.byte)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return f"one bit of byte {bit.byte} was turned and is turned back: the file has the SHA-256 of its seal again"


def turned_bit(found: Seal, descriptor: int) -> Bit | None:
    """The one bit that differs from what was sealed, proved by the SHA-256 of the whole; None when it is not one bit."""
    wrong = page_checksums.altered_pages(found, descriptor)
    if len(wrong) != 1 or os.fstat(descriptor).st_size != found.bytes:
        return None
    (page,) = wrong
    start = page * PAGE_BYTES
    data = bytearray(os.pread(descriptor, PAGE_BYTES, start))
    expected = int(found.pages[8 * page : 8 * page + 8], 16)
    for at in range(len(data)):
        for place in range(8):
            data[at] ^= 1 << place
            if zlib.crc32(data) == expected and _sha256_with(descriptor, start, data) == found.sha256:
                return Bit(start + at, 1 << place)
            data[at] ^= 1 << place
    return None


def _sha256_with(descriptor: int, start: int, page: bytearray) -> str:
    """The SHA-256 that the file would have with `page` at `start`."""
    digest, at = hashlib.sha256(), 0
    while data := os.pread(descriptor, PAGE_BYTES, at):
        digest.update(page if at == start else data)
        at += len(data)
    return digest.hexdigest()


def _without_log(root: Path, ledger: Path) -> str:
    strange = [
        ledger.with_name(ledger.name + suffix)
        for suffix in page_checksums.LOGS
        if page_checksums.log_bytes(ledger, suffix)
    ]
    if not strange:
        return ""
    ledger.with_name(f"{ledger.name}-shm").unlink(missing_ok=True)
    for path in strange:
        repairs.set_aside(root, path)
    return f"{strange[0].name} is set aside: the ledger is, to the bit, what was sealed without it"


def _without_seal(root: Path, ledger: Path) -> str:
    if any(page_checksums.log_bytes(ledger, suffix) for suffix in page_checksums.LOGS):
        return ""  # a whole seal would refuse it, so this file and this log are not known to belong together
    try:
        with closing(sqlite3.connect(ledger)) as connection:
            whole = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    except sqlite3.Error:
        return ""
    if not whole:
        return ""
    repairs.set_aside(root, page_checksums.path_of(ledger))
    fsync.sync_directory(root)
    return (
        "its seal was damaged and is set aside: the ledger's pages and indexes agree, and it is sealed anew"
    )
