"""An abort that cannot be carried out leaves file and memory alike, also when the disk does not take it back."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.errors import RefusedError, UnavailableError
from holdfast.records import TrafficPlan
from holdfast.rollout.model.withdrawal import Standing
from holdfast.serve.follower import aborts as following
from holdfast.serve.follower.aborts import AbortHandler
from holdfast.serve.follower.plan_switch import PlanSwitch
from holdfast.store.durability import fsync
from holdfast.store.rollout import rollouts, withdrawals
from holdfast.store.serving import aborts
from tests.support.serving_world import CONTRACT

PLAN = TrafficPlan("m", 1, "v2", "v3", 50_000, "v1", "h", 1)
ALONE = TrafficPlan("m", 2, "v2", None, 0, None, None, None)
LOADED: dict[str, Any] = {
    name: SimpleNamespace(name=name, contract=CONTRACT, words={}, inputs=())
    for name in ("v1", "v2", "v3", "h")
}


@pytest.fixture
def switch() -> PlanSwitch:
    plane: Any = SimpleNamespace(active=None, model="m")
    made = PlanSwitch(plane, lambda: 0)
    made.apply(PLAN, LOADED, {})
    return made


@pytest.fixture
def handler(switch: PlanSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AbortHandler:
    """A handler to which, once an abort of v2 is in the file, a plan comes that leaves v2 alone."""
    add = aborts.add

    def add_before_the_plan(directory: Path, abort: Any, **checks: Any) -> Any:
        try:
            return add(directory, abort, **checks)
        finally:
            if abort.version == "v2":
                switch.apply(ALONE, LOADED, {})

    monkeypatch.setattr(following.aborts, "add", add_before_the_plan)
    return AbortHandler(switch._plane, switch, tmp_path, lambda: 0)


def refuse_writes(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_refused_abort_is_taken_back(handler: AbortHandler, switch: PlanSwitch, tmp_path: Path) -> None:
    handler.abort("v1", "bad", "ann")
    with pytest.raises(RefusedError, match="HF404"):
        handler.abort("v2", "bad", "ann")
    assert [each.version for each in aborts.load(tmp_path)] == ["v1"] == list(switch.aborts)


def test_an_abort_that_the_disk_does_not_take_back_stands(
    handler: AbortHandler, switch: PlanSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was an unforeseen OSError, which reached the operator as a defect of the server."""
    handler.abort("v1", "bad", "ann")
    remove = aborts.remove

    def remove_on_a_broken_disk(*arguments: Any) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(fsync, "replace", refuse_writes)
            remove(*arguments)

    monkeypatch.setattr(following.aborts, "remove", remove_on_a_broken_disk)
    with pytest.raises(UnavailableError, match=r"HF307.*the abort stands"):
        handler.abort("v2", "bad", "ann")
    assert [each.version for each in aborts.load(tmp_path)] == ["v1", "v2"] == list(switch.aborts)
    assert set(switch.last_resort) == {"v2"}
    switch.apply(PLAN, LOADED, {})
    active = switch._plane.active
    assert active is not None
    assert active.plan.champion == "h", "it is carried out as soon as another version can serve"


def test_a_refused_abort_that_is_not_on_disk_leaves_memory(
    handler: AbortHandler, switch: PlanSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler.abort("v1", "bad", "ann")
    monkeypatch.setattr(fsync, "make_directory", refuse_writes)
    monkeypatch.setattr(aborts, "_open_lock", refuse_writes)
    with pytest.raises(RefusedError, match="HF404"):
        handler.abort("v2", "bad", "ann")
    assert list(switch.aborts) == ["v1"]


def test_a_settled_abort_stands_until_the_disk_takes_its_end(
    switch: PlanSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The OSError ended the follower's round, and was reported as an error of the ledger."""
    handler = AbortHandler(switch._plane, switch, tmp_path, lambda: 0)
    handler.abort("v1", "bad", "ann")
    store: Any = SimpleNamespace(ledger=SimpleNamespace(read=lambda: nullcontext()))
    monkeypatch.setattr(withdrawals, "standings", lambda *_: {"v1": Standing(2, 1)})
    monkeypatch.setattr(rollouts, "under_way", lambda *_: None)
    with monkeypatch.context() as broken:
        broken.setattr(aborts, "_open_lock", refuse_writes)
        handler.end_settled(store, PLAN)
    assert [each.version for each in aborts.load(tmp_path)] == ["v1"] == list(switch.aborts)
    handler.end_settled(store, PLAN)
    assert aborts.load(tmp_path) == ()
    assert not switch.aborts
