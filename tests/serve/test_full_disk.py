"""A disk that is full to the last byte: a server that was killed starts, responds, counts what it drops, and logs again."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from holdfast.store.serving.log_directory import all_of, segments
from holdfast.store.serving.prediction_log import PredictionRecord, read
from tests.support.serving_world import Served, World
from tests.support.waiting import wait_until

Start = Callable[..., Served]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 50 MB, where this user may mount one."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def world(disk: Path) -> World:
    world = World(disk / "store")
    world.version("half")
    world.plan("half")
    return world


def fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as filler:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while filler.write(b"x" * size) == size:
                    pass


def prediction(served: Served) -> str | None:
    status, body = served.infer()
    assert status == 200
    found: str | None = body["parameters"].get("prediction_id")
    return found


@pytest.mark.process
def test_a_server_that_died_on_a_full_disk_starts_there_and_logs_when_there_is_room(
    disk: Path, world: World, serve: Start
) -> None:
    served = serve()
    served.wait(lambda _: any(disk.glob("store/serve/*/plan.json")))
    acknowledged = [prediction(served) for _ in range(5)]
    fill(disk)
    served.stop(signal.SIGKILL)
    fill(disk)
    served = serve()
    assert [prediction(served) for _ in range(3)] == [None, None, None]
    status = served.wait(lambda status: status["log_dropped"] >= 3)
    assert "No space" in status["log_error"]
    (disk / "filler").unlink()
    acknowledged.append(wait_until(lambda: prediction(served), "a logged prediction"))
    assert served.wait(lambda status: not status["log_error"])["log_dropped"] >= 3
    kept = {
        record.id
        for directory in all_of(world.root)
        for _, path in segments(directory)
        for record in read(path)[0]
        if isinstance(record, PredictionRecord)
    }
    assert set(acknowledged) <= kept
