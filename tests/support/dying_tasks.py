"""Tasks that kill the process that runs them. A module of its own, so that a new process imports nothing else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def once(task: tuple[str, int]) -> int:
    """The number; the first process to run a third one dies."""
    directory, number = task
    mark = Path(directory) / f"died-{number}"
    if number % 3 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always(_number: int) -> int:
    """Nothing."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def slowly(_number: int) -> int:
    """The process that did it, after a while."""
    time.sleep(0.3)
    return os.getppid()
