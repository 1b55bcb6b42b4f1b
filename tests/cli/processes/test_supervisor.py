"""A group of processes: its logs have a bound while the children write on."""

from __future__ import annotations

import sys
from pathlib import Path

from holdfast.cli.processes.supervisor import Group
from tests.support.waiting import wait_until

WRITES = "import sys, time\nwhile True:\n    print('line ' * 40, flush=True); time.sleep(0.001)"


def test_the_log_of_a_child_that_writes_for_ever_is_bounded(tmp_path: Path) -> None:
    program = (sys.executable, "-c", WRITES)
    with Group({"serve": ["serve"]}, tmp_path, programs={"serve": program}) as group:
        log = group.log("serve")
        for _ in range(3):
            wait_until(lambda: log.stat().st_size >= 4000)
            group.rotate_logs(4000)
            assert log.stat().st_size < 4000
            assert (tmp_path / "serve.log.1").read_text().startswith("line")
        wait_until(lambda: log.stat().st_size > 0)
    assert {path.name for path in tmp_path.iterdir()} == {"serve.log", "serve.log.1"}


def test_on_a_full_disk_a_log_is_dropped(tmp_path: Path) -> None:
    group = Group({"serve": ["serve"]}, tmp_path)
    group.log("serve").write_bytes(b"x" * 5000)
    (tmp_path / "serve.log.1").mkdir()  # nothing can be written there
    group.rotate_logs(4000)
    assert group.log("serve").stat().st_size == 5000, "and what cannot be removed stops nothing"
    (tmp_path / "serve.log.1").rmdir()
    group.rotate_logs(4000)
    assert group.log("serve").stat().st_size == 0
