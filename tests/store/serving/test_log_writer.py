"""The server's end of the prediction log: nothing acknowledged is lost, and no id is issued twice."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import IntegrityError
from holdfast.store.serving import log_writer
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, frame, read
from tests.support import forking


def responded(made: str) -> PredictionRecord:
    return PredictionRecord(made, 1, 1, b"12345678", "champion", "v", "", None, "ok", 1, [0.5], [["AA", 1.0]])


def kept_in(directory: Path) -> list[Any]:
    return [record for _, path in segments(directory) for record in read(path)[0]]


def test_a_restart_begins_a_segment_and_never_reuses_an_id(tmp_path: Path) -> None:
    first = LogWriter(tmp_path, "s1", "m")
    before = first.next_id()
    first.close()
    second = LogWriter(tmp_path, "s1", "m")
    assert second.next_id() != before
    assert second.has_issued(1, 1)
    assert second.has_issued(2, 1)
    assert not second.has_issued(2, 2)
    assert not second.has_issued(3, 1)
    second.next_id(3)
    second.next_id(0)
    assert [second.has_issued(2, 2, row) for row in (0, 2, 3)] == [True, True, False]
    assert not second.has_issued(2, 3)  # a refused request has an id in the log and no answer
    assert second.has_issued(1, 999, 7)  # what an earlier run answered is not known here
    second.close()
    assert [number for number, _ in segments(tmp_path)] == [1, 2]


def test_rotation_keeps_every_record(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "s1", "m", segment_bytes=200)
    ids = []
    for _ in range(20):
        ids.append(writer.next_id())
        assert writer.write([frame(responded(ids[-1]))])
    assert writer.durability().result(5)
    writer.close()
    assert len(segments(tmp_path)) > 1
    assert [record.id for record in kept_in(tmp_path)] == ids


def test_a_number_stays_taken_when_its_segment_was_removed(tmp_path: Path) -> None:
    """Ids are never given twice, whatever makes room in the directory."""
    given = set()
    for _ in range(3):
        writer = LogWriter(tmp_path, "s1", "m")
        given.add(writer.next_id())
        writer.close()
        for _, path in segments(tmp_path):
            path.unlink()
    assert len(given) == 3
    (tmp_path / "newest").write_text("x", encoding="ascii")
    with pytest.raises(IntegrityError, match="no id is issued twice"):
        LogWriter(tmp_path, "s1", "m")


def test_a_full_disk_drops_and_leaves_no_torn_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: predictions go on, drops are seen, and what follows the recovery is readable."""
    writer = LogWriter(tmp_path, "s1", "m")
    assert writer.write([frame(responded("s1-1-1"))])
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 20:
            real(fd, data[:20])  # a short write, as a disk gives that fills up in the middle
            return 20
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(log_writer.os, "write", full)
    assert not writer.write([frame(responded("s1-1-2"))])
    monkeypatch.undo()
    assert writer.write([frame(responded("s1-1-3"))])
    writer.close()
    assert kept_in(tmp_path) == [responded("s1-1-1"), responded("s1-1-3")]


def test_a_writer_that_starts_on_a_full_disk_drops_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No id of before the first segment is issued, whichever request finds the room."""
    before = LogWriter(tmp_path, "s1", "m")
    kept = before.next_id()
    assert before.write([frame(responded(kept))])
    before.close()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(log_writer, "record_newest", full)
        writer = LogWriter(tmp_path, "s1", "m")
        assert "No space" in writer.error
        assert not writer.write([frame(responded(writer.next_id()))])
        writer.drop(1)
    monkeypatch.setattr(log_writer, "_IDLE_SECONDS", 0.0)
    writer._retry_at = 0.0
    assert not writer.write([frame(responded(writer.next_id()))]), "its id is of before"
    made = writer.next_id()
    assert writer.write([frame(responded(made))])
    assert (writer.error, made.partition(".")[0]) == ("", "s1-2-1")
    assert writer.durability().result(5)
    writer.close()
    assert [record.id for record in kept_in(tmp_path)] == [kept, made]


def test_a_full_directory_takes_nothing_more(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "s1", "m", segment_bytes=300, directory_bytes=900)
    taken = [writer.write([frame(responded(f"s1-1-{number}"))]) for number in range(30)]
    writer.close()
    assert taken[0]
    assert not taken[-1]
    assert len(kept_in(tmp_path)) == sum(taken)


WRITER = """
import sys
from pathlib import Path
from holdfast.store.serving.prediction_log import PredictionRecord, frame
from holdfast.store.serving.log_writer import LogWriter
from tests.support import forking
writer = LogWriter(Path(sys.argv[1]), "s1", "m", segment_bytes=20_000)
while True:
    made = writer.next_id()
    writer.write([frame(PredictionRecord(made, 1, 1, b"", "champion", "v", "", None, "ok", 1, [0.5], [[1.0, "a"]]))])
    print(made, flush=True)
"""


@pytest.mark.process
@pytest.mark.crash
def test_every_acknowledged_record_survives_sigkill(tmp_path: Path) -> None:
    """P1 for the log: the id is printed only after `write` returned."""
    for _ in range(3):
        process = forking.start(WRITER, tmp_path)
        acknowledged = [process.stdout.readline().strip() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.wait()
        process.stdout.close()
        assert set(acknowledged) <= {record.id for record in kept_in(tmp_path)}
