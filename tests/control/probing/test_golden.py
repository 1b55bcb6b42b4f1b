"""Golden queries in production: after each new plan and every hour, and an event for a wrong prediction (R83)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.control.probing.golden import EVERY_US, FAILED, GoldenQueries
from holdfast.qualify import GoldenQuery
from holdfast.store.db import events
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
        f"{world.plan().champion} on srv under plan {world.plan().plan_id}: 'far' got 0.9000"
    )
    assert after(EVERY_US) == [event]
    world.rollback()
    world.probe()
    world.reconcile()
    assert len(after(1)) == 2  # and the version that traffic returned to
    assert first in after(1)[0]
