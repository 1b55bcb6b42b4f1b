"""Ten times more of the largest legal requests than the server can answer, and 2,000 connections, half of them idle or slow.

A server process has a good client at a steady rate and is rolled back again and again: by the abort endpoint and through the
ledger, as the command does, each until a probe was answered by the version before. First quiet, then while another process
floods it with requests of the most rows, at ten times the rate that one connection reaches alone. That process also holds
connections that send nothing, or a request byte by byte.

`good_p99_ratio` is the good client's p99 under the flood over its quiet p99, `failed_good` its requests without status 200.
`rollback_ms` is the longest roll-back under the flood less the median of the quiet ones. `shed_ms` is the p99 from the first
byte of a large request to its 429.

Run: python -m benchmarks.overload
"""

from __future__ import annotations

import http.client
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.command import Command
from benchmarks.failing_ledgers import Ledger
from benchmarks.rollback import SERVER, Ground, ground
from holdfast.serve.protocol.oip import MAX_ROWS
from holdfast.store.db.ledger import sqlite_url
from holdfast.store.serving import aborts, local_servers
from tests.support.serving_world import MODEL, row, tensors

TOKEN: Final = "a-token-of-the-overload-benchmark"
WITH_TOKEN: Final = SERVER.replace('"127.0.0.1", 0, 0)', f'"127.0.0.1", 0, 0, abort_token="{TOKEN}")')
WAYS: Final = ("endpoint", "ledger")
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
            sent = time.monotonic()
            writer.write(large)
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            took = 1000 * (time.monotonic() - sent)
            status = int(head[9:12])
            length = int(head.lower().split(b"content-length: ")[1].split(b"\\r\\n")[0])
            await reader.readexactly(length)
            ends = b"connection: close" in head.lower()
        except (OSError, asyncio.IncompleteReadError):
            took, status, ends = 0.0, 0, True
        print(f"{status} {took:.2f}", flush=True)
        if ends and writer is not None:
            writer.close()
            reader = writer = None
async def main():
    await asyncio.gather(*(idle(n) for n in range(int(held))), *(flood(n) for n in range(int(flooding))))
asyncio.run(main())
"""


@dataclass
class Phase:
    """What was measured in one phase."""

    good_ms: list[float] = field(default_factory=list)
    good_failed: int = 0
    rollback_ms: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    failed_rollbacks: int = 0
    probe_ms: list[float] = field(default_factory=list)
    failed_probes: int = 0


def measure(played: Ground, seconds: float, drills: int) -> Phase:
    """Let the good client ask for so long, with roll-backs and probes spread over the time."""
    phase = Phase()
    first, ends = len(played.load.answers), time.monotonic() + seconds
    for number in range(drills * len(WAYS)):
        way = WAYS[number % len(WAYS)]
        played.bring_to("promoted")
        took_ms, done = by_endpoint(played) if way == "endpoint" else played.by_ledger("promoted")[:2]
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
    with ground(ledger, rate, random.Random(1), WITH_TOKEN) as played:
        host, _, port = address_of(played).rpartition(":")
        alone = capacity(address_of(played), body, min(5.0, seconds))
        quiet = measure(played, seconds, drills)
        path, held = f"/v2/models/{MODEL}/infer", str(connections // 2)
        command = [sys.executable, "-c", FLOOD, host, port, path, str(file), held, held, str(times * alone)]
        with (directory / "flood.txt").open("w+") as printed:
            flood = subprocess.Popen(command, stdout=printed)
            try:
                time.sleep(min(3.0, seconds / 2))
                full = measure(played, seconds, drills)
            finally:
                flood.kill()
                flood.wait()
            printed.seek(0)
            shed = [line.split() for line in printed if line.endswith("\n") and len(line.split()) == 2]
    statuses = Counter(status for status, _ in shed)
    taken = [float(took) for status, took in shed if status == "429"]
    usual = {way: statistics.median(values) for way, values in quiet.rollback_ms.items()}
    return {
        "good_p99_ratio": round(p99(full.good_ms) / p99(quiet.good_ms), 2),
        "rollback_ms": round(max(max(full.rollback_ms[way]) - usual[way] for way in WAYS), 1),
        "shed_ms": round(p99(taken), 1),
        "failed_good": full.good_failed + quiet.good_failed,
        "failed_rollbacks": quiet.failed_rollbacks + full.failed_rollbacks,
        "failed_probes": quiet.failed_probes + full.failed_probes,
        "good_requests": len(full.good_ms),
        "large_a_second_alone": round(alone, 1),
        "large_offered": sum(statuses.values()),
        "statuses": {status: {"large requests": number} for status, number in sorted(statuses.items())},
        "phases": {
            name: {
                "good p50 ms": round(statistics.median(phase.good_ms), 2),
                "good p99 ms": round(p99(phase.good_ms), 2),
                "abort endpoint median ms": round(statistics.median(phase.rollback_ms["endpoint"]), 1),
                "abort endpoint max ms": round(max(phase.rollback_ms["endpoint"]), 1),
                "command median ms": round(statistics.median(phase.rollback_ms["ledger"]), 1),
                "command max ms": round(max(phase.rollback_ms["ledger"]), 1),
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
    passed = not (found["failed_good"] or found["failed_rollbacks"] or found["failed_probes"])
    if given.bounded:
        passed &= found["good_p99_ratio"] <= 3 and found["rollback_ms"] <= 250 and found["shed_ms"] <= 50
    return command.finish(found, passed=passed)


if __name__ == "__main__":
    sys.exit(main())
