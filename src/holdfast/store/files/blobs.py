"""Blobs: files named by the SHA-256 of their bytes, such as the ONNX files of versions.

A name never means two things, and bytes are checked against their name when they are read.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from holdfast.errors import IntegrityError, NotFoundError
from holdfast.records import sha256_hex
from holdfast.store.durability import file_locks, fsync

BLOBS_DIRECTORY: Final = "blobs"
"""Where blobs lie under the store's root, in one directory for each first byte of the digest."""


_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


def path_of(root: Path, digest: str) -> Path:
    """Return the path of the blob of that digest below `root`; `NotFoundError` HF303 if it is no digest."""
    if not _DIGEST.match(digest):
        raise NotFoundError("HF303", f"{digest!r} is not the digest of a blob: it has 64 hexadecimal digits")
    return root / BLOBS_DIRECTORY / digest[:2] / digest


@contextmanager
def registering(root: Path) -> Iterator[None]:
    """Protect the blobs put in this block from the sweep of orphans; name them in the ledger before it ends.

    `put` alone protects a blob only until it returns.
    """
    fsync.make_directory(root / BLOBS_DIRECTORY)
    descriptor = os.open(root / BLOBS_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # many may put at once; a sweep does not wait
        yield
    finally:
        os.close(descriptor)


def without_writers(root: Path) -> AbstractContextManager[bool]:
    """Yield True if no living process is inside `registering` or `put`; inside this block none can get there."""
    fsync.make_directory(root / BLOBS_DIRECTORY)
    return file_locks.seized(root / BLOBS_DIRECTORY)


def on_disk(root: Path) -> set[str]:
    """Return the digests of all blobs that are there."""
    found = (path.name for path in (root / BLOBS_DIRECTORY).glob("*/*"))
    return {name for name in found if _DIGEST.match(name)}


def put(root: Path, data: bytes) -> str:
    """Store `data` and return its digest; file and name are durable on return.

    Putting the same bytes again changes nothing, and repairs a damaged blob.
    """
    digest = sha256_hex(data)
    path = path_of(root, digest)
    with registering(root):
        if path.is_file() and path.read_bytes() == data:
            fsync.sync(path.parent)  # its writer may have been killed before the name was durable
        else:
            fsync.make_directory(path.parent)
            fsync.replace(path, data)
    return digest


def get(root: Path, digest: str) -> bytes:
    """Return the bytes of that digest; `IntegrityError` HF301 if the file is missing or altered."""
    path = path_of(root, digest)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise IntegrityError("HF301", f"blob {digest} is missing", next_command="holdfast verify") from error
    found = sha256_hex(data)
    if found != digest:
        raise IntegrityError(
            "HF301",
            f"blob {digest} was altered: its {len(data)} bytes have digest {found}",
            state="nothing was loaded from it",
            next_command="holdfast verify",
        )
    return data
