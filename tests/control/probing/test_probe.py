"""Probing many servers: hung ones cost no more than one, dead ones leave, and a refusal is not silence."""

import http.server
import json
import socket
import threading
import time

import pytest

from holdfast.control.probing import probe as probing
from holdfast.monitor.version_check import Observation, check_server
from holdfast.records import TrafficPlan, Verdict
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.models import runtimes
from holdfast.store.models.runtimes import CompatibilityResult
from holdfast.store.models.serving_configs import register
from holdfast.store.serving import members, servers
from holdfast.store.serving.log_directory import claim
from holdfast.store.serving.servers import Server
from tests.support import rollout_world

pytestmark = pytest.mark.process


@pytest.fixture
def hung():
    """An address where connections are taken and nothing is ever reported."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refusing():
    """A server whose status is fine and that answers every request with 503."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(200, {"plan": 7})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(503, {"error": "no version could answer"})

        def reply(self, status, document):
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_hung_servers_are_probed_at_once_and_keep_no_response_from_being_seen(hung, refusing, tmp_path):
    """A round must not take longer than the lease, however many servers hang."""
    requested = [Server(f"h{n}", "m", hung, tmp_path / f"h{n}", 1) for n in range(8)]
    requested.append(Server("r", "m", refusing, tmp_path / "r", 1))
    began = time.monotonic()
    seen = probing.observe_all(requested)
    assert time.monotonic() - began < probing.TIMEOUT_SECONDS + 0.5
    assert {name: found.is_reachable for name, found in seen.items()} == {
        **{f"h{n}": False for n in range(8)},
        "r": True,
    }
    assert "did not respond within 2 s" in seen["h3"].error


def test_a_server_that_responds_with_its_status_and_no_request_is_not_silent(refusing, tmp_path):
    seen = probing.observe(Server("r", "m", refusing, tmp_path, 1))
    assert (seen.plan_id, seen.observed_version, seen.is_reachable) == (7, None, True)
    plan = TrafficPlan("m", 7, "v2", None, 0, "v1", None, None)
    judged = check_server(plan, seen, plan_age_us=60_000_000)
    assert judged.verdict is Verdict.FAIL
    assert "status 503" in judged.explanation


def test_a_server_that_ended_leaves_when_another_runs(refusing, tmp_path):
    store = Store.open(tmp_path / "store")
    first, second = claim(tmp_path / "log", "m"), claim(tmp_path / "log", "m")
    found = [Server(each.server, "m", refusing, each.directory, n) for n, each in enumerate((first, second))]
    with store.ledger.write() as connection:
        for each in found:
            servers.announce(connection, each)
        assert set(members.running(connection, "m")) == set(found)
        first.release()
        assert members.running(connection, "m") == (found[1],)
        gone = probing.observe(found[0])
        assert (gone.is_reachable, gone.plan_id) == (False, None), "another listens at its address"
        second.release()
        assert members.running(connection, "m") == (found[1],), "an outage stays to be seen"
    store.ledger.close()
    elsewhere = Server("far", "m", refusing, tmp_path / "not here", 1)
    assert not servers.has_ended(elsewhere)


def test_a_runtime_that_was_never_tested_with_the_version_is_reported_once(tmp_path):
    """R115, R116: its probe was "as declared" and nothing else."""
    world = rollout_world.World.open(tmp_path)
    world.promote(world.add_version())
    plan = world.plan()
    with world.store.ledger.write() as connection:
        runtime = runtimes.register(connection, runtimes.here("green"), ["env"], now_us=world.now_us)

    def probed():
        seen = Observation(plan.plan_id, plan.champion, runtime=runtime)
        world.tick(probing.CONFIRMED_US)
        (found,) = probing.probe(
            world.store, rollout_world.MODEL, world.lease, now_us=world.tick(), look=lambda _: {"srv": seen}
        )
        with world.store.ledger.read() as connection:
            return found.explanation, len(events.newest(connection, kind=probing.UNTESTED))

    for _ in range(2):
        explanation, reported = probed()
        assert f"Its runtime {runtime} did not pass a test with {plan.champion}" in explanation
        assert reported == 1
    with world.store.ledger.write() as connection:
        limits = register(connection, ConnectionLimits(), now_us=world.now_us)
        passed = CompatibilityResult(plan.champion, runtime, limits, Verdict.PASS, "tested", world.now_us)
        runtimes.judge(connection, passed)
    explanation, _ = probed()
    assert "as declared" in explanation
    assert "did not pass" not in explanation


def test_many_servers_with_an_untested_runtime_are_reported_by_one_event(tmp_path):
    """More servers than events were read grew the event log with each probe."""
    world = rollout_world.World.open(tmp_path)
    world.promote(world.add_version())
    plan = world.plan()
    with world.store.ledger.write() as connection:
        runtime = runtimes.register(connection, runtimes.here("green"), ["env"], now_us=world.now_us)
        for number in range(25):
            servers.announce(
                connection,
                Server(
                    f"s{number}", rollout_world.MODEL, "127.0.0.1:1", tmp_path / f"{number}", world.now_us
                ),
            )
    seen = Observation(plan.plan_id, plan.champion, runtime=runtime)
    for _ in range(2):
        world.tick(probing.CONFIRMED_US)
        found = probing.probe(
            world.store,
            rollout_world.MODEL,
            world.lease,
            now_us=world.tick(),
            look=lambda targets: {each.server: seen for each in targets},
        )
        assert sum("did not pass a test" in each.explanation for each in found) == 26
    with world.store.ledger.read() as connection:
        (event,) = events.newest(connection, kind=probing.UNTESTED)
    assert f"holdfast runtime test {runtime}" in event.explanation
