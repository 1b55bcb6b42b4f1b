"""Golden queries in production: after each new plan and every hour, and an event for a wrong prediction (R83)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.control.http.client import Response
from holdfast.control.http.server_client import ServerClient
from holdfast.control.probing.golden import EVERY_US, FAILED, RETRY_US, GoldenQueries
from holdfast.qualify import GoldenQuery
from holdfast.records import Verdict
from holdfast.store.db import events
from holdfast.store.serving import servers
from holdfast.store.serving.servers import Probe, Server
from tests.support.rollout_world import MODEL, World
from tests.support.serving_world import CONTRACT, row

QUERIES = (
    GoldenQuery("near", row(), value=0.5, tolerance=0.1),
    GoldenQuery("far", row(distance=5500.0), between=(0.0, 0.4)),
)


@pytest.mark.parametrize("aggregates", [(), ("recent",)])
def test_they_are_requested_after_each_plan_and_every_hour(
    tmp_path: Path, aggregates: tuple[str, ...]
) -> None:
    world = World.open(tmp_path)
    first = world.add_version()
    world.promote(first)
    requested: list[list[str]] = []
    predictions = {"near": 0.5, "far": 0.2}

    def look(targets: Any) -> dict[str, Any]:
        requested.append([each.server for each in targets])
        return {each.server: (world.plan().intended, list(predictions.values())) for each in targets}

    declared: Any = SimpleNamespace(golden=QUERIES, aggregates=aggregates, contract=CONTRACT)
    concern = GoldenQueries(declared, look)

    def after(us: int) -> list[str]:
        concern(world.store, MODEL, world.lease, now_us=world.tick(us))
        with world.store.ledger.read() as connection:
            return [each.explanation for each in events.newest(connection, kind=FAILED)]

    if aggregates:
        assert (after(1), requested) == ([], [])
        return
    assert after(1) == after(1) == []
    assert requested == [["srv"]]
    assert after(EVERY_US) == []
    assert len(requested) == 2
    predictions["far"] = 0.9
    world.promote(world.add_version())  # a deployment
    (event,) = after(1)
    assert event.startswith(
        f"{world.plan().champion} on srv under plan {world.plan().plan_id}, golden set g-"
    )
    assert "'far' got 0.9000" in event
    assert after(EVERY_US) == [event]
    world.rollback()
    world.probe()
    world.reconcile()
    assert len(after(1)) == 2  # and the version that traffic returned to
    assert first in after(1)[0]


def opened(tmp_path: Path, servers_more: int = 0) -> World:
    """A model that serves; and `servers_more` servers that follow its plan."""
    world = World.open(tmp_path)
    world.promote(world.add_version())
    plan = world.plan()
    assert plan is not None
    with world.store.ledger.write() as connection:
        for number in range(servers_more):
            name = f"s{number}"
            servers.announce(connection, Server(name, MODEL, "127.0.0.1:1", "log", world.now_us))
            seen = Probe(
                name, MODEL, plan.plan_id, plan.champion, plan.champion, Verdict.PASS, "", world.now_us
            )
            servers.record_probe(connection, seen, world.lease)
    return world


def failed(world: World) -> list[str]:
    with world.store.ledger.read() as connection:
        return [each.explanation for each in events.newest(connection, kind=FAILED)]


def declared() -> Any:
    return SimpleNamespace(golden=QUERIES, aggregates=(), contract=CONTRACT)


def test_a_server_without_a_response_is_requested_again_after_a_while_and_a_silent_one_is_skipped(
    tmp_path: Path,
) -> None:
    """It cost every round its timeout."""
    world = opened(tmp_path)
    requested: list[int] = []

    def look(targets: Any) -> dict[str, Any]:
        requested.append(world.now_us)
        return {}

    concern = GoldenQueries(declared(), look)
    began_us = world.now_us
    for _ in range(62):
        concern(world.store, MODEL, world.lease, now_us=world.tick())
    assert [each - began_us for each in requested] == [
        1_000_000,
        1_000_000 + RETRY_US,
        1_000_000 + 2 * RETRY_US,
    ]
    world.silence()
    concern(world.store, MODEL, world.lease, now_us=world.tick(EVERY_US))
    assert len(requested) == 3


def test_a_status_other_than_200_is_a_wrong_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = opened(tmp_path)
    monkeypatch.setattr(ServerClient, "request", lambda *_: Response(400, "no", b"{}"))
    concern = GoldenQueries(declared())
    for _ in range(2):
        concern(world.store, MODEL, world.lease, now_us=world.tick(RETRY_US))
    (event,) = failed(world)
    assert event.endswith(": 'near' got status 400; 'far' got status 400")


def test_many_servers_with_the_same_wrong_prediction_are_reported_once_each(tmp_path: Path) -> None:
    world = opened(tmp_path, servers_more=24)
    champion = world.plan().champion
    concern = GoldenQueries(declared(), lambda here: {each.server: (champion, [0.5, 0.9]) for each in here})
    for _ in range(3):
        concern(world.store, MODEL, world.lease, now_us=world.tick(EVERY_US))
    assert len(failed(world)) == 25
