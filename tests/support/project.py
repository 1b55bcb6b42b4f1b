"""A user's own project, by commands alone: run in this process, and those that go on until they are ended as processes."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from holdfast.cli.app import main
from holdfast.cli.demo.sandbox import free_port
from tests.support.processes import PYTHONPATH
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Finished:
    """The exit status of a command and what it printed."""

    status: int
    stdout: str
    stderr: str


def run_here(arguments: tuple[str, ...], directory: Path, environment: Mapping[str, str]) -> Finished:
    """Run `holdfast ARGUMENTS` in `directory`, as a process would, but in this one: a new one imports for a second."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    mask = os.umask(0o022)
    os.umask(mask)
    with (
        contextlib.chdir(directory),
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", ["holdfast", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os.umask(mask)  # a command restricts the files of its process
    return Finished(status, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Project:
    """The directory of a project, and the ports of its processes."""

    directory: Path
    port: int = field(default_factory=lambda: free_port(0))
    page_port: int = field(default_factory=lambda: free_port(0))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        ports = {
            "HOLDFAST_PORT": str(self.port),
            "HOLDFAST_PAGE_PORT": str(self.page_port),
            "HOLDFAST_CONTROL_PORT": "0",
        }
        return own | ports | {"PYTHONPATH": PYTHONPATH}

    def run(self, *arguments: str) -> str:
        """Run a command to its end and return what it printed."""
        return self._run(arguments, 0).stdout

    def refused(self, *arguments: str, expect: int) -> str:
        """Run a command that is refused with exit status `expect`, and return the error that it printed."""
        return self._run(arguments, expect).stderr

    def _run(self, arguments: tuple[str, ...], expect: int) -> Finished:
        done = run_here(arguments, self.directory, self.environment)
        assert done.status == expect, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def document(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.run(*arguments, "--json"))

    @contextmanager
    def running(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command that goes on until it is ended, as a process, and end it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", command],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request to the server; status 0 when there is none."""
        return send(self.port, method, path, body)

    def page(self, path: str) -> tuple[int, Any]:
        """Read `path` of the page; status 0 when there is none."""
        return send(self.page_port, "GET", path)

    def wait_for_server(self, model: str) -> None:
        """Wait until the server of `model` is ready."""
        wait_until(lambda: self.request("GET", f"/v2/models/{model}/ready")[0] == 200, "the server is ready")


def send(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Send a request to `port` of this machine; status 0 when no process listens there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        content = response.read()
    except OSError:
        return 0, {}
    finally:
        connection.close()
    return response.status, json.loads(content) if content.startswith(b"{") else {}
