"""A rollback never returns to a version whose newest push did harm (R118): random histories against a literal search."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.control.rollout import pushes, reconcile
from holdfast.control.rollout.reconcile import Transition
from holdfast.errors import RefusedError
from holdfast.rollout import Event, State
from holdfast.store.db import events
from holdfast.store.rollout import rollouts, traffic_plans
from tests.support.profile import examples
from tests.support.queries import read
from tests.support.rollout_world import MODEL, World

HEURISTIC = "v1-00000000"


class History:
    """A model's rollouts, carried out on the ledger and, for the search, kept as the last thing that happened to a version."""

    def __init__(self, root: Path) -> None:
        self.world = World.open(root)
        self.known: list[str] = []
        self.last: dict[str, str] = {}  # version -> "promoted", "rolled back" or "harm"
        self.before: dict[str, str | None] = {}  # version -> the champion that its newest promotion replaced

    @property
    def champion(self) -> str | None:
        plan = self.world.plan()
        return None if plan is None else plan.champion

    def version(self, place: int) -> str:
        """An older version, or a new one."""
        others = [each for each in self.known if each != self.champion]
        if place < len(others):
            return others[place]
        self.known.append(self.world.add_version())
        return self.known[-1]

    def promote(self, place: int) -> None:
        version, before = self.version(place), self.champion
        self.world.promote(version)
        assert self.world.row().state is State.PROMOTED
        self.last[version], self.before[version] = "promoted", before

    def fail_canary(self, place: int) -> None:
        version = self.version(place)
        if self.champion is None:
            return
        self.world.begin(version)
        self.world.champion_responses()
        self.world.reconcile()
        self.world.traffic(failing=20)
        assert self.world.reconcile() == ["RollBack"]
        self.world.probe()
        self.world.reconcile()
        self.last[version] = "harm"

    def rollback(self, *, harm: str) -> None:
        """Undo the champion's promotion: an operator without harm, or Holdfast by harm after the promotion."""
        undone = self.champion
        row = None if undone is None else read(self.world.store, rollouts.promotion, MODEL, undone)
        if undone is None or row is None:
            return
        wanted = self.search(undone)
        actor = events.SYSTEM if harm else "ann"
        with self.world.store.ledger.write() as connection:
            transition = Transition(Event.ROLLBACK, harm or "smoke", actor, harm=harm)
            reconcile.commit(connection, self.world.store, row, transition, now_us=self.world.tick())
        self.last[undone] = "harm" if harm else "rolled back"
        self.world.probe()
        self.world.reconcile()
        assert self.champion == wanted

    def label_bad(self, place: int) -> None:
        """An operator labels a push that is over, such as that of a former champion, as bad."""
        rows = [
            row for row in read(self.world.store, rollouts.of_model, MODEL) if row.challenger != self.champion
        ]
        newest = {row.challenger: row for row in reversed(rows)}
        for version, row in list(newest.items())[place : place + 1]:
            try:
                pushes.relabel(
                    self.world.store,
                    row.rollout_id,
                    good=False,
                    why="a complaint",
                    actor="ann",
                    now_us=self.world.tick(),
                )
            except RefusedError:
                return  # in its bake time
            self.last[version] = "harm"

    def search(self, undone: str) -> str:
        """The version that answers instead of `undone`, found by going through what happened."""
        preferred = self.before[undone] or HEURISTIC
        newest_first = [each for each in reversed(self.known) if each != undone]
        if self.last.get(preferred, "promoted") == "promoted":
            return preferred
        for each in newest_first:
            if self.last.get(each) == "promoted":
                return each
        if self.last[preferred] != "harm":
            return preferred
        for each in newest_first:
            if each not in self.last:
                return each
        return HEURISTIC


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["promote", "promote", "harm", "undo", "canary", "label", "new"]), st.integers(0, 3)
    ),
    min_size=3,
    max_size=9,
)


@given(OPERATIONS)
@examples(12)
def test_no_rollback_returns_to_a_version_that_did_harm(operations: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        history = History(Path(directory))
        for what, place in operations:
            match what:
                case "promote":
                    history.promote(place)
                case "harm":
                    history.rollback(harm="errors 9 of 50")
                case "undo":
                    history.rollback(harm="")
                case "canary":
                    history.fail_canary(place)
                case "label":
                    history.label_bad(place)
                case "new":
                    history.version(9)
            plan = history.world.plan()
            # A server that rolls back without the ledger returns to `previous`.
            assert plan is None or plan.previous is None or history.last.get(plan.previous) != "harm"
        history.world.store.ledger.close()


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def test_the_champion_before_that_was_rolled_back_for_harm_is_passed_over(history: History) -> None:
    """As found: v2 and v4 take turns, v2 does harm at its second turn, and then v4 is rolled back."""
    history.promote(9)
    (first,) = history.known
    history.promote(9)
    second = history.champion
    history.promote(0)
    assert history.champion == first
    history.rollback(harm="errors 9 of 50")
    assert history.champion == second
    history.world.rollback(second)
    assert history.champion == HEURISTIC


def test_the_plan_keeps_no_version_loaded_that_did_harm(history: History) -> None:
    """A server without the ledger would return to it."""
    for _ in range(2):
        history.promote(9)
    first, second = history.known
    history.fail_canary(0)
    assert history.last[first] == "harm"
    history.promote(9)
    plan = read(history.world.store, traffic_plans.newest, MODEL)
    assert plan is not None
    assert plan.previous == second
    assert first not in plan.versions()
