"""Ten times more of the largest legal requests than the server can answer, and 2,000 connections, half of them idle or slow.

A server process has a good client at a steady rate and is rolled back again and again: by the abort endpoint and by the
command `holdfast rollback`, each until a probe was answered by the version before. First quiet, then while another process
floods it with requests of the most rows, at ten times the rate that one connection reaches alone. That process also holds
connections that send nothing, or a request byte by byte.

`good_p99_ratio` is the good client's p99 under the flood over its quiet p99, `failed_good` its requests without status 200.
`rollback_ms` is the longest roll-back under the flood less the median of the quiet ones: of the endpoint from the request, of
the command from its decision, as it prints it. `command_ms` is the same for the whole process of the command, which mostly
imports, and shares the cores with the flood.

`shed_ms` is the p99 from the connect of a large request to its 429. The flood waits for cores itself, so its own times are no
measure: a process of its own sends few large requests (`SHED_PROBE`), after a GET of `/v2/health/live` that takes the same way
to the server. `live_ms` is the p99 of that.

Run: python -m benchmarks.overload
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.command import Command
from benchmarks.failing_ledgers import Ledger
from benchmarks.rollback import SERVER, SOURCE, Ground, ground
from holdfast.serve.protocol.oip import MAX_ROWS
from holdfast.store.db.ledger import sqlite_url
from holdfast.store.serving import aborts, local_servers
from tests.support.serving_world import MODEL, row, tensors

TOKEN: Final = "a-token-of-the-overload-benchmark"
WITH_TOKEN: Final = SERVER.replace('"127.0.0.1", 0, 0)', f'"127.0.0.1", 0, 0, abort_token="{TOKEN}")')
WAYS: Final = ("endpoint", "command")
PROBES: Final = ("/v2/health/live", "/v2/health/ready", "/metrics", "/holdfast/status")

FLOOD: Final = """
import asyncio, sys, time
host, port, path, file = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
held, flooding, rate = map(float, sys.argv[5:])
body = open(file, "rb").read()
large = b"POST %b HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: %d\\r\\n\\r\\n" % (path.encode(), len(body)) + body
async def idle(number):
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            if number % 2:  # idle: one request, then nothing
                writer.write(b"GET /v2/health/live HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
                while await reader.read(65536):
                    pass
            else:  # slow: a request byte by byte
                for byte in b"GET /v2/health/live HTTP/1.1\\r\\nHost: localhost\\r\\nX: " + b"y" * 60:
                    if reader.at_eof() or writer.is_closing():
                        break
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.5)
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(1)
async def flood(number):
    reader = writer = None
    begin = time.monotonic() + number / rate
    while True:
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        begin = max(begin + flooding / rate, time.monotonic())
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection(host, port)
            writer.write(large)
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            status = int(head[9:12])
            length = int(head.lower().split(b"content-length: ")[1].split(b"\\r\\n")[0])
            await reader.readexactly(length)
            ends = b"connection: close" in head.lower()
        except (OSError, asyncio.IncompleteReadError):
            status, ends = 0, True
        print(status, flush=True)
        if ends and writer is not None:
            writer.close()
            reader = writer = None
async def main():
    await asyncio.gather(*(idle(n) for n in range(int(held))), *(flood(n) for n in range(int(flooding))))
asyncio.run(main())
"""

SHED_PROBE: Final = """
import select, socket, sys, time
host, port, path, file, rate = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5])
body = open(file, "rb").read()
large = b"POST %b HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: %d\\r\\n\\r\\n" % (path.encode(), len(body)) + body
live = b"GET /v2/health/live HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"
def ask(wire):
    began, received, rest = time.monotonic(), b"", memoryview(wire)
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.setblocking(False)
        poll = select.poll()
        while b"\\r\\n\\r\\n" not in received:
            poll.register(connection, select.POLLIN | (select.POLLOUT if rest else 0))
            [(_, events)] = poll.poll()
            if events & ~select.POLLOUT:
                received += (part := connection.recv(65536))
                if not part:
                    return 0, 0.0
            elif events & select.POLLOUT:
                rest = rest[connection.send(rest[:65536]):]
        return int(received[9:12]), 1000 * (time.monotonic() - began)
while True:
    begin = time.monotonic()
    for name, wire in (("live", live), ("large", large)):
        try:
            status, took = ask(wire)
        except OSError:
            status, took = 0, 0.0
        print(f"{name} {status} {took:.2f}", flush=True)
    time.sleep(max(0.0, 1 / rate - (time.monotonic() - begin)))
