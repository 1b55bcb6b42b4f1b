"""A small model in a real store, and real server processes that follow it."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper
from sqlalchemy import insert

from holdfast.contract import Boolean, Category, Contract, Integer, Label, Median, Number, Text, Timestamp
from holdfast.features import Aggregate, Hour, Impute, Ordinal, Passthrough
from holdfast.features.fitting import fit
from holdfast.features.graph import compose
from holdfast.records import TrafficPlan
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.catalog import online_features as online
from holdfast.store.catalog import snapshots
from holdfast.store.db import schema
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from holdfast.tables import Snapshot
from holdfast.train.artifact import VersionMetadata, pack_version
from tests.support import forking
from tests.support.queries import read
from tests.support.waiting import PATIENCE_SECONDS

MODEL = "flight-delay"
CONTRACT = Contract(
    Text("flight_id", max_length=20),
    Category("carrier", values=("AA", "UA", "B6"), unseen="reject"),
    Category("origin"),
    Number("distance", unit="mi", low=0, high=6000, missing=Median(flag=True)),
    Integer("seats", low=1, high=900),
    Boolean("international", missing="keep"),
    Timestamp("scheduled", tz="America/New_York"),
    key="flight_id",
    event_time="scheduled",
    label=Label("late", delay="12h"),
)
RECENT = Aggregate(
    "recent_delay", over="departures", by="origin", value="delay", known_at="left", window="3h", every="10min"
)
START = datetime(2013, 3, 1, 12, tzinfo=UTC)
US = 1_000_000

SERVER = """
import sys
from pathlib import Path
from holdfast.settings import Settings
from holdfast.serve.server import serve_forever
root, model = Path(sys.argv[1]), sys.argv[2]
serve_forever(Settings(root, f"sqlite:///{root / 'ledger.db'}", "127.0.0.1", 0, 0, abort_token=sys.argv[4]), model,
              poll_seconds=0.05, linger_seconds=float(sys.argv[3]))
