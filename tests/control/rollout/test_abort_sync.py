"""Aborts that the loop brings into the ledger: what cannot be carried, and servers that are gone, keep nothing else waiting."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.control.evaluation import eligibility
from holdfast.control.probing import probe as probing
from holdfast.control.rollout import abort_sync
from holdfast.records import Verdict
from holdfast.rollout.model.abort import Abort
from holdfast.store.db import events
from holdfast.store.serving import aborts, servers
from holdfast.store.serving.servers import Probe, Server
from tests.support import rollout_world

MODEL = "m"


@pytest.fixture
def world(tmp_path: Path):
    return rollout_world.World.open(tmp_path / "store")


@pytest.fixture
def hung() -> Iterator[str]:
    """An address where connections are taken and nothing is ever reported."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def obeying() -> Iterator[Callable[[Abort], str]]:
    """A server elsewhere that follows an abort and answers its status only; its address."""
    started: list[http.server.ThreadingHTTPServer] = []

    def start(abort: Abort) -> str:
        reported = {"plan": 1, "aborts": [{name: getattr(abort, name) for name in abort.__slots__}]}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(reported).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def carry(world) -> list[str]:
    done = abort_sync.carry(world.store, MODEL, world.lease, now_us=world.tick())
    return [each.version for each in done]


def reported(world) -> list[str]:
    with world.store.ledger.read() as connection:
        return [each.explanation for each in events.newest(connection, subject=MODEL, kind="abort.pending")]


def abort(world, version: str) -> None:
    given = Abort(version, world.plan().plan_id, world.row().rollout_id, "bad", "ann", world.tick())
    aborts.add(aborts.directory_of(world.store.root, MODEL), given)


def test_an_abort_without_a_fallback_is_reported_once_and_keeps_no_other_waiting(world) -> None:
    with world.store.ledger.write() as connection:  # no heuristic either
        connection.exec_driver_sql("DELETE FROM versions")
    first = world.add_version()
    world.promote(first)
    abort(world, first)
    assert carry(world) == []
    assert carry(world) == []
    (words,) = reported(world)
    assert "no other version may serve" in words
    assert world.plan().champion == first
    second = world.add_version()
    world.begin(second)
    world.champion_responses()
    assert world.reconcile() == ["Start"]
    abort(world, second)
    assert carry(world) == [second]
    assert carry(world) == []
    assert world.row().state == "rolling_back"
    assert len(reported(world)) == 1


def test_an_abort_that_the_ledger_refuses_keeps_no_other_waiting(
    world, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here because what was before breaks callers by now."""
    with world.store.ledger.write() as connection:
        connection.exec_driver_sql("DELETE FROM versions")
    before = world.add_version()
    world.promote(before)
    version = world.add_version()
    world.promote(version)
    monkeypatch.setattr(eligibility, "breaking_callers_of", lambda *_: {before})
    abort(world, version)
    abort(world, before)
    assert carry(world) == [before]
    assert carry(world) == []
    assert carry(world) == []
    newest, oldest = reported(world)
    assert "HF406" in oldest
    assert "no other version may serve" in newest, "the version before is withdrawn by now"
    assert (world.plan().champion, world.plan().previous) == (version, None)


def three_promoted(world) -> tuple[str, str, str]:
    first, second, third = (world.add_version() for _ in range(3))
    for each in (first, second, third):
        world.promote(each)
    return first, second, third


def test_a_standby_that_was_aborted_is_returned_to_by_no_later_rollback(world) -> None:
    """R118: its promotion stands, and no rollout moved when it was withdrawn."""
    first, second, third = three_promoted(world)
    assert (world.plan().champion, world.plan().previous) == (third, second)
    abort(world, second)
    assert carry(world) == [second]
    assert carry(world) == []
    assert second not in world.plan().versions()
    assert world.row().state == "promoted"
    world.rollback()
    assert world.plan().champion == first


def test_a_version_without_traffic_that_was_aborted_elsewhere_is_no_fallback(world) -> None:
    first, second, third = three_promoted(world)
    abort(world, first)
    assert carry(world) == [first]
    abort(world, second)
    assert carry(world) == [second]
    world.rollback()
    assert world.plan().champion not in (first, second, third)


def test_a_heuristic_that_was_aborted_stands_in_for_no_later_plan(world) -> None:
    first = world.add_version()
    world.promote(first)
    heuristic = world.plan().fallback
    assert heuristic is not None
    abort(world, heuristic)
    assert carry(world) == [heuristic]
    assert world.plan().fallback is None
    second = world.add_version()
    world.promote(second)
    assert world.plan().fallback is None


def test_a_cancelled_rollout_lifts_no_abort(world) -> None:
    """A new rollout lifts an abort when it gives the version traffic."""
    _, second, _ = three_promoted(world)
    abort(world, second)
    world.begin(second)
    assert carry(world) == [], "the rollout may still push it"
    world.rollback(second)
    assert world.row().state == "cancelled"
    assert carry(world) == [second]
    assert second not in world.plan().versions()


def probed(world) -> tuple[Probe, float]:
    began = time.monotonic()
    carry(world)
    seen = probing.probe(world.store, MODEL, world.lease, now_us=world.tick())
    return next(each for each in seen if each.server == "far"), time.monotonic() - began


@pytest.mark.process
def test_a_machine_that_is_gone_delays_a_round_only_now_and_then(
    world, hung: str, tmp_path: Path, obeying: Callable[[Abort], str]
) -> None:
    """It is seen at once when it answers again, and what it follows is carried then."""
    before = world.add_version()
    world.promote(before)
    version = world.add_version()
    world.promote(version)
    with world.store.ledger.write() as connection:
        servers.announce(connection, Server("far", MODEL, hung, tmp_path / "elsewhere", 1))
    first, seconds = probed(world)
    assert (first.verdict, seconds > 2.0) == (Verdict.ERROR, True)
    again, seconds = probed(world)
    assert again == first, "with little time, silence is no news"
    assert seconds < 2.0
    address = obeying(
        Abort(version, world.plan().plan_id, world.row().rollout_id, "bad", "ann", world.now_us)
    )
    with world.store.ledger.write() as connection:
        connection.exec_driver_sql(f"UPDATE servers SET address = '{address}' WHERE server = 'far'")
    back, _ = probed(world)
    assert (back.plan_id, back.verdict is Verdict.ERROR) == (1, False)
    assert carry(world) == [version]
    assert world.plan().champion == before
    assert probing.is_silent(first, first.probed_at_us + probing.SILENT_US - 1)
    assert not probing.is_silent(first, first.probed_at_us + probing.SILENT_US)
