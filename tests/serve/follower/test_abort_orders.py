"""No order of operations lets a version serve that was withdrawn (`tests/support/abort_orders.py`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

from holdfast.records import TrafficPlan
from holdfast.rollout.model.abort import Abort, Fit, permitted, pushed_by
from holdfast.serve.follower import plan_switch
from holdfast.serve.follower.aborts import AbortFollower
from tests.support.abort_orders import HEURISTIC, WithdrawnVersionServesError, World, directory, search


@pytest.mark.parametrize(
    ("unfit", "depth"), [((), 5), ((HEURISTIC,), 4)], ids=["each fits", "the heuristic does not"]
)
def test_no_order_of_operations_lets_a_withdrawn_version_serve(unfit: tuple[str, ...], depth: int) -> None:
    """R118, R122: but by a new rollout; and a refused abort changes nothing.

    `python -m tests.soak.abort_orders` goes on until no new state is found.
    """
    with directory() as found:
        seen = search(World(found, frozenset(unfit)), depth, twin_every=10)
    assert seen.states > 300
    assert seen.transitions > 900
    assert seen.twins > 30


def let_any_version_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The champion's place is taken by a version that is aborted itself: the fault B2."""

    def permitted_but_for_the_champion(plan: TrafficPlan, forbidden: Collection[str], fit: Fit) -> Any:
        return permitted(plan, {plan.champion} & set(forbidden), fit)

    monkeypatch.setattr(plan_switch, "permitted", permitted_but_for_the_champion)


def count_the_rollout_itself_as_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of the rollout that an abort knew of pushes the aborted version again."""

    def banned(aborts: Iterable[Abort], plan: TrafficPlan) -> frozenset[str]:
        return frozenset(
            each.version
            for each in aborts
            if (pushed := pushed_by(plan, each)) is None or pushed < each.rollout_id
        )

    monkeypatch.setattr(plan_switch, "banned", banned)


def start_without_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts reads the abort file only when it changes."""
    look = AbortFollower.look

    def only_while_it_runs(self: Any) -> None:
        if self._apply.__self__.plan is not None:
            look(self)

    monkeypatch.setattr(AbortFollower, "look", only_while_it_runs)


@pytest.mark.parametrize(
    "plant", [let_any_version_take_over, count_the_rollout_itself_as_newer, start_without_the_file]
)
def test_the_search_finds_a_planted_mistake(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with directory() as found, pytest.raises(WithdrawnVersionServesError, match="withdrawn"):
        search(World(found, frozenset()), 5)
