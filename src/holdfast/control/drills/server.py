"""Server process of a drill, on a copy of the store."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from holdfast.control.drills.live import Workspace
from holdfast.control.http.server_client import FAILURES, ServerClient
from holdfast.errors import UnavailableError
from holdfast.store.serving.servers import Server

START_SECONDS: Final = 30.0
"""How long the server may take to start."""
NOTICE_SECONDS: Final = 10.0
"""How long it may take to notice the failure."""


class Child:
    """A server process on the copy; it is killed at the end, and exits when its parent does."""

    def __init__(self, workspace: Workspace, root: Path) -> None:
        own = {
            "HOLDFAST_ROOT": str(root),
            "HOLDFAST_LEDGER": "",
            "HOLDFAST_HOST": "127.0.0.1",
            "HOLDFAST_PORT": "0",
        }
        self._model = workspace.model.name
        self._errors = (root.parent / "server.log").open("ab")
        try:
            self._process = subprocess.Popen(
                workspace.serve,
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as error:
            self._errors.close()
            raise UnavailableError(
                "HF506",
                f"starting the server on the copy failed: {error}",
                state="nothing was drilled",
                next_command="holdfast verify",
            ) from error
        self.server = Server("drill", self._model, "", root, 0)

    def __enter__(self) -> Child:
        printed: list[str] = []
        stdout = self._process.stdout
        assert stdout is not None, "a pipe was requested"
        listening = threading.Thread(target=lambda: printed.append(stdout.readline()), daemon=True)
        listening.start()
        listening.join(START_SECONDS)
        address = printed[0].split()[-1] if printed and printed[0].strip() else ""
        if not address.startswith("http"):
            self.__exit__()
            raise UnavailableError(
                "HF506",
                f"starting the server on the copy failed: it did not report its address within {START_SECONDS:g} s",
                state="nothing was drilled",
                next_command="holdfast verify",
            )
        self.server = replace(self.server, address=address)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def wait(self, holds: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """Return the server's status once it `holds`. Raises `UnavailableError` HF506 when it does not in time."""
        until = time.monotonic() + seconds
        status: dict[str, Any] = {}
        while time.monotonic() < until:
            try:
                with ServerClient(self.server) as client:
                    status = client.status()
                if holds(status):
                    return status
            except FAILURES:
                pass  # it may still be starting, until the deadline
            time.sleep(0.02)
        raise UnavailableError(
            "HF506",
            f"waiting for the server of the drill failed after {seconds:g} s: {status.get('ledger_error') or status}"[
                :400
            ],
            state="the drill was ended",
            next_command="holdfast events, then the same drill again",
        )

    def failed(self, count: int, bodies: Sequence[str] = ()) -> int:
        """Return how many of `count` requests, probes without `bodies`, got no response of a version."""
        failed = 0
        with ServerClient(self.server) as client:
            for number in range(count):
                try:
                    response = client.infer(bodies[number]) if bodies else client.probe()
                    failed += "model_version" not in response
                except FAILURES:
                    failed += 1
                    client.close()
        return failed