"""
SHED_RATE: Final = 5.0
"""Large requests a second of the probe."""


@dataclass
class Phase:
    """What was measured in one phase."""

    good_ms: list[float] = field(default_factory=list)
    good_failed: int = 0
    command_ms: list[float] = field(default_factory=list)
    rollback_ms: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    failed_rollbacks: int = 0
    probe_ms: list[float] = field(default_factory=list)
    failed_probes: int = 0


def measure(played: Ground, project: Path, seconds: float, drills: int) -> Phase:
    """Let the good client ask for so long, with roll-backs and probes spread over the time."""
    phase = Phase()
    first, ends = len(played.load.answers), time.monotonic() + seconds
    for number in range(drills * len(WAYS)):
        way = WAYS[number % len(WAYS)]
        played.bring_to("promoted")
        if way == "endpoint":
            took_ms, done = by_endpoint(played)
        else:
            took_ms, done, whole_ms = by_command(played, project)
            phase.command_ms.append(whole_ms)
        played.agree()
        phase.rollback_ms[way].append(took_ms)
        phase.failed_rollbacks += not done
        probe(played, phase)
    while time.monotonic() < ends:
        probe(played, phase)
        time.sleep(0.2)
    phase.good_ms = played.load.durations_ms[first:]
    phase.good_failed = sum(status != 200 for _, status, _ in played.load.answers[first:])
    return phase


def by_endpoint(played: Ground) -> tuple[float, bool]:
    """Abort the bad version over HTTP; return how long it took until a probe was answered without it, and whether it was."""
    client = http.client.HTTPConnection(address_of(played), timeout=20)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    probe_body = json.dumps({"inputs": [], "parameters": {"probe": True}})
    began = time.monotonic()
    client.request("POST", "/holdfast/abort", json.dumps({"version": played.bad}), headers)
    response = client.getresponse()
    response.read()
    client.request("POST", f"/v2/models/{MODEL}/infer", probe_body, {"Content-Type": "application/json"})
    probed = json.loads(client.getresponse().read())
    took_ms = 1000 * (time.monotonic() - began)
    client.close()
    return took_ms, response.status == 200 and probed.get("model_version") not in (None, played.bad)


def by_command(played: Ground, project: Path) -> tuple[float, bool, float]:
    """Run the command; return its time from decision to probe, whether that showed another version, and the process's time."""
    began = time.monotonic()
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "holdfast",
            "rollback",
            "--json",
            "--reason",
            "drill",
            "--project",
            str(project),
        ],
        env={**os.environ, "HOLDFAST_ROOT": str(played.store.root), "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    whole_ms = 1000 * (time.monotonic() - began)
    if ran.returncode:
        print(ran.stderr, file=sys.stderr)
        return whole_ms, False, whole_ms
    printed = json.loads(ran.stdout)
    done = printed["done"] and played.bad not in printed["answered"].values()
    return printed["duration_ms"] or whole_ms, done, whole_ms


def probe(played: Ground, phase: Phase) -> None:
    """Ask each of the paths of probes on a new connection."""
    for path in PROBES:
        client = http.client.HTTPConnection(address_of(played), timeout=20)
        began = time.monotonic()
        try:
            client.request("GET", path)
            response = client.getresponse()
            response.read()
            phase.failed_probes += response.status != 200
        except (OSError, http.client.HTTPException):
            phase.failed_probes += 1
        phase.probe_ms.append(1000 * (time.monotonic() - began))
        client.close()


def address_of(played: Ground) -> str:
    """Host and port of the server."""
    [server] = local_servers.running(aborts.directory_of(played.store.root, MODEL))
    return server.address.removeprefix("http://")


def capacity(address: str, body: bytes, seconds: float) -> float:
    """Large requests a second of one connection alone."""
    client = http.client.HTTPConnection(address, timeout=60)
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds or not count:
        client.request("POST", f"/v2/models/{MODEL}/infer", body)
        count += client.getresponse().read() != b""
    client.close()
    return count / (time.monotonic() - began)


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[min(len(values) - 1, math.ceil(0.99 * len(values)) - 1)] if values else 0.0


@contextmanager
def client(source: str, *arguments: str) -> Iterator[list[tuple[str, ...]]]:
    """Run a client in a process; yield the words of each line that it has printed so far."""
    process = subprocess.Popen([sys.executable, "-c", source, *arguments], stdout=subprocess.PIPE, text=True)
    printed: list[tuple[str, ...]] = []
    assert process.stdout is not None
    lines = process.stdout
    reader = threading.Thread(target=lambda: printed.extend(tuple(line.split()) for line in lines))
    reader.start()
    try:
        yield printed
    finally:
        process.kill()
        process.wait()
        reader.join()
        lines.close()


def play(
    rate: float, seconds: float, drills: int, connections: int, times: float, directory: Path
) -> dict[str, Any]:
    """Measure quiet, then under the flood."""
    body = json.dumps(tensors([row(flight_id=f"F{number}") for number in range(MAX_ROWS)])).encode()
    file = directory / "body.json"
    file.write_bytes(body)
    root = directory / "store"
    root.mkdir()
    # On the disk: the log of so many rows is larger than the small file system of the roll-back drills.
    ledger = Ledger("sqlite", sqlite_url(root / "ledger.db"), ("healthy",), root)
    project = directory / "project"
    subprocess.run(
        [sys.executable, "-m", "holdfast", "init", "--name", MODEL, "--project", str(project)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    with ground(ledger, rate, random.Random(1), WITH_TOKEN) as played:
        host, _, port = address_of(played).rpartition(":")
        alone = capacity(address_of(played), body, min(5.0, seconds))
        quiet = measure(played, project, seconds, drills)
        target, held = (host, port, f"/v2/models/{MODEL}/infer", str(file)), str(connections // 2)
        with (
            client(FLOOD, *target, held, held, str(times * alone)) as flood,
            client(SHED_PROBE, *target, str(SHED_RATE)) as shed_probe,
        ):
            time.sleep(min(3.0, seconds / 2))
            flood.clear()
            shed_probe.clear()
            full = measure(played, project, seconds, drills)
        load = os.getloadavg()[0]
    statuses = Counter(status for (status,) in flood)
    probed = [(name, status, float(took)) for name, status, took in shed_probe]
    shed = [took for name, status, took in probed if (name, status) == ("large", "429")]
    live = [took for name, _, took in probed if name == "live"]
    usual = {way: statistics.median(values) for way, values in quiet.rollback_ms.items()}
    return {
        "good_p99_ratio": round(p99(full.good_ms) / p99(quiet.good_ms), 2),
        "rollback_ms": round(max(max(full.rollback_ms[way]) - usual[way] for way in WAYS), 1),
        "command_ms": round(max(full.command_ms) - statistics.median(quiet.command_ms), 1),
        "shed_ms": round(p99(shed), 1),
        "live_ms": round(p99(live), 1),
        "failed_good": full.good_failed + quiet.good_failed,
        "failed_rollbacks": quiet.failed_rollbacks + full.failed_rollbacks,
        "failed_probes": quiet.failed_probes + full.failed_probes,
        "good_requests": len(full.good_ms),
        "shed": len(shed),
        "shed_median_ms": round(statistics.median(shed or [0.0]), 1),
        "failed_sheds": sum(status not in {"200", "429"} for _, status, _ in probed),
        "load_average": round(load, 1),
        "large_a_second_alone": round(alone, 1),
        "large_offered": sum(statuses.values()),
        "statuses": {status: {"large requests": number} for status, number in sorted(statuses.items())},
        "phases": {
            name: {
                "good p50 ms": round(statistics.median(phase.good_ms), 2),
                "good p99 ms": round(p99(phase.good_ms), 2),
                "abort endpoint median ms": round(statistics.median(phase.rollback_ms["endpoint"]), 1),
                "abort endpoint max ms": round(max(phase.rollback_ms["endpoint"]), 1),
                "command median ms": round(statistics.median(phase.rollback_ms["command"]), 1),
                "command max ms": round(max(phase.rollback_ms["command"]), 1),
                "process of the command median ms": round(statistics.median(phase.command_ms), 1),
                "process of the command max ms": round(max(phase.command_ms), 1),
                "probe p99 ms": round(p99(phase.probe_ms), 1),
            }
            for name, phase in (("quiet", quiet), ("flooded", full))
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the figures."""
    command = Command("benchmarks.overload", __doc__)
    command.size("--seconds", 30.0, 2.0, help="of each phase")
    command.size("--rate", 300.0, 50.0, help="requests a second of the good client")
    command.size("--drills", 10, 1, help="roll-backs of each way in a phase")
    command.size("--connections", 2000, 100, help="of the flood; half of them idle or slow")
    command.size("--times", 10.0, 3.0, help="the flood's rate over what one connection reaches alone")
    command.size("--bounded", 1, 0, help="1 to fail beyond the bounds, 0 to print the figures alone")
    given = command.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="holdfast-overload-") as directory:
        found = play(given.rate, given.seconds, given.drills, given.connections, given.times, Path(directory))
    passed = not (
        found["failed_good"] or found["failed_rollbacks"] or found["failed_probes"] or found["failed_sheds"]
    )
    if given.bounded:
        passed &= found["good_p99_ratio"] <= 3 and found["rollback_ms"] <= 250 and found["shed_ms"] <= 50
    return command.finish(found, passed=passed)


if __name__ == "__main__":
    sys.exit(main())
