"""A training that fails is an event, a problem and a failed run, until one succeeds; each operation has its real begin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.control.daemon import concerns
from holdfast.control.health.facts import FactsReader
from holdfast.control.interrupted_operations import TRAINING_FAILED as FAILED
from holdfast.control.interrupted_operations import report_interrupted, training_note
from holdfast.control.training.failed_trainings import RECOVERED
from holdfast.control.training.train import train
from holdfast.declaration import Model
from holdfast.errors import HoldfastError, NotFoundError
from holdfast.monitor.health import judge_health
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.db import events
from holdfast.store.db.events import EventRow
from holdfast.store.db.failed_operations import REPEATED_US, Operation
from holdfast.store.files import staging
from holdfast.store.integrations import openlineage
from holdfast.store.models import versions
from holdfast.tables.openlineage import run_events
from holdfast.train import LogisticRegression
from tests.support import late_labels
from tests.support.queries import read, write

NOW_US = late_labels.micros(late_labels.START + timedelta(weeks=late_labels.WEEKS))


class FullDisk(LogisticRegression):
    """A learner that cannot write."""

    def fit(self, *_arguments: Any, **_options: Any) -> Any:
        raise OSError("no space left on device")


class Interrupted(LogisticRegression):
    """A learner that its operator stops."""

    def fit(self, *_arguments: Any, **_options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)


def declared(learner: LogisticRegression) -> Model:
    return replace(late_labels.model(), learner=learner)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    for week in range(late_labels.WEEKS):
        late_labels.load_week(store, tmp_path, week, labelled=True)
    return store


def snapshot_of(store: Store) -> str:
    return write(
        store, snapshots.create, store.root, ["loans"], contract_hash=late_labels.LOANS.contract.hash,
        now_us=NOW_US, begun_at_us=NOW_US - 7,
    ).snapshot  # fmt: skip


def reported(store: Store) -> list[EventRow]:
    found = [each for kind in (FAILED, RECOVERED) for each in read(store, events.newest, kind=kind)]
    return sorted(found, key=lambda each: each.event_id)


def problems(store: Store) -> list[str]:
    facts = FactsReader(store, "loan").read(now_us=NOW_US)
    return [each.text for each in judge_health(facts).problems if each.kind == "training_failed"]


def runs(store: Store, event: EventRow) -> list[Mapping[str, Any]]:
    with store.ledger.read() as connection:
        return [each for fact in openlineage.of_event(connection, event) for each in run_events(fact)]


def times(events_of_run: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(each["eventType"], each["eventTime"][17:26]) for each in events_of_run]


def test_a_failed_training_is_reported_until_one_succeeds(store: Store) -> None:
    name = snapshot_of(store)
    clock = iter((NOW_US + 2_000_000, NOW_US + 5_000_000))
    with pytest.raises(HoldfastError, match="HF402"):
        train(store, declared(FullDisk()), name, now_us=NOW_US, clock_us=lambda: next(clock))
    (event,) = reported(store)
    assert (event.kind, event.subject) == (FAILED, "loan")
    assert "HF402" in event.explanation
    assert "no space left on device" in event.explanation
    (text,) = problems(store)
    assert name in text
    failed = runs(store, event)
    assert times(failed) == [("START", "00.000000"), ("FAIL", "02.000000")]
    assert [each["inputs"][0]["name"] for each in failed] == [f"snapshot/{name}"] * 2
    assert "no space left" in failed[1]["run"]["facets"]["errorMessage"]["message"]
    assert json.loads(json.dumps(failed)) == failed

    trained = train(store, declared(LogisticRegression()), name, now_us=NOW_US, clock_us=lambda: next(clock))
    assert [each.kind for each in reported(store)] == [FAILED, RECOVERED]
    assert problems(store) == []
    (row,) = [each for each in read(store, versions.of_model, "loan") if each.version == trained.version]
    assert (row.begun_at_us, row.created_at_us) == (NOW_US, NOW_US + 5_000_000)
    (made,) = read(store, events.newest, subject=trained.version, kind="version.registered")
    assert times(runs(store, made)) == [
        ("START", "59.999993"), ("COMPLETE", "00.000000"), ("START", "00.000000"), ("COMPLETE", "05.000000"),
    ]  # fmt: skip


def test_the_same_failure_is_reported_once_an_hour(store: Store) -> None:
    name = snapshot_of(store)
    for at_us in (NOW_US, NOW_US + 1, NOW_US + REPEATED_US):
        with pytest.raises(HoldfastError, match="HF402"):
            train(store, declared(FullDisk()), name, now_us=at_us)
    assert [each.at_us for each in reported(store)] == [NOW_US, NOW_US + REPEATED_US]


def test_the_same_version_again_ends_a_failure_too(store: Store) -> None:
    """It registers nothing, so the failure must end by an event of its own."""
    name = snapshot_of(store)
    train(store, declared(LogisticRegression()), name, now_us=NOW_US)
    with pytest.raises(KeyboardInterrupt):
        train(store, declared(Interrupted()), name, now_us=NOW_US)
    assert "it was interrupted" in problems(store)[0]
    train(store, declared(LogisticRegression()), name, now_us=NOW_US)
    assert problems(store) == []


def test_a_snapshot_that_does_not_exist_was_no_training(store: Store) -> None:
    with pytest.raises(NotFoundError, match="HF303"):
        train(store, declared(LogisticRegression()), "s9-00000000", now_us=NOW_US)
    assert reported(store) == []


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from holdfast.control.training.train import train
from holdfast.store import Store
from holdfast.train import LogisticRegression
from tests.support import late_labels

class Killed(LogisticRegression):
    def fit(self, *_arguments, **_options):
        os.kill(os.getpid(), signal.SIGKILL)

model = replace(late_labels.model(), learner=Killed())
train(Store.open(Path(sys.argv[1])), model, sys.argv[2], now_us=int(sys.argv[3]))
"""


