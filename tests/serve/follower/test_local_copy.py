"""The local copy: whole at any time, and shared by servers without going backwards."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from holdfast.records import TrafficPlan, sha256_hex
from holdfast.serve.follower.local_copy import LocalCopy, LocalFeature, LocalState, LocalVersion

FILES = {sha256_hex(data): data for data in (b"one", b"two")}
ONE, TWO = FILES


def kept(plan: int, digest: str) -> LocalState:
    return LocalState(
        TrafficPlan("m", plan, "v", None, 0, None, None, None), {"v": LocalVersion(digest, 1, 2)}, 0
    )


@pytest.fixture
def copy(tmp_path: Path) -> LocalCopy:
    return LocalCopy(tmp_path / "serve" / "m")


def test_an_older_plan_never_replaces_a_newer_one(copy: LocalCopy) -> None:
    assert copy.save(kept(7, ONE), FILES.__getitem__)
    assert copy.save(kept(6, TWO), FILES.__getitem__)  # another server that is behind
    assert copy.load() == kept(7, ONE)
    assert copy.file(ONE) == b"one"
    assert copy.save(kept(8, TWO), FILES.__getitem__)
    assert copy.load() == kept(8, TWO)
    assert (copy.file(ONE), copy.file(TWO)) == (None, b"two")


def test_a_damaged_file_is_fetched_again(copy: LocalCopy) -> None:
    copy.save(kept(1, ONE), FILES.__getitem__)
    (copy.directory / f"{ONE}.onnx").write_bytes(b"onf")
    assert copy.save(kept(2, ONE), FILES.__getitem__)
    assert copy.file(ONE) == b"one"


def test_one_writes_at_a_time(copy: LocalCopy) -> None:
    """While another server writes or reads, nothing is written, and the caller is to come again."""
    copy.save(kept(1, ONE), FILES.__getitem__)
    with copy.read():
        assert not copy.save(kept(2, TWO), FILES.__getitem__)
        assert not copy.save_online([], 1)
    descriptor = os.open(copy.directory / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert not copy.save(kept(2, TWO), FILES.__getitem__)
    assert copy.load() == kept(1, ONE)
    os.close(descriptor)
    assert copy.save(kept(2, TWO), FILES.__getitem__)


def test_values_of_an_older_table_version_do_not_replace_newer_ones(copy: LocalCopy) -> None:
    new, old = LocalFeature("a", "EWR", 2, 2.0), LocalFeature("a", "EWR", 1, 1.0)
    assert copy.save_online([new], 5)
    assert copy.save_online([old], 4)
    assert copy.load_online() == [new]
    path = copy.directory / "online.msgpack"
    path.write_bytes(path.read_bytes()[:-1])
    assert copy.load_online() == []
    assert copy.save_online([old], 4)
    assert copy.load_online() == [old]
