"""kill -9 of a collector of what servers logged, anywhere, then again: nothing twice, nothing lost."""

import random
import signal
import time

import pytest

from holdfast.control.collect import collector
from holdfast.store import Store
from holdfast.store.db import leases
from holdfast.store.durability.failpoints import COLLECT_POINTS
from holdfast.store.maintenance import orphans
from holdfast.store.rollout import evidence, evidence_windows
from holdfast.store.serving import servers
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, ShadowRecord, frame
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import collected_log, labels, outcomes, request_counts
from holdfast.store.telemetry.collected_log import PREDICTIONS, SHADOWS
from tests.support import forking, queries
from tests.support.running_canary import running_canary

pytestmark = [pytest.mark.crash, pytest.mark.process]

NOW = 1_700_000_000_000_000
POINTS = ("files.created", "files.written", "files.synced", *COLLECT_POINTS)

COLLECTOR = """
import sys
from pathlib import Path
from holdfast.control.collect import collector
from holdfast.store import Store
from holdfast.store.db import leases
from holdfast.store.durability import failpoints

root, point, holder = sys.argv[1:]
store = Store.open(Path(root))
now = 1_700_000_000_000_000
requested = {"holder": holder, "duration_us": 1}
with store.ledger.write() as connection:
    lease = leases.acquire(connection, "control-m", **requested, now_us=now)
    if isinstance(lease, leases.Sighting):
        lease = leases.acquire(connection, "control-m", **requested, now_us=now + 9, seen=lease)
failpoints.armed = failpoints.kill_at(point) if point else None
print("ready", flush=True)
collector.collect(store, "m", lease, now_us=now)
collector.close_windows(store, "m", lease, now_us=now + 120_000_000)
collector.join(store, "m", lease, now_us=now)
"""


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.ledger.close()


def collected(store, table):
    return queries.read(store, queries.collected, table)


def fill(store, tmp_path, requests, per_segment):
    """A log of `requests` requests of a canary, with a label for each, over several segments; return the rollout."""
    rollout = running_canary(store)
    directory = tmp_path / "log" / "s1"
    directory.mkdir(parents=True)
    with store.ledger.write() as connection:
        servers.announce(connection, Server("s1", "m", "http://127.0.0.1:1", directory, NOW))
    for segment in range(requests // per_segment):
        with (directory / f"{segment + 1:08d}.log").open("wb") as file:
            for number in range(1, per_segment + 1):
                name = f"s1-{segment + 1}-{number}"
                responded = PredictionRecord(
                    id=name,
                    at_us=NOW + number,
                    event_time_us=NOW,
                    unit=name.encode(),
                    arm="champion",
                    version="v1",
                    challenger_failed="",
                    rollout=rollout,
                    result="ok",
                    latency_us=900,
                    probabilities=[0.3],
                    inputs=[["AA", "JFK", 1089.0, "2013-03-01T10:00:00Z"]],
                    share_ppm=10_000,
                )
                label = FeedbackRecord(f"{name}/0", float(number % 2), "t", NOW)
                copied = ShadowRecord(
                    name, NOW + number, responded.unit, 1, "v2", "ok", 90, 80, [0.4], "v1", "ok", 900, [0.3]
                )
                file.write(frame(responded) + frame(label) + frame(copied))
    return rollout


def start_collector(store, point, holder):
    return forking.start(COLLECTOR, store.root, point, holder)


def finish(store):
    """The same command again, unharmed, in this process."""
    with store.ledger.write() as connection:
        lease = leases.acquire(connection, "control-m", holder="last", duration_us=1, now_us=NOW)
    if isinstance(lease, leases.Sighting):
        with store.ledger.write() as connection:
            lease = leases.acquire(
                connection, "control-m", holder="last", duration_us=1, now_us=NOW + 9, seen=lease
            )
    while collector.collect(store, "m", lease, now_us=NOW):
        pass  # a round collects a bounded part; the loop comes again
    collector.close_windows(store, "m", lease, now_us=NOW + 120_000_000)
    collector.join(store, "m", lease, now_us=NOW)


def everything_once(store, rollout, requests):
    with store.ledger.read() as connection:
        errors, latency, _ = evidence.of_rollout(connection, rollout)
        assert (errors.champion_units, latency.champion_units) == (requests, requests)
        assert evidence_windows.of_rollout(connection, rollout) == ()
        assert collected_log.totals(connection).predictions == requests
        assert sum(row.requests for row in request_counts.since(connection, "m", 0)) == requests
    assert sum(file.rows for file in collected(store, PREDICTIONS)) == requests
    assert sum(file.rows for file in collected(store, SHADOWS)) == requests
    with store.ledger.read() as connection:
        assert labels.count(connection) == (requests, 0)
        assert len(outcomes.of_model(connection, "m", since_us=0)) == requests
    orphans.sweep(store)
    on_disk = {path.name for path in (store.root / "rows").glob("*.parquet")}
    named = (*collected(store, PREDICTIONS), *collected(store, SHADOWS))
    assert on_disk == {file.path.rpartition("/")[2] for file in named}


@pytest.mark.parametrize("point", POINTS)
def test_a_collector_that_is_killed_at_a_point_leaves_nothing_half(store, tmp_path, point):
    rollout = fill(store, tmp_path, requests=300, per_segment=100)
    child = start_collector(store, point, "first")
    child.communicate(timeout=600)
    assert child.returncode == -signal.SIGKILL
    finish(store)
    everything_once(store, rollout, 300)


def test_a_collector_that_is_killed_at_any_time_leaves_nothing_half(store, tmp_path):
    rollout = fill(store, tmp_path, requests=12_000, per_segment=1_500)
    timestamps = random.Random(7)
    for attempt in range(3):
        child = start_collector(store, "", f"holder-{attempt}")
        assert child.stdout.readline() == "ready\n"
        time.sleep(timestamps.uniform(0.0, 0.5))
        child.kill()
        child.communicate(timeout=600)
    finish(store)
    everything_once(store, rollout, 12_000)
