"""Blobs: files named by the SHA-256 of their bytes, such as the ONNX files of versions.

A name never means two things, and bytes are checked against their name when they are read.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from holdfast.errors import IntegrityError, NotFoundError
from holdfast.records import sha256_hex
from holdfast.store.db.ledger import Store
from holdfast.store.durability import fsync

BLOBS_DIRECTORY: Final = "blobs"
"""Where blobs lie under the store's root, in one directory for each first byte of the digest."""

UNFINISHED: Final = ".unfinished"
"""Suffix of a blob that is being written; one that stays behind was left by a writer that was killed."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


def path_of(root: Path, digest: str) -> Path:
    """Return the path of the blob of that digest below `root`; `NotFoundError` HF303 if it is no digest."""
    if not _DIGEST.match(digest):
        raise NotFoundError("HF303", f"{digest!r} is not the digest of a blob: it has 64 hexadecimal digits")
    return root / BLOBS_DIRECTORY / digest[:2] / digest


@contextmanager
def registering(store: Store) -> Iterator[None]:
    """Protect the blobs put in this block from the sweep of orphans; name them in the ledger before it ends.

    `put` alone protects a blob only until it returns.
    """
    descriptor = _directory(store)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # many may put at once; a sweep does not wait
        yield
    finally:
        os.close(descriptor)


@contextmanager
def without_writers(store: Store) -> Iterator[bool]:
    """Yield True if no living process is inside `registering` or `put`; inside this block none can get there."""
    descriptor = _directory(store)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def on_disk(store: Store) -> set[str]:
    """Return the digests of all blobs that are there."""
    found = (path.name for path in (store.root / BLOBS_DIRECTORY).glob("*/*"))
    return {name for name in found if _DIGEST.match(name)}


def _directory(store: Store) -> int:
    fsync.make_directory(store.root / BLOBS_DIRECTORY)
    return os.open(store.root / BLOBS_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)


def put(store: Store, data: bytes) -> str:
    """Store `data` and return its digest; file and name are durable on return.

    Putting the same bytes again changes nothing, and repairs a damaged blob.
    """
    with registering(store):
        return _put(store, data)


def _put(store: Store, data: bytes) -> str:
    digest = sha256_hex(data)
    path = path_of(store.root, digest)
    if path.is_file() and path.read_bytes() == data:
        fsync.sync(path.parent)  # its writer may have been killed before the name was durable
        return digest
    fsync.make_directory(path.parent)
    unfinished = path.with_name(f"{uuid.uuid4().hex}{UNFINISHED}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fsync.write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(path)
    fsync.sync(path.parent)
    return digest


def get(store: Store, digest: str) -> bytes:
    """Return the bytes of that digest; `IntegrityError` HF301 if the file is missing or altered."""
    path = path_of(store.root, digest)
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
