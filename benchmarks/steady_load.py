"""A client in a process of its own that asks at a steady rate and writes down which version answered each request."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field

from tests.support.serving_world import MODEL, row, tensors

CLIENT = """
import http.client, json, sys, threading, time
where, path, rate, threads = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
body = sys.stdin.readline().encode()
lock = threading.Lock()
def run(number):
    connection = http.client.HTTPConnection(where, timeout=20)
    count = 0
    while True:
        count += 1
        text = body.replace(b'"UNIT"', b'"%d-%d"' % (number, count))
        sent = time.monotonic()
        try:
            connection.request("POST", path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            status, version = answer.status, json.loads(content).get("model_version", "-")
        except Exception as error:
            status, version = 599, type(error).__name__
            connection.close()
        with lock:
            sys.stdout.write(f"{sent:.6f} {status} {version} {1000 * (time.monotonic() - sent):.3f}\\n")
            sys.stdout.flush()
        time.sleep(max(0.0, threads / rate - (time.monotonic() - sent)))
for number in range(threads):
    threading.Thread(target=run, args=(number,)).start()
"""


@dataclass
class Load:
    """A client process and what it was answered: when each request was sent, its status, the version."""

    process: subprocess.Popen[str]
    bad: str
    answers: list[tuple[float, int, str]] = field(default_factory=list)
    durations_ms: list[float] = field(default_factory=list)
    """Of each answer, in the same order."""
    reader: threading.Thread | None = None

    @classmethod
    def start(cls, address: str, rate: float, bad: str) -> Load:
        command = [sys.executable, "-c", CLIENT, address.removeprefix("http://"), f"/v2/models/{MODEL}/infer"]
        process = subprocess.Popen(
            [*command, str(rate), "4"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({**tensors([row()]), "parameters": {"unit": "UNIT"}}) + "\n")
        process.stdin.flush()
        load = cls(process, bad)
        load.reader = threading.Thread(target=load._read, daemon=True)
        load.reader.start()
        return load

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.reader is not None:
            self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            sent, status, version, duration_ms = line.split()
            self.durations_ms.append(float(duration_ms))
            self.answers.append((float(sent), int(status), version))
