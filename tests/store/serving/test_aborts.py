"""The first abort of a machine whose disk is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from holdfast.errors import UnavailableError
from holdfast.rollout.model.abort import Abort
from holdfast.store.serving import aborts

GIVEN = Abort("v2", 7, 3, "bad", "ann", 1)


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch):
    """From its call on the disk takes no new name; what is there already can be written over."""
    really = os.open

    def full(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not Path(path).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(path, flags, mode)

    return lambda: monkeypatch.setattr(os, "open", full)


def test_what_was_reserved_is_enough_for_the_first_abort_on_a_full_disk(tmp_path: Path, fill) -> None:
    """R117: also where no abort, and so no lock, was ever made."""
    aborts.reserve(tmp_path)
    assert aborts.is_reserved(tmp_path)
    fill()
    assert aborts.add(tmp_path, GIVEN) == (GIVEN, True)
    assert aborts.add(tmp_path, GIVEN) == (GIVEN, False)
    assert aborts.load(tmp_path) == (GIVEN,)
    assert not aborts.is_reserved(tmp_path)


def test_a_full_disk_without_anything_reserved_is_reported(tmp_path: Path, fill) -> None:
    fill()
    with pytest.raises(UnavailableError, match="HF307"):
        aborts.add(tmp_path, GIVEN)


def test_a_spare_of_before_there_was_a_lock_is_completed(tmp_path: Path) -> None:
    aborts.reserve(tmp_path)
    (tmp_path / "abort.lock").unlink()
    assert not aborts.is_reserved(tmp_path)
    aborts.reserve(tmp_path)
    assert aborts.is_reserved(tmp_path)
