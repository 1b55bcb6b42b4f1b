"""A user's own project, by commands alone: each runs as a process in the project's directory."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.cli.demo.sandbox import free_port
from tests.support.processes import PYTHONPATH
from tests.support.waiting import wait_until


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
        ports = {"HOLDFAST_PORT": str(self.port), "HOLDFAST_PAGE_PORT": str(self.page_port)}
        return own | ports | {"PYTHONPATH": PYTHONPATH}

    def run(self, *arguments: str) -> str:
        """Run a command to its end and return what it printed."""
        return self._run(arguments, 0).stdout

    def refused(self, *arguments: str, expect: int) -> str:
        """Run a command that is refused with exit status `expect`, and return the error that it printed."""
        return self._run(arguments, expect).stderr

    def _run(self, arguments: tuple[str, ...], expect: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", *arguments],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def document(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.run(*arguments, "--json"))

    @contextmanager
    def running(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command that goes on until it is ended, and end it."""
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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
        except OSError:
            return 0, {}
        finally:
            connection.close()
        return response.status, json.loads(content) if content.startswith(b"{") else {}

    def wait_for_server(self, model: str) -> None:
        """Wait until the server of `model` is ready."""
        wait_until(lambda: self.request("GET", f"/v2/models/{model}/ready")[0] == 200, "the server is ready")
