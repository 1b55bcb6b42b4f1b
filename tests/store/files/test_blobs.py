"""Blobs: known by their bytes, durable, never silently altered (reliability F3, A3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import IntegrityError, NotFoundError
from holdfast.records import sha256_hex
from holdfast.store import Store
from holdfast.store.files import blobs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def files_of(store: Store) -> list[str]:
    return [path.name for path in sorted((store.root / "blobs").rglob("*")) if path.is_file()]


def test_what_was_put_is_what_is_got(store: Store) -> None:
    for data in (b"", b"\x00" * 10, b"model" * 100_000):
        assert blobs.put(store.root, data) == sha256_hex(data)
        assert blobs.get(store.root, sha256_hex(data)) == data


def test_putting_twice_keeps_one_file(store: Store) -> None:
    digest = blobs.put(store.root, b"model")
    assert blobs.put(store.root, b"model") == digest
    assert files_of(store) == [digest]


@pytest.mark.parametrize("damage", [b"", b"mode", b"modfl", b"model!"])
def test_an_altered_blob_is_never_returned_and_putting_it_again_repairs_it(
    store: Store, damage: bytes
) -> None:
    digest = blobs.put(store.root, b"model")
    blobs.path_of(store.root, digest).write_bytes(damage)
    with pytest.raises(IntegrityError, match="was altered"):
        blobs.get(store.root, digest)
    blobs.put(store.root, b"model")
    assert blobs.get(store.root, digest) == b"model"


def test_a_missing_blob_reports_it(store: Store) -> None:
    with pytest.raises(IntegrityError, match="is missing"):
        blobs.get(store.root, "0" * 64)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n", "0" * 65])
def test_a_name_that_is_no_digest_never_becomes_a_path(store: Store, name: str) -> None:
    with pytest.raises(NotFoundError):
        blobs.path_of(store.root, name)


def test_a_write_that_fails_leaves_no_blob(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        blobs.put(store.root, b"model")
    assert sha256_hex(b"model") not in files_of(store)