"""


def frame(rows: int = 120) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "flight_id": [f"F{number}" for number in range(rows)],
            "carrier": [("AA", "UA", "B6")[number % 3] for number in range(rows)],
            "origin": [("EWR", "JFK")[number % 2] for number in range(rows)],
            "distance": [float(100 + 10 * number) for number in range(rows)],
            "seats": [100 + number for number in range(rows)],
            "international": [number % 5 == 0 for number in range(rows)],
            "scheduled": [START + timedelta(minutes=number) for number in range(rows)],
            "recent_delay": [float(number % 40) for number in range(rows)],
        }
    ).with_columns(
        pl.col("scheduled").cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("America/New_York")
    )


FITTED = fit(
    [Ordinal("carrier"), Impute("distance"), Passthrough("seats"), Hour("scheduled")],
    [RECENT],
    CONTRACT,
    frame(),
)


def estimator(kind: str) -> onnx.ModelProto:
    """A tiny estimator: 'half' and 'tenth' are constant; 'delay' is recent_delay / 100, 0.25 when unknown;
    'nan' gives NaN, 'broken' raises,
    'above' gives 1.5, each for distances above 5,000 only. 'loops' never ends, and 'explodes' asks for 12 GB."""
    names = list(FITTED.names)
    distance, delay = names.index("distance"), names.index("recent_delay")
    constants = {"half": 0.5, "tenth": 0.1, "nan": 0.75, "broken": 0.875, "above": 0.625, "slow": 0.5}
    nodes = [
        helper.make_node("Gather", ["features", "distance_index"], ["far_column"], axis=1),
        helper.make_node("Greater", ["far_column", "limit"], ["is_far"]),
    ]
    match kind:
        case "delay":
            nodes += [
                helper.make_node("Gather", ["features", "delay_index"], ["delays"], axis=1),
                helper.make_node("IsNaN", ["delays"], ["unknown"]),
                helper.make_node("Div", ["delays", "hundred"], ["share"]),
                helper.make_node("Where", ["unknown", "quarter", "share"], ["probability"]),
            ]
        case "broken":
            nodes += [
                helper.make_node("Cast", ["is_far"], ["place"], to=TensorProto.INT64),
                helper.make_node("Gather", ["value", "place"], ["probability"], axis=0),
            ]
        case "loops":
            body = helper.make_graph(
                [
                    helper.make_node("Identity", ["goes_on"], ["still"]),
                    helper.make_node("Add", ["sum", "sum"], ["next"]),
                ],
                "body",
                [
                    helper.make_tensor_value_info("turn", TensorProto.INT64, []),
                    helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
                    helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1]),
                ],
                [
                    helper.make_tensor_value_info("still", TensorProto.BOOL, []),
                    helper.make_tensor_value_info("next", TensorProto.FLOAT, [1]),
                ],
            )
            nodes += [
                helper.make_node("Loop", ["turns", "", "value"], ["looped"], body=body),
                helper.make_node("Where", ["is_far", "far", "looped"], ["probability"]),
            ]
        case "explodes":
            nodes += [
                helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
                helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
                helper.make_node("Add", ["zero", "value"], ["sum"]),
                helper.make_node("Where", ["is_far", "far", "sum"], ["probability"]),
            ]
        case _:
            nodes.append(helper.make_node("Where", ["is_far", "far", "value"], ["probability"]))
    value = constants.get(kind, 0.0)
    far = {"nan": float("nan"), "above": 1.5}.get(kind, value)
    initial = {
        "distance_index": np.array(distance, np.int64), "delay_index": np.array(delay, np.int64), "limit": np.float32(5000),
        "value": np.array([value], np.float32), "far": np.float32(far), "hundred": np.float32(100), "quarter": np.float32(0.25),
        "turns": np.array(2**62, np.int64), "shape": np.array([3 * 10**9], np.int64),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", len(names)])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in initial.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def packed(kind: str, contract: Contract = CONTRACT) -> bytes:
    fitted = FITTED if contract is CONTRACT else replace(FITTED, contract_hash=contract.hash)
    metadata = VersionMetadata(
        MODEL, "candidate", contract.to_json(), contract.hash, fitted.to_json(), fitted.hash, "[]", "snap", kind, {}, 1, {},
        120, int(START.timestamp()) * US,
    )  # fmt: skip
    return pack_version(compose(FITTED, estimator(kind)), metadata)


@dataclass
class World:
    """A store with versions and plans."""

    root: Path
    url: str | None = None
    store: Store = field(init=False)
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store.open(self.root, self.url)
        with self.store.ledger.write() as connection:
            connection.execute(
                insert(schema.table_versions).values(table_version=1, committed_at_us=1, reason="load")
            )
            connection.execute(
                insert(schema.snapshots).values(
                    snapshot="snap", table_version=1, contract_hash=CONTRACT.hash, created_at_us=1
                )
            )
            snapshots.write_manifest(
                self.store.root, connection, Snapshot("snap", 1, CONTRACT.hash, 1, tables=())
            )

    def version(self, kind: str, contract: Contract = CONTRACT) -> str:
        if kind not in self.names:
            data = packed(kind, contract)
            digest = blobs.put(self.store.root, data)
            metadata = VersionMetadata(
                MODEL,
                "candidate",
                contract.to_json(),
                contract.hash,
                "{}",
                "0" * 64,
                "[]",
                "snap",
                kind,
                {},
                1,
                {},
                120,
                1,
            )
            with self.store.ledger.write() as connection:
                row = versions.register(
                    connection,
                    metadata,
                    digest=digest,
                    size_bytes=len(data),
                    now_us=int((time.time() - 3600) * US),
                )
            self.names[kind] = row.version
        return self.names[kind]

    def plan(
        self, champion: str, challenger: str | None = None, share_ppm: int = 0, **others: str | None
    ) -> int:
        now_us = time.time_ns() // 1000
        rollout = None
        with self.store.ledger.write() as connection:
            if challenger is not None:
                made = connection.execute(
                    insert(schema.rollouts).values(
                        model=MODEL, challenger=self.names[challenger], champion=self.names[champion], state="promoted", step=0,
                        policy_json="{}", started_at_us=now_us, step_started_at_us=now_us, changed_at_us=now_us,
                        reason="test", actor="test",
                    )
                )  # fmt: skip
                rollout = int(made.inserted_primary_key[0])
            return traffic_plans.append(
                connection,
                TrafficPlan(
                    MODEL,
                    0,
                    self.names[champion],
                    challenger=self.names[challenger] if challenger else None,
                    share_ppm=share_ppm,
                    previous=self.names[others["previous"]] if others.get("previous") else None,
                    fallback=self.names[others["fallback"]] if others.get("fallback") else None,
                    rollout_id=rollout,
                ),
                now_us=now_us,
            )

    def blob(self, kind: str) -> Path:
        """The file of a version."""
        return blobs.path_of(self.root, read(self.store, versions.get, self.names[kind]).digest)

    def online(self, table_version: int, *values: tuple[str, datetime, float]) -> None:
        with self.store.ledger.write() as connection:
            connection.execute(
                insert(schema.table_versions).values(
                    table_version=table_version, committed_at_us=1, reason="load"
                )
            )
            rows = [
                online.OnlineValue(RECENT.key, entity, int(known.timestamp()) * US, value)
                for entity, known, value in values
            ]
            online.upsert(connection, rows, table_version)


@dataclass
class Served:
    """A server process and a client of it."""

    process: forking.Process
    address: str

    @property
    def where(self) -> str:
        return self.address.removeprefix("http://")

    def call(
        self,
        path: str,
        body: object = None,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        *,
        address: str = "127.0.0.1",
    ) -> tuple[int, Any]:
        """Call the server from `address`."""
        connection = http.client.HTTPConnection(self.where, timeout=60, source_address=(address, 0))
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, data, headers or {})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content) if content.startswith(b"{") else content

    def infer(self, rows: list[dict[str, Any]] | None = None, **parameters: Any) -> tuple[int, Any]:
        return self.call(f"/v2/models/{MODEL}/infer", {**tensors(rows or [row()]), "parameters": parameters})

    def wait(
        self, condition: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            status: dict[str, Any] = self.call("/holdfast/status")[1]
            if condition(status):
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.02)

    def wait_for_plan(self, plan: int) -> None:
        self.wait(lambda status: status["plan"] == plan)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


def row(**changes: Any) -> dict[str, Any]:
    made = {
        "flight_id": "UA1",
        "carrier": "UA",
        "origin": "EWR",
        "distance": 500.0,
        "seats": 120,
        "international": False,
        "scheduled": "2013-03-02T07:15:00-05:00",
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not Ellipsis}


DATATYPES = {
    "flight_id": "BYTES", "carrier": "BYTES", "origin": "BYTES", "distance": "FP64", "seats": "INT64", "international": "BOOL",
    "scheduled": "BYTES",
}  # fmt: skip


def tensors(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": name,
                "shape": [len(rows)],
                "datatype": DATATYPES.get(name, "FP64"),
                "data": [each[name] for each in rows],
            }
            for name in rows[0]
        ]
    }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "root")
    yield made
    made.store.ledger.close()


@pytest.fixture
def serve(world: World) -> Iterator[Callable[..., Served]]:
    """Starts a server on the world's root; every one that still runs is killed at the end."""
    started: list[forking.Process] = []

    def start(
        *, linger: float = 0.1, ready: bool = True, stderr: IO[str] | None = None, token: str = ""
    ) -> Served:
        process = forking.start(SERVER, world.root, MODEL, linger, token, stderr=stderr)
        started.append(process)
        served = Served(process, process.stdout.readline().split()[-1])
        if ready:
            served.wait(lambda status: bool(status["ready"]))
        return served

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def settings(world: World) -> Settings:
    return Settings(world.root, f"sqlite:///{world.root / 'ledger.db'}", "127.0.0.1", 0, 0)
