"""A delivery is refused before the system ends the process that reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.store.sources import postgres_query
from holdfast.store.sources.memory import Memory, TooLargeError
from holdfast.store.sources.memory_room import KEPT_BYTES, find_room

GIB = 1 << 30
LOADS = """
import resource, sys
from pathlib import Path
from holdfast.store.sources.csv_reader import read_csv
from holdfast.store.sources.delivery import Bundle, File, Kind, reading
data = Path(sys.argv[1]).read_bytes()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), used + (400 << 20)))
source = Bundle("rows.csv", (File("rows.csv", Kind.CSV, data),), True)
with reading(source, source.files[0]):
    read_csv(data, ",", source.memory())
"""


def process(directory: Path, cgroup: str) -> Path:
    made = directory / "self"
    made.mkdir()
    (made / "cgroup").write_text(cgroup)
    return made


def group(directory: Path, files: dict[str, object]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_text(f"{content}\n")


def test_a_control_group_of_version_2_and_its_parents_leave_room(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    group(
        groups / "app",
        {"memory.max": 2 * GIB, "memory.current": GIB, "memory.stat": f"anon 5\ninactive_file {GIB // 4}"},
    )
    group(
        groups / "app" / "worker",
        {"memory.max": "max", "memory.current": GIB, "memory.stat": "inactive_file 0"},
    )
    found = find_room(process(tmp_path, "0::/app/worker\n"), groups)
    assert found is not None
    assert found.left_bytes == GIB + GIB // 4 - KEPT_BYTES, "cached files are given back"
    assert "control group" in found.limit


def test_a_control_group_of_version_1_leaves_room(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    files = {
        "memory.limit_in_bytes": GIB,
        "memory.usage_in_bytes": 3 * GIB // 4,
        "memory.stat": "total_inactive_file 0",
    }
    group(groups / "memory", files)  # the name is that outside of the container
    found = find_room(process(tmp_path, "8:pids:/\n4:memory:/docker/abc\n"), groups)
    assert found is not None
    assert found.left_bytes == GIB // 4 - KEPT_BYTES
    group(groups / "memory", files | {"memory.limit_in_bytes": 9223372036854771712})
    assert find_room(tmp_path / "self", groups) is None


def test_a_system_without_such_files_limits_nothing(tmp_path: Path) -> None:
    assert find_room(tmp_path, tmp_path) is None


def test_a_delivery_is_refused_that_fits_its_limit_and_not_the_address_space(tmp_path: Path) -> None:
    """Its file was called unreadable, or the process was ended by SIGABRT without a message."""
    file = tmp_path / "rows.csv"
    file.write_text("id,note\n" + "".join(f"{number},{'x' * 1000}\n" for number in range(150_000)))
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, (done.returncode, done.stderr[-500:])
    assert "HF201: the source rows.csv would take more than the" in done.stderr
    assert "raise ulimit -v" in done.stderr


def test_the_reader_of_a_database_that_a_signal_ended_is_reported() -> None:
    done = subprocess.CompletedProcess[bytes]([], -6, b"", b"memory allocation of 5 bytes failed")
    error = postgres_query._why("db query 1", "postgresql://h/d", done, 100)
    assert error.code == "HF209"
    assert "SIGABRT ended the reader" in str(error)
    assert "ulimit -v" in error.next_command


def test_what_is_resident_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.store.sources.memory.find_room", lambda: None)
    assert Memory(1000, 500).left_bytes == 1500
    with pytest.raises(TooLargeError):
        Memory(1000, 2001)
