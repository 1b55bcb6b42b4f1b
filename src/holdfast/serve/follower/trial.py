"""Try the file of a version in a process that may die, once, before it is loaded in the process that serves.

A graph may loop for ever or allocate without end, and ONNX Runtime cannot be interrupted. The gates try a version too,
but a server also loads what reached its plan in another way. A file that passed is remembered by its digest and the
release of ONNX Runtime, next to the local copy, so that a server starts again without a trial.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import onnxruntime

from holdfast.errors import IntegrityError
from holdfast.serve.follower import trial_worker
from holdfast.store.durability.fsync import make_directory, replace

CPU_SECONDS: Final = 20
"""Processor time of a trial: importing ONNX Runtime, loading the file and running it three times."""
WALL_SECONDS: Final = 120.0
MEMORY_BYTES: Final = 2 << 30
"""Memory that a version may take, besides `TIMES_FILE` times its file."""
TIMES_FILE: Final = 4
REPEATED_SECONDS: Final = 600.0
"""A file that was refused is not tried again for so long."""
RETRY_SECONDS: Final = 10.0
"""A trial that did not come to an end is not repeated for so long: each one holds up the plans after it."""
_TRIED: Final = "tried.json"
_MOST_TRIED: Final = 50
_WORDS_OF_ERRORS: Final = 500

_log = logging.getLogger(__name__)


class Trials:
    """The files of versions that were tried.

    Parameters
    ----------
    directory
        That of the local copy; a file there names what passed.
    cpu_seconds, memory_bytes
        The limits of a trial.
    monotonic
        Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        directory: Path,
        *,
        cpu_seconds: int = CPU_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = directory / _TRIED
        self._cpu_seconds, self._memory_bytes, self._monotonic = cpu_seconds, memory_bytes, monotonic
        self._passed: list[str] | None = None
        self._refused: dict[str, tuple[str, float]] = {}

    def require(self, name: str, digest: str, data: bytes) -> None:
        """Raise `IntegrityError` HF301 unless a process of its own can load and run `data`, now or in an earlier trial.

        Parameters
        ----------
        name
            The version, for messages.
        digest
            SHA-256 of `data`, hexadecimal.
        """
        key = f"{digest} {onnxruntime.__version__}"
        if key in self._known():
            return
        why, until = self._refused.get(key, ("", 0.0))
        if self._monotonic() < until:
            raise _unusable(why)
        why, is_final = self._try(name, digest, data)
        if why:
            seconds = REPEATED_SECONDS if is_final else RETRY_SECONDS
            self._refused[key] = why, self._monotonic() + seconds
            raise _unusable(why)
        self._keep(key)

    def _try(self, name: str, digest: str, data: bytes) -> tuple[str, bool]:
        """Return why the file cannot be used, empty if it can; and whether another trial would end alike."""
        memory_bytes = self._memory_bytes + TIMES_FILE * len(data)
        arguments = (name, digest, str(self._cpu_seconds), str(memory_bytes))
        search = [entry for entry in sys.path if entry and not entry.endswith(".zip")]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", trial_worker.__name__, *arguments],
                input=data,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PYTHONPATH": os.pathsep.join(search), "LC_ALL": "C.UTF-8"} | _libraries(),
                timeout=WALL_SECONDS,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"version {name}: loading and running it ended by its limit of {WALL_SECONDS:g} s", False
        except OSError as error:
            return f"version {name}: no process could be started to try it ({error.strerror})", False
        errors = done.stderr[-_WORDS_OF_ERRORS:].decode("utf-8", "replace").strip()
        if done.returncode == trial_worker.REFUSED:
            return errors, True
        if done.returncode < 0:
            ended = signal.Signals(-done.returncode).name
            limits = f"{self._cpu_seconds} s of processor time and {memory_bytes:,} bytes of memory"
            return (
                f"version {name}: loading and running it was ended by {ended}; its limits are {limits}",
                True,
            )
        if done.returncode:
            return (
                f"version {name}: trying it ended with status {done.returncode} ({errors or 'no output'})",
                False,
            )
        return "", True

    def _known(self) -> list[str]:
        if self._passed is None:
            try:
                self._passed = msgspec.json.decode(self._path.read_bytes(), type=list[str])
            except (OSError, msgspec.MsgspecError):  # only what another trial would find out again
                self._passed = []
        return self._passed

    def _keep(self, key: str) -> None:
        self._passed = [*self._known(), key][-_MOST_TRIED:]
        try:
            make_directory(self._path.parent)
            replace(self._path, msgspec.json.encode(self._passed))
        except OSError as error:
            _log.warning("the next start tries its versions again: %s", error)


def _unusable(why: str) -> IntegrityError:
    return IntegrityError("HF301", why, state="the server goes on with its current plan")


def _libraries() -> dict[str, str]:
    """Return where the loader of this process finds shared libraries, if that is set: without them nothing is imported."""
    found = os.environ.get("LD_LIBRARY_PATH")
    return {} if found is None else {"LD_LIBRARY_PATH": found}
