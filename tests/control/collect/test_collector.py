"""A real server observed: probed by a request, its log brought home, its labels joined, the status reported."""

import signal
import time

import pytest

from holdfast.control.collect import collector
from holdfast.control.probing.probe import probe
from holdfast.control.reports.status import status
from holdfast.errors import ConflictError
from holdfast.records import Verdict
from holdfast.store.db import leases
from holdfast.store.models import versions
from holdfast.store.serving import servers
from holdfast.store.telemetry import collected_log
from tests.support.waiting import PATIENCE_SECONDS, wait_until

MODEL = "flight-delay"


def now_us():
    return time.time_ns() // 1000


@pytest.fixture
def lease(world):
    with world.store.ledger.write() as connection:
        held = leases.acquire(connection, "control", holder="test", duration_us=60_000_000, now_us=now_us())
    assert isinstance(held, leases.Lease)
    return held


def registered(store):
    with store.ledger.read() as connection:
        return servers.registered(connection)


def announced(world):
    """A server answers first and reports the ledger then; wait until it has."""
    wait_until(lambda: registered(world.store), "the server is announced")


def probed(world, lease, *, later_us=0):
    announced(world)
    (found,) = probe(world.store, MODEL, lease, now_us=now_us() + later_us)
    return found


def until(world, lease, verdict):
    return wait_until(
        lambda: found if (found := probed(world, lease)).verdict is verdict else None,
        f"a probe that reports {verdict}",
    )


def test_a_probe_is_served_by_the_intended_version_or_does_not_pass(world, serve, lease):
    """R131, R132: a request must be answered by the version that the newest plan intends."""
    half, tenth = world.version("half"), world.version("tenth")
    first = world.plan("half")
    served = serve()
    seen = until(world, lease, Verdict.PASS)
    assert (seen.plan_id, seen.planned_version, seen.observed_version) == (first, half, half)
    second = world.plan("tenth")
    seen = until(world, lease, Verdict.PASS)
    assert (seen.plan_id, seen.planned_version, seen.observed_version) == (second, tenth, tenth)
    served.process.send_signal(signal.SIGKILL)
    served.process.wait(PATIENCE_SECONDS)
    assert probed(world, lease).verdict is Verdict.PASS, (
        "a server that was just seen is not requested again at once"
    )
    gone = probed(world, lease, later_us=6_000_000)
    assert (gone.verdict, gone.observed_version) == (Verdict.ERROR, None)
    assert "has ended" in gone.explanation


def test_a_server_that_keeps_an_older_plan_never_passes(world, serve, lease):
    half = world.version("half")
    world.plan("half")
    served = serve()
    until(world, lease, Verdict.PASS)
    served.process.send_signal(signal.SIGSTOP)
    world.plan("half")
    try:
        hung = probed(world, lease)
        assert (hung.verdict, hung.planned_version) == (Verdict.ERROR, half)
        assert "did not respond within 2 s" in hung.explanation
    finally:
        served.process.send_signal(signal.SIGCONT)
    until(world, lease, Verdict.PASS)


def test_what_a_killed_server_served_is_counted_and_joined(world, serve, lease):
    """kill -9 of the server loses no answer that went out and no label that was accepted."""
    half = world.version("half")
    world.plan("half")
    served = serve()
    ids = []
    for _ in range(30):
        code, response = served.infer()
        assert code == 200
        ids.append(response["parameters"]["prediction_id"])
    code, _ = served.call(
        f"/v2/models/{MODEL}/feedback",
        {"feedback": [{"id": each, "value": n % 2 == 0} for n, each in enumerate(ids)]},
    )
    assert code == 202
    probed(world, lease)
    served.process.kill()
    served.process.wait(PATIENCE_SECONDS)
    assert collector.collect(world.store, MODEL, lease, now_us=now_us()) == 60
    assert collector.join(world.store, MODEL, lease, now_us=now_us()) == 30
    assert collector.collect(world.store, MODEL, lease, now_us=now_us()) == 0
    with world.store.ledger.read() as connection:
        assert collected_log.totals(connection).predictions == 30, "a probe is not a prediction"
        trained_us = versions.get(connection, half).created_at_us
    now = now_us()
    document = status(world.store, MODEL, now_us=now)
    (version,) = document["versions"]
    assert (version["version"], version["requests"], version["labelled"], version["coverage"]) == (
        half,
        30,
        30,
        1.0,
    )
    assert version["auc"] == 0.5
    assert document["use"]["verdict"] == "pass"
    assert document["presence"]["verdict"] == "pass"
    assert document["presence"]["age_seconds"] == max(0, now - trained_us) / 1e6


def test_a_loop_that_lost_the_lease_writes_nothing(world, serve, lease):
    world.version("half")
    world.plan("half")
    served = serve()
    served.infer()
    announced(world)
    with world.store.ledger.write() as connection:
        leases.acquire(connection, "control", holder="test", duration_us=60_000_000, now_us=now_us())
    with pytest.raises(ConflictError, match="HF304"):
        collector.collect(world.store, MODEL, lease, now_us=now_us())
    with pytest.raises(ConflictError, match="HF304"):
        probe(world.store, MODEL, lease, now_us=now_us())
    with world.store.ledger.read() as connection:
        assert collected_log.totals(connection).predictions == 0
