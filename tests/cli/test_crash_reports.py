"""Reports of unexpected errors: bounded in number and size, and no reason to fail."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path

import polars as pl
import pytest

from holdfast.cli import app, crash_reports


def test_a_command_that_is_restarted_for_ever_leaves_the_newest_reports_only(tmp_path: Path) -> None:
    other = tmp_path / "holdfast-notes.log"
    other.write_text("mine")
    written = []
    for number in range(crash_reports.KEPT + 5):
        path = crash_reports.write(RuntimeError(f"number {number}"), tmp_path)
        os.utime(path, ns=(number, number))
        written.append(path)
    left = {path for path in tmp_path.iterdir() if path != other}
    assert left == set(written[-crash_reports.KEPT :])
    assert other.read_text() == "mine"
    assert "number 24" in written[-1].read_text()
    assert written[-1].stat().st_mode & 0o777 == 0o600


def test_a_report_has_a_bounded_size(tmp_path: Path) -> None:
    text = crash_reports.write(RuntimeError("x" * 10**6 + "the end"), tmp_path).read_text()
    assert len(text) <= crash_reports.REPORT_BYTES
    assert "bytes are left out" in text
    assert text.rstrip().endswith("the end")


def test_a_panic_of_a_library_is_reported_as_any_other_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def panic(**_options: object) -> int:
        raise pl.exceptions.PanicException("out of bounds")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["holdfast", "ingest"])
    monkeypatch.setattr(app, "app", panic)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 70
    assert "HF901 PanicException: out of bounds" in capsys.readouterr().err
    assert "out of bounds" in next(tmp_path.iterdir()).read_text()


def test_an_error_that_an_interruption_causes_is_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the wait of a lock: it was released, and what ends the wait releases it again."""

    def wait(**_options: object) -> int:
        lock = threading.Lock()
        with lock:
            lock.release()
            raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["holdfast", "demo"])
    monkeypatch.setattr(app, "app", wait)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; committed work is kept, the rest was rolled back\n"
    assert list(tmp_path.iterdir()) == []
