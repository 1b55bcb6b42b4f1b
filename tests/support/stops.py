"""Callers that request predictions while servers stop and start, and count the requests that were sent and got no response."""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from holdfast.cli.commands.serving.processes import bound
from holdfast.cli.processes.supervisor import Group
from tests.support.processes import ROOT
from tests.support.serving_world import MODEL, row, tensors
from tests.support.waiting import wait_until

CALLERS: Final = 6
SERVE: Final = f"""
import argparse, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from holdfast.cli.processes.supervisor import end_with
from holdfast.serve.server import serve_forever
from holdfast.settings import Settings
parser = argparse.ArgumentParser()
parser.add_argument("root", type=Path)
parser.add_argument("port", type=int)
parser.add_argument("--exit-with-parent", type=int)
parser.add_argument("--fd", type=int)
parser.add_argument("--when-ready", action="store_true")
given = parser.parse_args()
end_with(given.exit_with_parent)
settings = Settings(given.root, f"sqlite:///{{given.root / 'ledger.db'}}", "127.0.0.1", given.port, 0)
serve_forever(settings, {MODEL!r}, linger_seconds=0.3, listening=given.fd, when_ready=given.when_ready)
"""
"""A program with the arguments that a group gives its server."""
PROGRAM: Final = (sys.executable, "-c", SERVE)


def group_on(root: Path, port: int) -> Group:
    """Return a group of one server that shares the group's socket."""
    return Group(
        {"serve": [str(root), str(port)]},
        root,
        programs={"serve": PROGRAM},
        listening=lambda: bound("127.0.0.1", port),
    )


@dataclass
class Callers:
    """Threads that request one prediction after the other; half of them on a new connection each time.

    A refused connection carried no request, so it is counted apart from the dropped ones.
    """

    port: int
    responses: int = 0
    refused: int = 0
    dropped: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Callers:
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for each in self._threads:
            each.join()

    def wait(self, requests: int) -> None:
        """Wait until so many further requests have a response."""
        target = self.responses + requests
        wait_until(lambda: self.responses >= target, f"{requests} responses")

    def wait_for_refusal(self) -> None:
        """Wait until the socket is closed for every caller."""
        target = self.refused + 2 * CALLERS
        wait_until(lambda: self.refused >= target, "refused connections")

    def _call(self, number: int) -> None:
        body = json.dumps(tensors([row()]))
        chance = random.Random(number)
        connection: http.client.HTTPConnection | None = None
        while not self._stopping.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    self.refused += 1
                    connection = None
                    time.sleep(0.01)
                    continue
            try:
                connection.request("POST", f"/v2/models/{MODEL}/infer", body)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                self.dropped.append(f"{type(error).__name__}: {error}")
                connection.close()
                connection = None
                continue
            if response.status != 200:
                self.dropped.append(f"status {response.status}")
            self.responses += 1
            if response.will_close or number % 2 or chance.random() < 0.1:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


def free_port() -> int:
    """Return a port that is free now."""
    found = bound("127.0.0.1", 0)
    assert found is not None
    with found:
        return int(found.getsockname()[1])
