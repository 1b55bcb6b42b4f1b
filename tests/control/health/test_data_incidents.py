"""Data incidents (R9): how long callers had no clean version after a back-out, measured by probes, against what is declared."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.control.backout.backout import execute_backout
from holdfast.control.health.data_incidents import EXCEEDED, RECOVERED, RecoveryMonitor, find_incidents
from holdfast.control.reports.status import StatusReader
from holdfast.records import HOUR_US, BatchId
from holdfast.store.catalog import snapshots
from holdfast.store.db import events, schema
from holdfast.store.db.events import EventRow
from holdfast.tables.data_incident import DataIncident, Observed, find_recovery
from tests.support import backout_world
from tests.support.queries import write
from tests.support.rollout_world import MODEL, World

BOUND = timedelta(hours=1)


class Incident:
    """A model whose champion was trained on a batch; a clean version was there before it if `clean`."""

    def __init__(self, root: Path, *, clean: bool) -> None:
        self.world = World.open(root / "store")
        self.monitor = RecoveryMonitor(BOUND)
        store = self.world.store
        if clean:
            self.world.promote(self.world.add_version())
        backout_world.load(store, root, backout_world.ALONE, 1)
        made = write(
            store, snapshots.create, store.root, ["alone"], contract_hash="c", now_us=self.world.tick()
        )
        if not clean:  # the heuristic too, or it would serve instead
            with store.ledger.write() as connection:
                connection.execute(schema.versions.update().values(snapshot=made.snapshot))
        self.world.promote(self.world.add_version(snapshot=made.snapshot))
        plan = self.world.plan()
        assert plan is not None
        self.version = plan.champion

    def execute(self) -> int:
        """Execute the back-out; return when that was decided."""
        at_us = self.world.tick()
        execute_backout(
            self.world.store,
            backout_world.FEEDS,
            BatchId("alone", "h1"),
            reason="wrong unit",
            actor="ann",
            now_us=at_us,
        )
        return at_us

    def look(self, after_us: int = 2_000_000) -> list[EventRow]:
        """The events about incidents after the loop's next look."""
        self.monitor(self.world.store, MODEL, self.world.lease, now_us=self.world.tick(after_us))
        with self.world.store.ledger.read() as connection:
            return [each for kind in (EXCEEDED, RECOVERED) for each in events.newest(connection, kind=kind)]

    def found(self) -> DataIncident:
        """The only incident."""
        with self.world.store.ledger.read() as connection:
            (found,) = find_incidents(connection, MODEL, BOUND)
        return found

    def problems(self) -> dict[str, str]:
        """The problems of the model by kind."""
        reader = StatusReader(self.world.store, MODEL, recover_within=BOUND)
        return {each.kind: each.text for each in reader.read(now_us=self.world.now_us).health.problems}


def test_it_ends_when_a_probe_gets_the_response_of_a_clean_version(tmp_path: Path) -> None:
    incident = Incident(tmp_path, clean=True)
    assert incident.look() == []
    decided_us = incident.execute()
    assert incident.look() == []  # decided is not observed: the last probe saw the tainted version
    assert "no clean version serves" in incident.problems()["data_incident"]
    incident.world.probe()
    probed_us = incident.world.now_us
    (event,) = incident.look()
    assert (event.kind, event.subject, event.at_us) == (RECOVERED, f"{MODEL}/backout-1", probed_us)
    found = incident.found()
    assert (found.started_at_us, found.recovered_at_us) == (decided_us, probed_us)
    assert found.recovered_by != incident.version
    assert "data_incident" not in incident.problems()
    assert incident.look(HOUR_US * 3) == [event]  # nothing more, however long it is over


def test_one_that_lasts_longer_than_declared_is_an_event_and_its_end_reports_it(tmp_path: Path) -> None:
    incident = Incident(tmp_path, clean=False)
    incident.execute()
    incident.world.probe()
    assert incident.look() == []
    assert "recover_within is 1 h" in incident.problems()["data_incident"]
    (late,) = incident.look(HOUR_US)
    assert late.kind == EXCEEDED
    assert incident.look() == [late]
    incident.world.promote(incident.world.add_version())  # the rebuild
    late_again, ended = incident.look()
    assert (late_again, ended.kind) == (late, RECOVERED)
    assert ended.explanation.endswith("which is longer")
    assert incident.found().is_exceeded(incident.world.now_us)


def test_a_back_out_that_no_version_with_traffic_was_made_from_is_no_incident(tmp_path: Path) -> None:
    world = World.open(tmp_path / "store")
    world.promote(world.add_version())
    backout_world.load(world.store, tmp_path, backout_world.ALONE, 1)
    made = write(
        world.store, snapshots.create, world.store.root, ["alone"], contract_hash="c", now_us=world.tick()
    )
    world.add_version(snapshot=made.snapshot)  # tainted, and never rolled out
    backout_world.take_out(world.store, backout_world.ALONE, 1, now_us=world.tick())
    with world.store.ledger.read() as connection:
        assert find_incidents(connection, MODEL) == []


@pytest.mark.parametrize(
    ("observed", "recovered"),
    [
        ([], None),  # no server serves
        ([Observed("v1", True, 9)], ("v1", 9)),
        ([Observed("v1", True, 9), Observed(None, False, 9)], None),  # a silent server may serve anything
        ([Observed("v1", False, 9)], None),
        ([Observed("bad", True, 9)], None),
        ([Observed("v1", True, 2)], None),  # seen before the decision
    ],
)
def test_every_server_must_be_seen_with_a_clean_version(
    observed: list[Observed], recovered: tuple[str, int] | None
) -> None:
    assert find_recovery(observed, frozenset({"bad"}), since_us=3) == recovered
