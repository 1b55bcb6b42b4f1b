"""The prediction log: nothing acknowledged is lost, nothing damaged is read as whole."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import IntegrityError
from holdfast.store import prediction_log
from holdfast.store.prediction_log import (
    FeedbackRecord,
    LogWriter,
    PredictionRecord,
    claim,
    frame,
    read,
    segments,
)


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


def test_a_restart_begins_a_segment_and_never_reuses_an_id(tmp_path: Path) -> None:
    first = LogWriter(tmp_path, "s1", "m")
    before = first.next_id()
    first.close()
    second = LogWriter(tmp_path, "s1", "m")
    assert second.next_id() != before
    assert second.given(1, 1)
    assert second.given(2, 1)
    assert not second.given(2, 2)
    assert not second.given(3, 1)
    second.next_id(3)
    second.next_id(0)
    assert [second.given(2, 2, row) for row in (0, 2, 3)] == [True, True, False]
    assert not second.given(2, 3)  # a refused request has an id in the log and no answer
    assert second.given(1, 999, 7)  # what an earlier run answered is not known here
    second.close()
    assert [number for number, _ in segments(tmp_path)] == [1, 2]


def test_rotation_keeps_every_record(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "s1", "m", segment_bytes=200)
    ids = []
    for _ in range(20):
        ids.append(writer.next_id())
        assert writer.write(
            [frame(PredictionRecord(ids[-1], 1, 1, b"", "champion", "v", "", None, "ok", 1, [0.5], [[1.0]]))]
        )
    durable = threading.Event()
    writer.when_durable(lambda fine: durable.set() if fine else None)
    assert durable.wait(5)
    writer.close()
    listed = segments(tmp_path)
    assert len(listed) > 1
    assert [record.id for _, path in listed for record in read_all(path)] == ids


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_torn_tail_is_not_an_error_and_gives_the_whole_records(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    frames = [frame(prediction(number)) for number in range(5)]
    whole = b"".join(frames)
    path = tmp_path_factory.mktemp("log") / "00000001.log"
    path.write_bytes(whole[: min(cut, len(whole))])
    ends = [sum(map(len, frames[:count])) for count in range(6)]
    complete = max(index for index, end in enumerate(ends) if end <= min(cut, len(whole)))
    assert read(path) == ([prediction(number) for number in range(complete)], ends[complete])


@settings(max_examples=150, deadline=None)
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
        with pytest.raises(IntegrityError, match="HF301"):
            read_into(kept, path)
        assert kept == [prediction(number) for number in range(whole)]
    else:  # the last record: as good as torn
        assert read_all(path) == [prediction(number) for number in range(3)]


def test_records_before_the_damage_are_kept(tmp_path: Path) -> None:
    """Also when the damaged record has a right checksum: what nobody can decode is damage like any other."""
    strange = b"\x93\xa1Z\x01\x02"
    unknown = struct.pack("<II", len(strange), zlib.crc32(strange)) + strange
    path = tmp_path / "00000001.log"
    for bad in (unknown, b"\xff" * 40):
        path.write_bytes(frame(prediction(1)) + bad + frame(prediction(2)))
        for bounds in ({}, {"limit_bytes": 10}):
            records, offset = read(path, **bounds)
            assert (records, offset) == ([prediction(1)], len(frame(prediction(1))))
            with pytest.raises(IntegrityError, match="HF301"):
                read(path, offset, **bounds)


def test_a_number_stays_taken_when_its_segment_was_removed(tmp_path: Path) -> None:
    """Ids are never given twice, whoever makes room in the directory."""
    given = set()
    for _ in range(3):
        writer = LogWriter(tmp_path, "s1", "m")
        given.add(writer.next_id())
        writer.close()
        for _, path in segments(tmp_path):
            path.unlink()
    assert len(given) == 3
    (tmp_path / "newest").write_text("x", encoding="ascii")
    with pytest.raises(IntegrityError, match="no id is given twice"):
        LogWriter(tmp_path, "s1", "m")


def test_zeros_behind_the_end_are_a_torn_tail(tmp_path: Path) -> None:
    """What a file system may leave after a power cut."""
    path = tmp_path / "00000001.log"
    path.write_bytes(frame(prediction(1)) + bytes(4096))
    assert read(path) == ([prediction(1)], len(frame(prediction(1))))


def test_an_offset_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "00000001.log"
    path.write_bytes(frame(prediction(1)))
    with pytest.raises(IntegrityError, match="were read before"):
        read(path, 10_000)


def test_a_full_disk_drops_and_leaves_no_torn_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: predictions go on, drops are seen, and what follows the recovery is readable."""
    writer = LogWriter(tmp_path, "s1", "m")
    assert writer.write([frame(prediction(1))])
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 20:
            real(fd, data[:20])  # a short write, as a disk gives that fills up in the middle
            return 20
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(prediction_log.os, "write", full)
    assert not writer.write([frame(prediction(2))])
    monkeypatch.undo()
    assert writer.write([frame(prediction(3))])
    writer.close()
    assert [record for _, path in segments(tmp_path) for record in read_all(path)] == [
        prediction(1),
        prediction(3),
    ]


def test_a_full_directory_takes_nothing_more(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "s1", "m", segment_bytes=300, directory_bytes=900)
    taken = [writer.write([frame(prediction(number))]) for number in range(30)]
    writer.close()
    assert taken[0]
    assert not taken[-1]
    kept = [record for _, path in segments(tmp_path) for record in read_all(path)]
    assert len(kept) == sum(taken)


def test_a_name_belongs_to_one_process_and_one_model(tmp_path: Path) -> None:
    first = claim(tmp_path, "m")
    second = claim(tmp_path, "m")
    assert (first.server, second.server) == ("s1", "s2")
    first.release()
    other = claim(tmp_path, "another")
    assert other.server == "s3"
    again = claim(tmp_path, "m")
    assert again.server == "s1"
    for each in (second, other, again):
        each.release()


WRITER = """
import sys
from pathlib import Path
from holdfast.store.prediction_log import LogWriter, PredictionRecord, frame
writer = LogWriter(Path(sys.argv[1]), "s1", "m", segment_bytes=20_000)
while True:
    made = writer.next_id()
    writer.write([frame(PredictionRecord(made, 1, 1, b"", "champion", "v", "", None, "ok", 1, [0.5], [[1.0, "a"]]))])
    print(made, flush=True)
"""


@pytest.mark.crash
def test_every_acknowledged_record_survives_sigkill(tmp_path: Path) -> None:
    """P1 for the log: the id is printed only after `write` returned."""
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.wait()
        process.stdout.close()
        kept = {record.id for _, path in segments(tmp_path) for record in read_all(path)}
        assert set(acknowledged) <= kept
