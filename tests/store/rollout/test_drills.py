"""Rows of `drills`: begun, noted, ended, found unfinished, and found again among many."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.records import Verdict
from holdfast.rollout.model.drills import DrillKind, DrillResult, ready
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.rollout import drills
from tests.support.queries import read, write

pytestmark = pytest.mark.usefixtures("each_ledger")

BACK = DrillKind.ROLLBACK


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def _ended(store: Store, verdict: Verdict, at_us: int, kind: DrillKind = BACK, model: str = "m") -> int:
    number = write(store, drills.begin, kind, model, actor="ann", now_us=at_us)
    write(
        store,
        drills.end,
        number,
        DrillResult(verdict, "seen", 7, {"servers": ["s1"], "ms": 1.5}),
        now_us=at_us + 1,
        expires_at_us=at_us + 100,
    )
    return number


def test_a_drill_is_a_row_from_its_beginning_on(store: Store) -> None:
    number = write(store, drills.begin, BACK, "m", actor="ann", now_us=5)
    (found,) = read(store, drills.unfinished, "m")
    assert (found.drill_id, found.verdict, found.measured_duration_us, found.expires_at_us) == (
        number,
        Verdict.ERROR,
        None,
        5,
    )
    with store.ledger.write() as connection:
        drills.note(connection, number, {"plan": 3})
    assert read(store, drills.unfinished, "m")[0].evidence == {"plan": 3}
    assert read(store, drills.unfinished, "other") == ()


def test_how_it_ended_is_kept_and_reported(store: Store) -> None:
    number = _ended(store, Verdict.PASS, 10)
    (found,) = read(store, drills.of_model, "m")
    assert (found.drill_id, found.kind, found.verdict, found.measured_duration_us) == (
        number,
        BACK,
        Verdict.PASS,
        7,
    )
    assert (found.evidence, found.ended_at_us, found.expires_at_us) == (
        {"servers": ["s1"], "ms": 1.5},
        11,
        110,
    )
    assert read(store, drills.unfinished, "m") == ()
    with store.ledger.read() as connection:
        (reported,) = events.newest(connection, kind="drill.ended")
    assert (reported.subject, reported.actor, reported.explanation) == (
        f"drill/{number}",
        "ann",
        "rollback: pass: seen",
    )


def test_what_is_tried_again_and_again_hides_nothing(store: Store) -> None:
    """Neither another kind's failures nor what could not be judged: a pass is believed until it expires or fails."""
    passed = _ended(store, Verdict.PASS, 10)
    for at_us in range(20, 60):
        _ended(store, Verdict.FAIL, at_us, kind=DrillKind.RESTORE)
        _ended(store, Verdict.INCONCLUSIVE, at_us)
    found = read(store, drills.of_model, "m")
    assert [each.drill_id for each in found] == sorted((each.drill_id for each in found), reverse=True)
    assert found[-1].drill_id == passed
    assert ready(found, BACK, 109).ready
    assert not ready(found, DrillKind.RESTORE, 60).ready
    assert read(store, drills.of_model, "other") == ()
