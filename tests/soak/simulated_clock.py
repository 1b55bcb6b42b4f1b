"""A wall clock that every process of a run shares and that can be set: for weeks of a product's life in minutes.

The processes load a small library (simulated_clock.c) that adds an offset to the wall clock, read from memory that they share.
So all of them see a new time at once. Monotonic clocks, sleeps and time limits stay real: between two settings a second lasts
a second. To the processes a setting looks like the wake-up of a machine that was suspended.

`libfaketime` was tried first. It moves monotonic clocks too, which ends waits that are under way. With
FAKETIME_DONT_FAKE_MONOTONIC=1 `time.sleep` of Python 3.11 fails, and each process notices a new time a second or two later.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class SimulatedClock:
    """The clock of a run, set from the process that made it; `environment` is for those that it starts."""

    def __init__(self, directory: Path, at: datetime) -> None:
        compiler = shutil.which("cc")
        assert compiler, "the simulated clock needs a C compiler"
        library, shared = directory / "simulated_clock.so", directory / "clock"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        shared.write_bytes(bytes(8))
        self._file = shared.open("r+b")
        self._offset = mmap.mmap(self._file.fileno(), 8)
        self.environment = {"LD_PRELOAD": os.fspath(library), "SIMULATED_CLOCK": os.fspath(shared)}
        self.set(at)

    def set(self, at: datetime) -> None:
        """Make it `at` now, for every process."""
        offset_us = round((at.timestamp() - time.time()) * 1e6)
        self._offset[:] = struct.pack("=q", offset_us)

    def now(self) -> datetime:
        """Return the time by this clock."""
        (offset_us,) = struct.unpack("=q", self._offset[:])
        return datetime.fromtimestamp(time.time() + offset_us / 1e6, UTC)
