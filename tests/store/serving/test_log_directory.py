"""Whose a server's log directory is, and what its name is."""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import IntegrityError
from holdfast.feedback import LONGEST_ID, PredictionId, parse_id
from holdfast.feedback.prediction_ids import MAX_ROW
from holdfast.store.durability import access
from holdfast.store.serving import log_directory
from holdfast.store.serving.log_directory import IDENTITY, Identity, claim, new_name, read_identity


def test_a_name_belongs_to_one_process_and_one_model(tmp_path: Path) -> None:
    first, second = claim(tmp_path, "m"), claim(tmp_path, "m")
    assert first.server != second.server
    first.release()
    other = claim(tmp_path, "another")
    assert other.server not in (first.server, second.server)
    again = claim(tmp_path, "m")
    assert again.server == first.server
    assert again.boot_id != first.boot_id
    assert read_identity(again.directory) == Identity(again.server, (first.boot_id, again.boot_id))
    for each in (second, other, again):
        each.release()


def test_two_roots_have_no_name_in_common(tmp_path: Path) -> None:
    names = [claim(tmp_path / str(number), "m").server for number in range(50)]
    assert len(set(names)) == 50
    assert all(re.fullmatch("s[a-z2-7]{12}", each) for each in names)


@given(st.binary(min_size=8, max_size=8), st.integers(1, 999_999_999), st.integers(1, 10**15 - 1))
def test_the_longest_id_of_a_new_server_is_an_id(random: bytes, segment: int, number: int) -> None:
    text = str(PredictionId(new_name(random), segment, number, MAX_ROW, "0123456789abcdef"))
    assert len(text) <= LONGEST_ID
    assert str(parse_id(text)) == text


@given(st.binary(min_size=8, max_size=8), st.integers(4, 63))
def test_60_bits_make_the_name(random: bytes, bit: int) -> None:
    other = (int.from_bytes(random) ^ (1 << bit)).to_bytes(8)
    assert new_name(other) != new_name(random)


def test_a_directory_of_an_earlier_release_keeps_its_name(tmp_path: Path) -> None:
    for name in ("s10", "s2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text("m")
    assert [claim(tmp_path, "m").server for _ in range(2)] == ["s2", "s10"]
    assert re.fullmatch("s[a-z2-7]{12}", claim(tmp_path, "m").server)


def test_a_copy_under_another_name_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its ids would be those of the original."""
    first = claim(tmp_path, "m")
    shutil.copytree(first.directory, tmp_path / "aaa")
    first.release()
    shutil.copytree(first.directory, tmp_path / "s7")
    assert claim(tmp_path, "m").server == first.server
    assert {tmp_path.joinpath(name).is_dir() for name in ("aaa", "s7")} == {True}
    assert "a copy of the log directory of server" in caplog.text


def test_a_directory_with_a_damaged_identity_stops_no_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = claim(tmp_path, "m")
    first.release()
    (first.directory / IDENTITY).write_bytes(b'{"server": ')
    assert claim(tmp_path, "m").server != first.server
    assert "HF316" in caplog.text
    with pytest.raises(IntegrityError, match="HF316"):
        read_identity(first.directory)


def test_the_boot_ids_are_bounded_and_keep_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_directory, "RETAINED_BOOTS", 5)
    first = claim(tmp_path, "m")
    for number in range(12):
        log_directory.record_boot(first.directory, f"{number:016x}")
    identity = read_identity(first.directory)
    assert identity is not None
    assert identity.boots[0] == first.boot_id
    assert len(identity.boots) == 7
    assert identity.boots[-1] == f"{11:016x}"


@pytest.mark.parametrize(("group", "mode"), [(False, 0o600), (True, 0o660)])
def test_the_identity_is_of_the_users_of_the_root_alone(tmp_path: Path, group: bool, mode: int) -> None:
    before = os.umask(0)
    access.declare(group=group)
    try:
        claimed = claim(tmp_path, "m")
        assert stat.S_IMODE((claimed.directory / IDENTITY).stat().st_mode) == mode
    finally:
        access.declare(group=False)
        os.umask(before)


def test_a_disk_that_takes_no_boot_id_stops_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = claim(tmp_path, "m")
    first.release()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("holdfast.store.durability.fsync.replace", full)
    with caplog.at_level(logging.WARNING):
        assert claim(tmp_path, "m").server == first.server
    assert "No space left" in caplog.text
