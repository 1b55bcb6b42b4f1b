"""A training on the same rows of another snapshot makes no version; any other difference makes one (R67)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.control.backout.backout import execute_backout
from holdfast.control.evaluation import qualify
from holdfast.control.evaluation.equal_versions import find_equal_champion
from holdfast.control.training import environment
from holdfast.control.training.train import Trained, train
from holdfast.features import Weekday
from holdfast.records import BatchId, TrafficPlan
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.catalog import snapshots
from holdfast.store.db import events
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from holdfast.train import LogisticRegression
from tests.control.training.test_label_delay import DAYS, MODEL, START, load, micros
from tests.support.queries import write


class World:
    """Thirty days of rows, and snapshots of chosen days: a label is due four days after its row."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.store = directory, Store.open(directory / "store")
        load(self.store, directory, 0, DAYS)
        self._nights = 0

    def train(self, day: float, model=MODEL, seed: int = 0) -> Trained:
        """Train on a new snapshot of `day`, with four more rows that are not due for months."""
        self._nights += 1
        load(self.store, self.directory, DAYS + 100 + self._nights, 1)
        now_us = micros(START + timedelta(days=day))
        taken = write(
            self.store, snapshots.create, self.store.root, ["loans"], contract_hash=model.contract.hash, now_us=now_us
        )  # fmt: skip
        return train(self.store, model, taken.snapshot, now_us=now_us, seed=seed)

    def versions(self) -> list[str]:
        with self.store.ledger.read() as connection:
            return [row.version for row in versions.of_model(connection, MODEL.name)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_new_rows_that_are_not_due_make_no_version(world: World) -> None:
    """Two nights of newer rows gave v4 and v6, equal to v2; each was qualified and rolled out without a word."""
    first = world.train(DAYS)
    assert first.is_new
    known = world.versions()
    again = world.train(DAYS)
    assert (again.version, again.heuristic, again.is_new) == (first.version, first.heuristic, False)
    assert again.snapshot != first.snapshot
    assert again.rows_not_due == first.rows_not_due + 4
    assert (again.rows_trained, again.rows_held_out) == (first.rows_trained, first.rows_held_out)
    assert world.versions() == known
    with world.store.ledger.read() as connection:
        assert len(events.newest(connection, kind="version.registered", limit=9)) == len(known) == 2
    qualify.qualify(world.store, MODEL, first.version, now_us=micros(START + timedelta(days=DAYS)))
    assert world.train(DAYS).version == first.version, "in whatever state it is"


def test_a_due_row_makes_a_version(world: World) -> None:
    """A day later the labels of one more day are due: another held-out part, and other training rows."""
    first, later = world.train(DAYS), world.train(DAYS + 1)
    assert later.is_new
    assert later.version != first.version


def test_rows_that_are_held_out_besides_make_a_version(world: World) -> None:
    """A few more rows of the newest day: the training rows are the same, and the gates have others."""
    first = world.train(DAYS - 0.6)
    second = world.train(DAYS - 0.1)
    assert first.rows_trained == second.rows_trained, "the same training rows"
    assert first.rows_held_out < second.rows_held_out
    assert second.is_new
    assert find_equal_champion(world.store, MODEL.name, second.version) == ("", ""), "no version serves"
    write(world.store, traffic_plans.append, TrafficPlan(MODEL.name, 0, first.version), now_us=1)
    champion, why = find_equal_champion(world.store, MODEL.name, second.version)
    assert champion == first.version
    rows = f"{first.rows_trained} rows"
    assert why.startswith(
        f"{second.version} has the same training rows as the champion {first.version}, {rows}: "
    )
    others = [
        first,
        world.train(DAYS - 0.1, seed=1),
        world.train(DAYS - 0.1, replace(MODEL, learner=LogisticRegression(c=0.5))),
        world.train(DAYS + 1),
    ]
    for other in others:
        assert find_equal_champion(world.store, MODEL.name, other.version) == ("", "")
    assert find_equal_champion(world.store, MODEL.name, first.heuristic) == ("", "")


def test_another_declaration_seed_or_environment_makes_a_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.train(DAYS)
    assert world.train(DAYS, seed=1).is_new
    assert world.train(DAYS, replace(MODEL, learner=LogisticRegression(c=0.5))).is_new
    assert world.train(DAYS, replace(MODEL, features=(*MODEL.features, Weekday("at")))).is_new
    assert world.train(DAYS).version == first.version, "back to what it was"
    known = environment.environment(MODEL.learner, MODEL.heuristic)
    monkeypatch.setattr("holdfast.control.training.train.environment", lambda *_: known | {"numpy": "0.1"})
    assert world.train(DAYS).is_new


def test_a_tainted_version_is_not_given_again(world: World) -> None:
    """Its batch is backed out, and delivered again as it was: the rows are good now, and the version stays tainted."""
    load(world.store, world.directory, DAYS, 5)
    now_us = micros(START + timedelta(days=60))
    first = world.train(60)
    execute_backout(
        world.store, MODEL.feeds, BatchId("loans", str(DAYS)), reason="too early", actor="ann", now_us=now_us
    )
    load(world.store, world.directory, DAYS, 5)
    again = world.train(60)
    assert again.is_new
    with world.store.ledger.read() as connection:
        assert taints.tainted(connection, "version", first.version)
        assert not taints.tainted(connection, "version", again.version)
    assert (again.rows_trained, again.rows_held_out) == (first.rows_trained, first.rows_held_out)
