"""What a shadow costs those who wait for answers: latency of the same load with and without copies, in the same server.

    python -m benchmarks.shadow [--rounds 20] [--seconds 1.5] [--rate 200] [--share 100]

One server process follows plans with and without a shadow in turn, round by round, so that whatever else the machine does
hits both alike. Requests leave at a fixed rate on their own clock; a latency is from the moment when a request was due to
its whole answer, so that a stall counts for every request that it holds up. The shadow is the champion's own file under
another name; it gets copies of `--share` percent of the requests, and beside each the champion runs once more. The last
line is one JSON object, in microseconds: medians over the rounds, and the median of the differences of neighbours.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from benchmarks.command import Command
from benchmarks.serve import CONTRACT, MODEL, build, json_body, run_server
from holdfast.records import TrafficPlan
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.files import blobs
from holdfast.store.rollout import traffic_plans
from holdfast.train.artifact import open_version, pack_version

LANES = 8


def second_version(store: Store, data: bytes) -> tuple[str, str]:
    """The champion's name, and that of the same model sealed again under another seed, so that its digest differs."""
    import dataclasses

    model, about = open_version(data)
    again = pack_version(model, dataclasses.replace(about, seed=about.seed + 1))
    digest = blobs.put(store.root, again)
    with store.ledger.write() as connection:
        champion = connection.execute(select(schema.versions)).mappings().one()
        name = f"v2-{digest[:8]}"
        row = {
            **champion,
            "version": name,
            "number": 2,
            "digest": digest,
            "bytes": len(again),
            "state": "qualified",
        }
        connection.execute(insert(schema.versions).values(row))
    return str(champion["version"]), name


class Client:
    """Requests at a fixed rate over a few connections."""

    def __init__(self, address: str, body: bytes) -> None:
        self._host, _, port = address.removeprefix("http://").rpartition(":")
        self._port, self._body = int(port), body

    def status(self) -> dict[str, Any]:
        """What the server says of itself."""
        connection = http.client.HTTPConnection(self._host, self._port)
        connection.request("GET", "/holdfast/status")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return found

    def ask(self, rate: float, seconds: float) -> list[float]:
        """The latency of each request, in microseconds, sorted."""
        taken: list[list[float]] = [[] for _ in range(LANES)]
        began = time.perf_counter() + 0.05

        def lane(number: int) -> None:
            connection = http.client.HTTPConnection(self._host, self._port)
            due = began + number / rate
            while due < began + seconds:
                time.sleep(max(0.0, due - time.perf_counter()))
                connection.request("POST", f"/v2/models/{MODEL}/infer", self._body)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise SystemExit(f"the server answered {answer.status}")
                taken[number].append((time.perf_counter() - due) * 1e6)
                due += LANES / rate
            connection.close()

        threads = [threading.Thread(target=lane, args=(number,)) for number in range(LANES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(latency for each in taken for latency in each)


def follow(store: Store, client: Client, champion: str, shadow: str | None, share_ppm: int) -> None:
    """Let the server follow a new plan."""
    with store.ledger.write() as connection:
        number = traffic_plans.append(
            connection,
            TrafficPlan(MODEL, 0, champion, shadow=shadow, shadow_ppm=share_ppm if shadow else 0),
            now_us=time.time_ns() // 1000,
        )
    while client.status()["plan"] != number:
        time.sleep(0.02)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the figures."""
    command = Command("benchmarks.shadow", __doc__)
    command.size("--rounds", 20, 1, help="pairs of rounds")
    command.size("--seconds", 1.5, 0.2, help="length of each round")
    command.size("--trees", 200, 10, help="of the model")
    command.option("--rate", type=float, default=200.0, help="requests a second")
    command.option("--share", type=float, default=100.0, help="percent of the units that are copied")
    options = command.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as made:
        root = Path(made) / "root"
        data, frame = build(root, options.trees)
        store = Store.of(Settings(root, f"sqlite:///{root / 'ledger.db'}", "127.0.0.1", 0, 0))
        champion, shadow = second_version(store, data)
        here, there = multiprocessing.get_context("spawn").Pipe()
        server = multiprocessing.get_context("spawn").Process(target=run_server, args=(root, there, None))
        server.start()
        try:
            client = Client(here.recv(), json_body(frame.head(1)))
            client.ask(options.rate, min(1.0, options.seconds))
            taken: dict[bool, list[list[float]]] = {False: [], True: []}
            for number in range(options.rounds):
                for shadowed in ((False, True), (True, False))[number % 2]:
                    share_ppm = round(options.share * 10_000)
                    follow(store, client, champion, shadow if shadowed else None, share_ppm)
                    client.ask(options.rate, 0.2)
                    taken[shadowed].append(client.ask(options.rate, options.seconds))
            status = client.status()
        finally:
            server.terminate()
            server.join()
            store.ledger.close()
    return command.finish(figures_of(taken, status, options))


def figures_of(
    taken: dict[bool, list[list[float]]], status: dict[str, Any], options: argparse.Namespace
) -> dict[str, float]:
    """Print the table and return the figures."""
    figures: dict[str, float] = {
        "rounds": options.rounds,
        "rate": options.rate,
        "contract_columns": len(CONTRACT.names),
    }
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        of = {
            shadowed: [latencies[int(share * (len(latencies) - 1))] for latencies in rounds]
            for shadowed, rounds in taken.items()
        }
        without, with_shadow = statistics.median(of[False]), statistics.median(of[True])
        apart = statistics.median(b - a for a, b in zip(of[False], of[True], strict=True))
        print(
            f"{name}: {without:,.0f} us without, {with_shadow:,.0f} us with a shadow, difference {apart:+,.0f} us"
        )
        figures |= {
            f"{name}_without": round(without),
            f"{name}_with": round(with_shadow),
            f"{name}_apart": round(apart),
        }
    figures |= {"copies": status["shadow_requests"], "dropped": status["shadow_dropped"]}
    return figures


if __name__ == "__main__":
    sys.exit(main())
