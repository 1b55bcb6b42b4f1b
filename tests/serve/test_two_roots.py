"""Two hosts with roots of their own and one ledger: two servers, whose predictions and labels are never confused."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from holdfast.control import loop as control_loop
from holdfast.control.collect import collector
from holdfast.store import Store
from holdfast.store.db import events, schema
from holdfast.store.db.leases import Lease
from holdfast.store.serving import members, servers
from tests.support import forking
from tests.support.serving_world import MODEL, Served, World
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

SERVER = """
import sys
from pathlib import Path
from holdfast.settings import Settings
from holdfast.serve.server import serve_forever
root, ledger, model = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
serve_forever(Settings(root, ledger, "127.0.0.1", 0, 0), model, poll_seconds=0.05, linger_seconds=0.05)
"""
Start = Callable[[Path], Served]


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        name = f"two_roots_{now_us()}"
        server.execute(f"CREATE DATABASE {name} TEMPLATE {request.getfixturevalue('postgres_template')}")
        url = server.url(name, "postgresql+psycopg")
    made = World(tmp_path / "a", url)
    made.version("half")
    made.plan("half")
    yield made
    made.store.ledger.close()


@pytest.fixture
def start(world: World) -> Iterator[Start]:
    started: list[forking.Process] = []

    def begin(root: Path) -> Served:
        url = world.store.ledger.engine.url.render_as_string(hide_password=False)
        process = forking.start(SERVER, root, url, MODEL)
        started.append(process)
        served = Served(process, process.stdout.readline().split()[-1])
        served.wait(lambda status: bool(status["ready"]))
        return served

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def take_lease(store: Store) -> Lease:
    found = control_loop.request_lease(
        store, f"control-{MODEL}", holder="t", duration_us=10**9, clock_us=now_us, seen=None
    )
    assert isinstance(found, Lease)
    return found


def predictions(served: Served, count: int) -> list[str]:
    found = [
        served.infer(unit=f"u{number}")[1]["parameters"].get("prediction_id", "") for number in range(count)
    ]
    return [each for each in found if each]


def joined(store: Store) -> dict[str, float]:
    lease = take_lease(store)
    collector.collect(store, MODEL, lease, now_us=now_us())
    collector.join(store, MODEL, lease, now_us=now_us())
    with store.ledger.read() as connection:
        return dict(
            connection.execute(select(schema.outcomes.c.prediction_id, schema.outcomes.c.label)).all()
        )


def test_two_roots_are_two_servers_and_each_label_meets_its_prediction(
    world: World, start: Start, tmp_path: Path
) -> None:
    """Both were s1 before: with the same ids, and one position in two logs."""
    other = tmp_path / "b"
    shutil.copytree(world.root / "blobs", other / "blobs")
    first, second = start(world.root), start(other)
    for served in (first, second):
        served.wait(lambda status: bool(status["gives_ids"]))
    labels: dict[str, float] = {}
    for served, value in ((first, 1.0), (second, 0.0)):
        labels |= dict.fromkeys(predictions(served, 20), value)
    assert len(labels) == 40
    for served in (second, first):  # each to the other one
        value = 1.0 if served is second else 0.0
        mine = [each for each, label in labels.items() if label == value]
        body = {"feedback": [{"id": each, "value": value, "source": "t"} for each in mine]}
        assert served.call(f"/v2/models/{MODEL}/feedback", body)[0] == 202
    expected = {f"{each}/0": value for each, value in labels.items()}
    wait_until(lambda: joined(world.store) == expected, "every label is joined with its own prediction")
    with world.store.ledger.read() as connection:
        known = servers.registered(connection, MODEL)
        assert len({each.server for each in known}) == len({each.boot_id for each in known}) == 2
        assert members.conflicts(connection, MODEL) == ()


def test_a_copied_root_reports_that_it_is_the_second_and_serves_on(
    world: World, start: Start, tmp_path: Path
) -> None:
    first = start(world.root)
    first.wait(lambda status: bool(status["gives_ids"]))
    (kept,) = predictions(first, 1)
    shutil.copytree(world.root, tmp_path / "b", ignore=shutil.ignore_patterns("ledger.db*", "nudges*"))
    second = start(tmp_path / "b")
    assert "HF304" in second.wait(lambda status: bool(status["name_conflict"]))["name_conflict"]
    assert second.infer()[0] == 200
    assert predictions(second, 3) == []
    status, refusal = second.call(f"/v2/models/{MODEL}/feedback", {"id": kept, "value": True, "source": "t"})
    assert (status, refusal["code"]) == (503, "HF304"), "a label in its log would be lost"
    body = {"id": kept, "value": True, "source": "t"}
    assert first.call(f"/v2/models/{MODEL}/feedback", body)[0] == 202
    wait_until(lambda: joined(world.store) == {f"{kept}/0": 1.0}, "the log of the first is collected")
    with world.store.ledger.read() as connection:
        [conflict] = members.conflicts(connection, MODEL)
        [event] = events.newest(connection, kind="server.conflict")
        assert connection.execute(select(schema.prediction_files.c.rows)).scalars().all() == [1]
    assert (conflict.address, event.explanation) == (f"http://{second.where}", conflict.explanation)
