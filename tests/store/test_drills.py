"""Rows of `drills`: begun, noted, ended, found unfinished, and what the policy asks of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.records import Verdict
from holdfast.rollout.drills import DrillKind
from holdfast.store import Store, drills, events

pytestmark = pytest.mark.usefixtures("each_ledger")

BACK = DrillKind.ROLL_BACK


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def _ended(store: Store, verdict: Verdict, at_us: int, kind: DrillKind = BACK, model: str = "m") -> int:
    number = drills.begin(store, kind, model, actor="ann", now_us=at_us)
    drills.end(
        store,
        number,
        verdict=verdict,
        took_us=7,
        evidence={"servers": ["s1"], "ms": 1.5},
        explanation="seen",
        now_us=at_us + 1,
        expires_us=at_us + 100,
    )
    return number


def test_a_drill_is_a_row_from_its_beginning_on(store: Store) -> None:
    number = drills.begin(store, BACK, "m", actor="ann", now_us=5)
    (found,) = drills.unfinished(store, "m")
    assert (found.drill, found.verdict, found.took_us, found.expires_us) == (number, Verdict.ERROR, None, 5)
    with store.ledger.write() as connection:
        drills.note(connection, number, {"plan": 3})
    assert drills.unfinished(store, "m")[0].evidence == {"plan": 3}
    assert drills.unfinished(store, "other") == ()


def test_how_it_ended_is_kept_and_told(store: Store) -> None:
    number = _ended(store, Verdict.PASS, 10)
    (found,) = drills.of_model(store, "m")
    assert (found.drill, found.kind, found.verdict, found.took_us) == (number, BACK, Verdict.PASS, 7)
    assert (found.evidence, found.ended_us, found.expires_us) == ({"servers": ["s1"], "ms": 1.5}, 11, 110)
    assert drills.unfinished(store, "m") == ()
    with store.ledger.read() as connection:
        (told,) = events.newest(connection, kind="drill.ended")
    assert (told.subject, told.actor, told.explanation) == (f"drill/{number}", "ann", "roll-back: pass: seen")


def test_the_last_pass_counts_until_one_fails(store: Store) -> None:
    """What `Canary.drill_within` asks."""

    def last(model: str = "m") -> int | None:
        with store.ledger.read() as connection:
            return drills.last_passed_us(connection, model, BACK)

    assert last() is None
    _ended(store, Verdict.PASS, 10, kind=DrillKind.RESTORE)
    assert last() is None
    _ended(store, Verdict.PASS, 20)
    assert (last(), last("other")) == (21, None)
    for says_nothing in (Verdict.ERROR, Verdict.INCONCLUSIVE):
        _ended(store, says_nothing, 30)
    assert last() == 21
    _ended(store, Verdict.FAIL, 40)
    assert last() is None
    _ended(store, Verdict.PASS, 50)
    assert last() == 51
