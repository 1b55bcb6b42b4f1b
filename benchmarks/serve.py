"""How near the server comes to its two ceilings, with contract check, routing, prediction log and metrics all on.

    python -m benchmarks.serve [--seconds 2] [--rounds 3]

The ceilings are measured in the same run, in turns with the work: a static answer from the same HTTP server, and the bare
ONNX Runtime call on the same rows in a process that does nothing else. Medians over the rounds. wrk is a closed-loop
client: requests per second, not latency at a fixed rate. The server runs on the first core and the client on the second.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import insert

from benchmarks.command import Command
from holdfast.contract import Category, Contract, Integer, Label, Median, Number, Text, Timestamp
from holdfast.features import (
    Hour,
    Impute,
    Log,
    Month,
    Ordinal,
    Passthrough,
    Ratio,
    Weekday,
    tensors_from_frame,
)
from holdfast.features.fitting import fit
from holdfast.features.graph import compose, feature_graph
from holdfast.records import TrafficPlan
from holdfast.serve.inference.loaded_model import load
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from holdfast.train import LightGBM
from holdfast.train.artifact import VersionMetadata, pack_version

MODEL = "bench"
START = datetime(2026, 1, 1, tzinfo=UTC)
CONTRACT = Contract(
    Text("id"),
    Category("carrier"),
    Category("origin", values=("EWR", "JFK", "LGA")),
    Number("distance", unit="mi", low=0, high=6000, missing=Median(flag=True)),
    Number("temperature", unit="degF", low=-60, high=130),
    Number("wind", unit="mph", low=0, high=150),
    Number("visibility", unit="mi", low=0, high=20),
    Number("pressure", unit="hPa", low=850, high=1100),
    Integer("seats", low=1, high=900),
    Timestamp("scheduled", tz="America/New_York"),
    key="id",
    event_time="scheduled",
    label=Label("late", delay="12h"),
)
FEATURES = (
    Ordinal("carrier"), Ordinal("origin"), Impute("distance"), Log("distance"), Passthrough("temperature"), Passthrough("wind"),
    Passthrough("visibility"), Passthrough("pressure"), Passthrough("seats"), Ratio("distance", "seats"), Hour("scheduled"),
    Weekday("scheduled"), Month("scheduled"),
)  # fmt: skip
INPUTS = {
    "id": "BYTES", "carrier": "BYTES", "origin": "BYTES", "distance": "FP64", "temperature": "FP64", "wind": "FP64",
    "visibility": "FP64", "pressure": "FP64", "seats": "INT64", "scheduled": "BYTES",
}  # fmt: skip


def synthetic(rows: int) -> pl.DataFrame:
    """Rows with a pattern that trees can find, and noise."""
    random = np.random.default_rng(17)
    moments = [START + timedelta(minutes=int(minute)) for minute in random.integers(0, 120 * 1440, rows)]
    return pl.DataFrame(
        {
            "id": [f"F{number}" for number in range(rows)],
            "carrier": random.choice([f"C{number}" for number in range(16)], rows),
            "origin": random.choice(["EWR", "JFK", "LGA"], rows),
            "distance": random.uniform(80, 5000, rows).round(1),
            "temperature": random.normal(55, 20, rows).clip(-50, 120).round(2),
            "wind": random.gamma(3, 4, rows).clip(0, 140).round(2),
            "visibility": random.uniform(0, 10, rows).round(2),
            "pressure": random.normal(1015, 8, rows).clip(860, 1090).round(1),
            "seats": random.integers(50, 400, rows),
            "scheduled": moments,
        }
    ).with_columns(
        pl.col("scheduled").cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("America/New_York")
    )


def build(root: Path, trees: int) -> tuple[bytes, pl.DataFrame]:
    """A store with one version of `trees` trees under a plan; returns the version's bytes and rows to ask with."""
    frame = synthetic(20_000)
    random = np.random.default_rng(18)
    score = (
        frame["wind"].to_numpy() / 20
        + (frame["scheduled"].dt.hour().to_numpy() - 8) / 12
        + random.normal(0, 1, frame.height)
    )
    fitted = fit(FEATURES, (), CONTRACT, frame)
    graph = load_features(fitted, frame)
    estimator = LightGBM(trees=trees, leaves=31).fit(
        graph, (score > np.median(score)).astype(np.float64), fitted.names, seed=1
    )
    metadata = VersionMetadata(
        MODEL, "candidate", CONTRACT.to_json(), CONTRACT.hash, fitted.to_json(), fitted.hash, "[]", "bench", "lightgbm", {}, 1,
        {}, frame.height, 1,
    )  # fmt: skip
    data = pack_version(compose(fitted, estimator), metadata)
    store = Store.open(root)
    digest = blobs.put(store.root, data)
    now_us = time.time_ns() // 1000
    with store.ledger.write() as connection:
        connection.execute(
            insert(schema.table_versions).values(table_version=1, committed_at_us=now_us, reason="bench")
        )
        facts = {
            "snapshot": "bench",
            "table_version": 1,
            "contract_hash": CONTRACT.hash,
            "created_at_us": now_us,
        }
        connection.execute(insert(schema.snapshots).values(facts))
        row = versions.register(connection, metadata, digest=digest, size_bytes=len(data), now_us=now_us)
        traffic_plans.append(connection, TrafficPlan(MODEL, 0, row.version), now_us=now_us)
    store.ledger.close()
    return data, frame