@pytest.mark.process
@pytest.mark.crash
@pytest.mark.sqlite
def test_a_killed_training_is_reported_once_by_the_loop_or_the_next_command(store: Store) -> None:
    name = snapshot_of(store)

    def kill(begun_at_us: int) -> None:
        command = [sys.executable, "-c", KILLED, str(store.root), name, str(begun_at_us)]
        assert subprocess.run(command, check=False, env=os.environ).returncode == -signal.SIGKILL

    kill(NOW_US + 1_000_000)
    assert reported(store) == []
    concern = concerns()["reporting killed loads and trainings"]
    concern(store, "loan", None, now_us=NOW_US + 3_000_000)
    (event,) = reported(store)
    assert (event.kind, event.subject, event.at_us) == (FAILED, "loan", NOW_US + 3_000_000)
    assert f"training on snapshot {name} ended without a result" in event.explanation
    assert problems(store) == [event.explanation]
    failed = runs(store, event)
    assert times(failed) == [("START", "01.000000"), ("FAIL", "03.000000")]
    assert "ended without a result" in failed[1]["run"]["facets"]["errorMessage"]["message"]
    report_interrupted(store, now_us=NOW_US + 4_000_000)
    assert reported(store) == [event]
    assert staging.files_in(store.root / staging.ATTEMPTS_DIRECTORY) == []

    kill(NOW_US + 5_000_000)
    train(store, declared(LogisticRegression()), name, now_us=NOW_US + 6_000_000)
    assert [each.kind for each in reported(store)] == [FAILED, FAILED, RECOVERED]
    assert problems(store) == []


def test_a_training_that_is_under_way_or_ended_before_its_process_was_not_killed(store: Store) -> None:
    name = snapshot_of(store)

    class Observed(LogisticRegression):
        """A learner during which another process looks."""

        def fit(self, *arguments: Any, **options: Any) -> Any:
            report_interrupted(store, now_us=NOW_US)
            return super().fit(*arguments, **options)

    train(store, declared(Observed()), name, now_us=NOW_US)
    with pytest.raises(KeyboardInterrupt):
        train(store, declared(Interrupted()), name, now_us=NOW_US + 1)
    before = reported(store)
    for begun_at_us in (NOW_US, NOW_US + 1):
        note = training_note("loan", Operation(begun_at_us, name))
        (store.root / staging.ATTEMPTS_DIRECTORY / f"{begun_at_us:032}").write_text(note)
    report_interrupted(store, now_us=NOW_US + 2)
    assert reported(store) == before
    assert staging.files_in(store.root / staging.ATTEMPTS_DIRECTORY) == []
