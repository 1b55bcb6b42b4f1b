"""Nudges between processes: what is waiting learns of a change at once, and what has died is in no one's way."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

from holdfast.store.durability import access
from holdfast.store.durability.nudges import Listener, nudge
from tests.support.processes import PYTHONPATH
from tests.support.waiting import wait_until

LONG = 60.0
"""Longer than any test may take: what waits so long was not nudged."""


def nudge_from_another_process(directory: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from holdfast.store.durability.nudges import nudge; "
        "nudge(Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True, env=environment)


def test_every_listener_of_a_directory_is_nudged_and_takes_all_nudges_together(tmp_path: Path) -> None:
    first, second = Listener(tmp_path / "nudges"), Listener(tmp_path / "nudges")
    assert first.is_nudged
    nudge_from_another_process(tmp_path / "nudges")
    assert nudge(tmp_path / "nudges") == 2
    for listener in (first, second):
        assert listener.wait(LONG)
        assert not listener.wait(0.0)
        listener.close()
    assert list((tmp_path / "nudges").iterdir()) == []
    assert nudge(tmp_path / "nudges") == 0


def test_a_nudge_before_the_wait_is_not_lost_and_another_thread_may_wake(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "nudges")
    woken = list[bool]()
    waiting = threading.Thread(target=lambda: woken.append(listener.wait(LONG)))
    waiting.start()
    listener.wake()
    waiting.join(60)
    assert woken == [True]
    listener.close()
    listener.wake()  # another file may have the descriptor by now
    listener.close()


def test_the_pipe_of_a_process_that_was_killed_is_removed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from holdfast.store.durability.nudges import Listener; "
        "kept = Listener(Path(sys.argv[1])); time.sleep(600)"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": PYTHONPATH}
    )
    try:
        wait_until(lambda: nudge(tmp_path) == 1, "the process listens")
    finally:
        killed.kill()
        killed.wait()
    assert nudge(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_that_is_full_of_nudges_holds_no_one_up(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    with Path(next(tmp_path.iterdir())).open("r+b", buffering=0) as pipe:
        os.set_blocking(pipe.fileno(), False)
        while pipe.write(b"\0" * 4096):
            pass
    assert nudge(tmp_path) == 1
    listener.wake()
    assert listener.wait(0.0)
    assert not listener.wait(0.0)
    listener.close()


def test_a_file_in_place_of_a_pipe_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.nudge").write_bytes(b"kept")
    (tmp_path / "b.nudge").symlink_to(tmp_path / "a.nudge")
    (tmp_path / "c.nudge").mkdir()
    assert nudge(tmp_path) == 0
    assert (tmp_path / "a.nudge").read_bytes() == b"kept"


def test_a_directory_that_takes_no_pipe_leaves_a_listener_that_only_its_process_wakes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    listener = Listener(tmp_path / "file")
    assert not listener.is_nudged
    listener.wake()
    assert listener.wait(LONG)
    listener.close()


def test_no_other_user_may_nudge(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "nudges")
    [pipe] = (tmp_path / "nudges").iterdir()
    assert stat.S_IMODE(pipe.stat().st_mode) == access.file_mode()
    assert stat.S_IMODE((tmp_path / "nudges").stat().st_mode) == access.directory_mode()
    listener.close()