def load_features(fitted: Any, frame: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The feature matrix, by the same graph that serves."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        feature_graph(fitted).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: np.ndarray[Any, np.dtype[np.float32]] = session.run(
        None, tensors_from_frame(fitted.inputs, frame)
    )[0]
    return found


def json_body(frame: pl.DataFrame) -> bytes:
    """The rows as an inference request in JSON."""
    texts = frame.with_columns(pl.col("scheduled").dt.to_string("%Y-%m-%dT%H:%M:%S%:z"))
    inputs = [
        {"name": name, "shape": [frame.height], "datatype": datatype, "data": texts[name].to_list()}
        for name, datatype in INPUTS.items()
    ]
    return json.dumps({"inputs": inputs}, separators=(",", ":")).encode()


def binary_body(frame: pl.DataFrame) -> tuple[bytes, int]:
    """The rows with every tensor in binary, and the length of the JSON before them."""
    texts = frame.with_columns(pl.col("scheduled").dt.to_string("%Y-%m-%dT%H:%M:%S%:z"))
    inputs, parts = [], []
    for name, datatype in INPUTS.items():
        if datatype == "BYTES":
            raw = b"".join(
                len(word).to_bytes(4, "little") + word for word in map(str.encode, texts[name].to_list())
            )
        else:
            raw = texts[name].to_numpy().astype("<f8" if datatype == "FP64" else "<i8").tobytes()
        shape, size = [frame.height], {"binary_data_size": len(raw)}
        inputs.append({"name": name, "shape": shape, "datatype": datatype, "parameters": size})
        parts.append(raw)
    head = json.dumps(
        {"inputs": inputs, "parameters": {"binary_data_output": True}}, separators=(",", ":")
    ).encode()
    return head + b"".join(parts), len(head)


