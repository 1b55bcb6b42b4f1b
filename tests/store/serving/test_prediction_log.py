"""Records in segments: what was written is read, and nothing damaged is read as whole."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import IntegrityError
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, frame, read
from tests.support.profile import examples


def prediction(number: int, rows: int = 1) -> PredictionRecord:
    return PredictionRecord(
        f"s1-1-{number}", 10, 9, b"12345678", "champion", "v1-0", "", None, "ok", 40, [0.25] * rows,
        [["AA", 1.5, None, True, 2**53]] * rows,
    )  # fmt: skip


FEEDBACK = FeedbackRecord("s1-1-1/0", 1.0, "airport", 20)


def read_all(path: Path, **bounds: int) -> list[object]:
    found: list[object] = []
    read_into(found, path, **bounds)
    return found


def read_into(found: list[object], path: Path, **bounds: int) -> None:
    offset = 0
    while True:
        records, following = read(path, offset, **bounds)
        if following == offset:
            return
        found += records
        offset = following


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "s1", "m")
    assert writer.write([frame(prediction(1)), frame(FEEDBACK)])
    assert writer.write([frame(prediction(2, rows=3))])
    writer.close()
    [(number, path)] = segments(tmp_path)
    assert number == 1
    assert read_all(path) == [prediction(1), FEEDBACK, prediction(2, rows=3)]
    assert read_all(path, limit_bytes=10) == [prediction(1), FEEDBACK, prediction(2, rows=3)]


@examples(60)
@given(snapshot=st.integers(0, 400))
def test_a_torn_tail_is_not_an_error_and_gives_the_whole_records(
    tmp_path_factory: pytest.TempPathFactory, snapshot: int
) -> None:
    frames = [frame(prediction(number)) for number in range(5)]
    whole = b"".join(frames)
    path = tmp_path_factory.mktemp("log") / "00000001.log"
    path.write_bytes(whole[: min(snapshot, len(whole))])
    ends = [sum(map(len, frames[:count])) for count in range(6)]
    complete = max(index for index, end in enumerate(ends) if end <= min(snapshot, len(whole)))
    assert read(path) == ([prediction(number) for number in range(complete)], ends[complete])


@examples(75)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_is_read_as_data(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    frames = [frame(prediction(number)) for number in range(4)]
    data = bytearray(b"".join(frames))
    position = int(place * len(data))
    data[position] ^= 1 << bit
    path = tmp_path_factory.mktemp("log") / "00000001.log"
    path.write_bytes(data)
    if position < len(data) - len(frames[-1]):
        whole = next(n for n in range(4) if position < sum(map(len, frames[: n + 1])))
        kept: list[object] = []
        with pytest.raises(IntegrityError, match="HF316"):
            read_into(kept, path)
        assert kept == [prediction(number) for number in range(whole)]
    else:  # the last record: as good as torn
        assert read_all(path) == [prediction(number) for number in range(3)]


def test_records_before_the_damage_are_kept(tmp_path: Path) -> None:
    """Also when the damaged record has a right checksum: what cannot be decoded is damage like any other."""
    strange = b"\x93\xa1Z\x01\x02"
    unknown = struct.pack("<II", len(strange), zlib.crc32(strange)) + strange
    path = tmp_path / "00000001.log"
    for bad in (unknown, b"\xff" * 40):
        path.write_bytes(frame(prediction(1)) + bad + frame(prediction(2)))
        for bounds in ({}, {"limit_bytes": 10}):
            records, offset = read(path, **bounds)
            assert (records, offset) == ([prediction(1)], len(frame(prediction(1))))
            with pytest.raises(IntegrityError, match="HF316"):
                read(path, offset, **bounds)


def test_zeros_behind_the_end_are_a_torn_tail(tmp_path: Path) -> None:
    """What a file system may leave after a power failure."""
    path = tmp_path / "00000001.log"
    path.write_bytes(frame(prediction(1)) + bytes(4096))
    assert read(path) == ([prediction(1)], len(frame(prediction(1))))


def test_an_offset_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "00000001.log"
    path.write_bytes(frame(prediction(1)))
    with pytest.raises(IntegrityError, match="were read before"):
        read(path, 10_000)
