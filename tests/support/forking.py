"""Processes of tests that are forked from one that has imported Holdfast already, instead of importing it anew.

A new interpreter takes two seconds of a core to import what a server or a loader needs; a test of what a process does when
it is killed needs a process, and not those two seconds. Instead of `python -c CODE ROOT`:

    process = forking.start(CODE, root)
    output, errors = process.communicate()

The parent of these processes computes nothing and starts no thread, so that a fork copies no lock that is held.
Processes that a user starts (`holdfast up`, the demonstration, drills) are started as a user does.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from tests.support.processes import PYTHONPATH

PRELOADED: Final = (
    "holdfast.serve.server",
    "holdfast.control.collect.collector",
    "tests.support.backout_world",
    "tests.support.loader",
    "tests.support.postgres_loader",
)
_BYTES: Final = 1 << 17
_FDS: Final = 2
_POLL_SECONDS: Final = 0.004
_ONE_THREAD: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Process:
    """A forked process, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, parent: _Parent, pid: int, stdout: IO[str], stderr: IO[str] | None) -> None:
        self._parent = parent
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self.wait()

    def poll(self) -> int | None:
        """Return how it ended, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._parent.request({"poll": self.pid})["status"]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends, and return how. Raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read its output to the end, wait until it ends, and return what it wrote to stdout and to stderr."""
        output = self.stdout.read()
        errors = "" if self.stderr is None else self.stderr.read()
        self._close()
        self.wait(timeout)
        return output, errors

    def _close(self) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class _Parent:
    """The process that the others are forked from, and the questions to it."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.support.forking", str(its.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            env=os.environ | {"PYTHONPATH": PYTHONPATH} | dict.fromkeys(_ONE_THREAD, "1"),
        )  # fmt: skip
        its.close()

    def request(self, question: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(question).encode()], fds)
            response: dict[str, Any] = json.loads(self._socket.recv(_BYTES))
        return response

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@functools.cache
def _parent() -> _Parent:
    return _Parent()


def start(code: str, *arguments: object, stderr: int | IO[str] | None = None) -> Process:
    """Start a process that runs `code` with `arguments` as its `sys.argv[1:]`; its output is read from `stdout`.

    `stderr` is a file, `subprocess.PIPE`, or that of this process.
    """
    task = {
        "code": code, "arguments": [str(each) for each in arguments],
        "environment": dict(os.environ), "directory": os.getcwd(),
    }  # fmt: skip
    parent = _parent()
    reading, writing = os.pipe()
    errors_reading, errors_writing = os.pipe() if stderr == subprocess.PIPE else (-1, -1)
    if errors_writing < 0:
        errors = 2 if stderr is None else stderr if isinstance(stderr, int) else stderr.fileno()
    else:
        errors = errors_writing
    try:
        pid = parent.request(task, [writing, errors])["pid"]
    finally:
        for each in (writing, errors_writing):
            if each >= 0:
                os.close(each)
    stdout, stderr_read = (
        None if each < 0 else os.fdopen(each, encoding="utf-8") for each in (reading, errors_reading)
    )
    assert stdout is not None
    return Process(parent, pid, stdout, stderr_read)


def run_at_once(code: str, arguments: Iterable[Sequence[object]], go: Path) -> list[int]:
    """Run a process of `code` for each of `arguments`, all at the same time; return how they ended.

    They wait for the file `go`, which is made when all are there.
    """
    waiting = (
        f"import pathlib, time\ngo = pathlib.Path({str(go)!r})\nprint(flush=True)\n"
        "while not go.exists():\n    time.sleep(0.0005)\n"
    )
    processes = [start(waiting + code, *each) for each in arguments]
    for process in processes:
        process.stdout.readline()
    go.touch()
    for process in processes:
        process.communicate()
    return [process.wait() for process in processes]


def stop() -> None:
    """End the process that the others are forked from, if there is one."""
    if _parent.cache_info().currsize:
        _parent().close()
        _parent.cache_clear()


def _run(task: dict[str, Any], fds: Sequence[int]) -> int:
    """Do the task in this process, which was forked for it; its exit status."""
    os.dup2(fds[0], 1)
    os.dup2(fds[1], 2)
    os.environ.clear()
    os.environ.update(task["environment"])
    os.chdir(task["directory"])
    sys.argv = ["-c", *task["arguments"]]
    try:
        exec(task["code"], {"__name__": "__main__"})
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _status_of(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main(descriptor: str) -> None:
    """Fork a process for each task that comes."""
    questions = socket.socket(fileno=int(descriptor))
    for name in _ONE_THREAD:
        os.environ.pop(name)
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            content, fds, _, _ = socket.recv_fds(questions, _BYTES, _FDS)
            if not content:
                return
            question = json.loads(content)
            if "poll" in question:
                response = {"status": _status_of(question["poll"])}
            else:
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        questions.close()
                        status = _run(question, fds)
                    finally:
                        with contextlib.suppress(OSError, ValueError):
                            sys.stdout.flush()
                        os._exit(status)
                for each in fds:
                    os.close(each)
                response = {"pid": pid}
            questions.send(json.dumps(response).encode())


if __name__ == "__main__":
    main(sys.argv[1])