def run_server(root: Path, address: Connection, core: int | None) -> None:
    """The server process."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    from holdfast.serve.server import serve_forever

    serve_forever(
        Settings(root, f"sqlite:///{root / 'ledger.db'}", "127.0.0.1", 0, 0), MODEL, started=address.send
    )


@dataclass(frozen=True)
class Load:
    """What is sent: a path, and for a POST its body and the JSON length of a binary one."""

    path: str
    body: bytes = b""
    header_length: int = 0


class Wrk:
    """Requests per second by wrk."""

    def __init__(self, address: str, core: int | None, directory: Path) -> None:
        self._address = address
        self._pin = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
        self._directory = directory

    def __call__(self, load: Load, connections: int, seconds: float) -> float:
        command = [
            *self._pin,
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "10s",
        ]
        if load.body:
            command += ["-s", str(self._script(load))]
        done = subprocess.run(
            [*command, self._address + load.path], capture_output=True, text=True, check=True
        )
        if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            raise SystemExit(f"the server did not answer every request:\n{done.stdout}")
        found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        assert found is not None, done.stdout
        return float(found[1])

    def _script(self, load: Load) -> Path:
        name = f"{hash((load.body, load.header_length)) & 0xFFFFFFFF:08x}"
        (self._directory / f"{name}.body").write_bytes(load.body)
        lines = [
            'wrk.method = "POST"',
            f'local file = io.open("{self._directory / name}.body", "rb")',
            'wrk.body = file:read("*a")',
            "file:close()",
            'wrk.headers["Content-Type"] = "application/json"',
        ]
        if load.header_length:
            lines.append(f'wrk.headers["Inference-Header-Content-Length"] = "{load.header_length}"')
        path = self._directory / f"{name}.lua"
        path.write_text("\n".join(lines) + "\n")
        return path


class Threads:
    """Requests per second by threads of this process, for machines without wrk: slower than the server, so a lower bound."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.removeprefix("http://").rpartition(":")
        self._port = int(port)

    def __call__(self, load: Load, connections: int, seconds: float) -> float:
        counts = [0] * connections
        ends = time.perf_counter() + seconds

        def ask(lane: int) -> None:
            import http.client

            connection = http.client.HTTPConnection(self._host, self._port)
            headers = (
                {"Inference-Header-Content-Length": str(load.header_length)} if load.header_length else {}
            )
            while time.perf_counter() < ends:
                connection.request("POST" if load.body else "GET", load.path, load.body or None, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise SystemExit(f"the server answered {answer.status}")
                counts[lane] += 1
            connection.close()

        threads = [threading.Thread(target=ask, args=(lane,)) for lane in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / seconds


def calls_per_second(call: Callable[[], object], seconds: float) -> float:
    """How often `call` runs in a second, alone."""
    count, began = 0, time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        for _ in range(10):
            call()
        count += 10
    return count / (now - began)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the figures."""
    command = Command("benchmarks.serve", __doc__)
    command.size("--seconds", 2.0, 0.1, help="length of each measurement; below one second without wrk")
    command.size("--rounds", 3, 1, help="how often each is taken")
    command.size("--trees", 200, 10, help="of the model")
    command.size(
        "--pin", True, False, action=argparse.BooleanOptionalAction, help="server and client on a core each"
    )
    options = command.parse(arguments)
    cores = sorted(os.sched_getaffinity(0))
    pinned = cores[:2] if len(cores) > 1 and options.pin else [None, None]
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as made:
        directory = Path(made)
        root = directory / "root"
        data, frame = build(root, options.trees)
        here, there = multiprocessing.get_context("spawn").Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=run_server, args=(root, there, pinned[0])
        )
        server.start()
        try:
            address = here.recv()
            figures = measure(address, data, frame, directory, pinned[1], options.seconds, options.rounds)
        finally:
            server.terminate()
            server.join()
    return command.finish(figures)


def measure(
    address: str,
    data: bytes,
    frame: pl.DataFrame,
    directory: Path,
    core: int | None,
    seconds: float,
    rounds: int,
) -> dict[str, object]:
    """Run every measurement in turn, `rounds` times."""
    if shutil.which("wrk") and seconds >= 1:
        client: Wrk | Threads = Wrk(address, core, directory)
    else:
        print(
            "without wrk threads of this process ask instead, and are themselves the limit",
            file=sys.stderr,
        )
        client = Threads(address)
    infer = f"/v2/models/{MODEL}/infer"
    one, hundred = frame.head(1), frame.head(100)
    binary, header_length = binary_body(hundred)
    from holdfast.records import sha256_hex

    version = load("bare", sha256_hex(data), data, created_at_us=0)
    feeds = {rows: tensors_from_frame(version.inputs, frame.head(rows)) for rows in (1, 100)}
    if core is not None:
        os.sched_setaffinity(0, {core})
    static, row1, row100 = (
        Load("/v2/health/live"),
        Load(infer, json_body(one)),
        Load(infer, json_body(hundred)),
    )
    row100_binary = Load(infer, binary, header_length)
    work: dict[str, Callable[[], float]] = {
        "static answer, 1 connection": lambda: client(static, 1, seconds),
        "static answer, 16 connections": lambda: client(static, 16, seconds),
        "1 row JSON, 1 connection": lambda: client(row1, 1, seconds),
        "1 row JSON, 16 connections": lambda: client(row1, 16, seconds),
        "1 row JSON, 64 connections": lambda: client(row1, 64, seconds),
        "100 rows JSON, 16 connections": lambda: client(row100, 16, seconds),
        "100 rows binary, 16 connections": lambda: client(row100_binary, 16, seconds),
        "bare ONNX Runtime, 1 row": lambda: calls_per_second(
            lambda: version.session.run(["probability"], feeds[1]), seconds
        ),
        "bare ONNX Runtime, 100 rows": lambda: calls_per_second(
            lambda: version.session.run(["probability"], feeds[100]), seconds
        ),
    }
    client(row1, 16, min(0.5, seconds))
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, measured in work.items():
            taken[name].append(measured())
    rates = {name: statistics.median(values) for name, values in taken.items()}
    print(f"{'':34}{'per second':>12}{'us each':>10}   (lowest to highest of {rounds})")
    for name, rate in rates.items():
        print(
            f"{name:34}{rate:12,.0f}{1e6 / rate:10.1f}   ({min(taken[name]):,.0f} to {max(taken[name]):,.0f})"
        )
    figures: dict[str, object] = {
        "row1_c16_vs_static": round(
            rates["1 row JSON, 16 connections"] / rates["static answer, 16 connections"], 3
        ),
        "row1_c16_rps": round(rates["1 row JSON, 16 connections"]),
        "row1_c1_vs_static": round(
            rates["1 row JSON, 1 connection"] / rates["static answer, 1 connection"], 3
        ),
        "row1_c16_vs_ort": round(rates["1 row JSON, 16 connections"] / rates["bare ONNX Runtime, 1 row"], 3),
        "row100_vs_ort": round(
            rates["100 rows JSON, 16 connections"] / rates["bare ONNX Runtime, 100 rows"], 3
        ),
        "row100_binary_vs_ort": round(
            rates["100 rows binary, 16 connections"] / rates["bare ONNX Runtime, 100 rows"], 3
        ),
    }
    figures["a_second"] = {
        name: {"median": round(rate), "lowest": round(min(taken[name])), "highest": round(max(taken[name]))}
        for name, rate in rates.items()
    }
    return figures


if __name__ == "__main__":
    sys.exit(main())
