"""A rollout over the real ledger: promotion, harm, commands, fencing, a process that dies in between."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.control.drills import runner
from holdfast.control.drills.live import Workspace
from holdfast.control.reports.explain import explain
from holdfast.control.rollout import start
from holdfast.control.rollout.progress import RolloutProgress, progress
from holdfast.errors import ConflictError, NotFoundError, RefusedError
from holdfast.monitor.usage import UsageRow
from holdfast.records import DAY_US, MINUTE_US, Arm, Verdict
from holdfast.rollout import State
from holdfast.rollout.model.abort import REPEATED_US
from holdfast.rollout.model.drills import DrillKind, DrillResult
from holdfast.store.db import events, leases
from holdfast.store.durability import failpoints
from holdfast.store.rollout import drills, rollouts
from holdfast.store.telemetry import request_counts
from tests.support import rollout_world
from tests.support.queries import read

POLICY_VERIFY_US = 600_000_000

if TYPE_CHECKING:
    from tests.support.rollout_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return rollout_world.World.open(tmp_path)


@pytest.fixture
def served(world: World) -> World:
    """A model whose first version is promoted and serves."""
    world.promote(world.add_version())
    assert world.row().state is State.PROMOTED
    return world


def test_a_first_version_is_verified_and_then_promoted(world: World) -> None:
    """R131, R132: it is not promoted before a probe was answered by it."""
    version = world.add_version()
    world.begin(version)
    assert world.reconcile() == ["Complete"]
    assert (world.row().state, world.row().champion) == (State.VERIFYING, None)
    assert world.reconcile() == []
    world.probe(responded="another")
    assert world.reconcile() == []
    world.probe()
    assert world.reconcile() == ["Confirm"]
    plan = world.plan()
    assert plan is not None
    assert (world.row().state, plan.champion, plan.fallback) == (State.PROMOTED, version, "v1-00000000")


def test_a_good_version_goes_through_every_step_to_promotion(served: World) -> None:
    """R112, R113, R124: shares grow on evidence only, and the old champion stays warm."""
    champion = served.row().challenger
    version = served.add_version()
    served.begin(version)
    assert served.reconcile() == []  # nothing is known about the champion's latency yet
    served.champion_responses()
    assert served.reconcile() == ["Start"]
    shares = []
    for _ in range(3):
        plan = served.plan()
        assert plan is not None
        assert (plan.champion, plan.challenger) == (champion, version)
        shares.append(plan.share_ppm)
        assert served.reconcile() == []  # no data is not success
        served.traffic()
        assert len(served.reconcile()) == 1
    assert shares == [100_000, 500_000, 1_000_000]
    plan = served.plan()
    assert plan is not None
    assert (plan.intended, plan.champion) == (version, champion)
    assert served.reconcile() == []
    served.probe()
    assert served.reconcile() == ["Confirm"]
    assert served.row().state is State.PROMOTED
    plan = served.plan()
    assert plan is not None
    assert (plan.champion, plan.challenger, plan.previous) == (version, None, champion)


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("harm", [{"failing": 20}, {"units": 0, "labelled": 60, "score": 0.1}])
def test_harm_that_shows_only_when_it_has_everything_is_rolled_back(
    served: World, steps: int, harm: dict[str, float]
) -> None:
    """R117 at 100 % and while a probe is awaited: real traffic has no champion left to compare with."""
    champion = served.row().challenger
    served.begin(served.add_version())
    served.champion_responses()
    served.reconcile()
    for _ in range(steps):
        served.traffic(labelled=20)
        served.reconcile()
    plan = served.plan()
    assert plan is not None
    assert (plan.share_ppm, served.row().state) == (1_000_000, "canary" if steps == 2 else "verifying")
    served.traffic(**harm)
    served.probe()
    assert served.reconcile() == ["RollBack"]
    assert "harm to" in served.row().reason
    plan = served.plan()
    assert plan is not None
    assert (plan.champion, plan.challenger) == (champion, None)


def test_a_version_that_no_server_survives_is_rolled_back(served: World) -> None:
    """R118: silence is not consent; no person has to notice it."""
    served.begin(served.add_version())
    served.champion_responses()
    served.reconcile()
    while served.row().state == "canary":
        served.traffic()
        served.reconcile()
    served.silence()
    assert served.reconcile() == []
    served.tick(POLICY_VERIFY_US)
    assert served.reconcile() == ["RollBack"]
    assert "no server has answered a probe yet (1 silent); timeout" in served.row().reason


def test_a_promotion_can_be_undone_after_later_rollouts_have_ended(served: World) -> None:
    """R118: what is undone is the promotion of the champion, whichever rollout was the last."""
    first = served.row().challenger
    second = served.add_version()
    served.promote(second)
    promotion = served.row().rollout_id
    served.begin(served.add_version())
    served.champion_responses()
    served.reconcile()
    served.rollback()
    served.probe()
    assert served.reconcile() == ["Confirm"]
    assert served.row().state is State.ROLLED_BACK
    served.tick(REPEATED_US)
    assert served.rollback() == promotion
    plan = served.plan()
    assert plan is not None
    assert plan.champion == first
    assert served.reconcile() == []
    with pytest.raises(ConflictError, match="HF404"):
        served.begin(served.add_version())
    served.probe()
    assert served.reconcile() == ["Confirm"]
    assert read(served.store, rollouts.get, promotion).state is State.ROLLED_BACK


def test_a_rollback_keeps_the_fallback_that_servers_have_warm(served: World) -> None:
    """A heuristic that was trained meanwhile is warm nowhere: naming it would hold the rollback up."""
    served.begin(served.add_version())
    served.champion_responses()
    served.reconcile()
    served.add_version("heuristic", "registered")
    served.rollback()
    plan = served.plan()
    assert plan is not None
    assert plan.fallback == "v1-00000000"
    served.probe()
    served.reconcile()
    newest = served.add_version("heuristic", "registered")
    served.promote(served.add_version())
    plan = served.plan()
    assert plan is not None
    assert plan.fallback == newest


def test_a_return_to_the_heuristic_is_confirmed_by_what_was_committed(world: World) -> None:
    """A newer heuristic that is trained while it rolls back changes nothing about what servers must do."""
    world.promote(world.add_version())
    world.rollback()
    world.add_version("heuristic", "registered")
    world.probe()
    assert world.reconcile() == ["Confirm"]
    assert world.row().state is State.ROLLED_BACK


def test_harm_is_rolled_back_without_a_person(served: World) -> None:
    """R117: and the plan does not name the bad version any more."""
    champion = served.row().challenger
    number = served.begin(served.add_version())
    served.champion_responses()
    served.reconcile()
    served.traffic(failing=15)
    assert served.reconcile() == ["RollBack"]
    row, plan = served.row(), served.plan()
    assert plan is not None
    assert (row.state, row.actor) == (State.ROLLING_BACK, events.SYSTEM)
    assert "harm to errors: 15 of 25" in row.reason
    assert plan.versions() == (champion, "v1-00000000")
    assert read(served.store, rollouts.rollback_seconds, number) is None
    served.probe()
    assert served.reconcile() == ["Confirm"]
    assert served.row().state is State.ROLLED_BACK
    assert 0 < (read(served.store, rollouts.rollback_seconds, number) or 0) < 10


def test_late_labels_that_show_harm_roll_back(served: World) -> None:
    served.begin(served.add_version())
    served.champion_responses()
    served.reconcile()
    served.traffic(labelled=0)
    assert served.reconcile() == []  # the policy requests labels
    served.traffic(units=0, labelled=60, score=0.2)
    assert served.reconcile() == ["RollBack"]
    assert "harm to quality" in served.row().reason


def test_patience_runs_out(served: World) -> None:
    served.begin(served.add_version())
    served.champion_responses()
    served.reconcile()
    served.tick(3_700_000_000)
    assert served.reconcile() == ["RollBack"]
    assert "timeout" in served.row().reason


@pytest.mark.parametrize("until", ["pending", "canary", "verifying", "promoted"])
def test_one_command_rolls_back_from_every_state(served: World, until: str) -> None:
    """R118."""
    champion = served.row().challenger
    version = served.add_version()
    number = served.begin(version)
    if until != "pending":
        served.champion_responses()
        served.reconcile()
    while until in ("verifying", "promoted") and served.row().state == "canary":
        served.traffic()
        served.reconcile()
    if until == "promoted":
        served.probe()
        served.reconcile()
    assert served.row().state == until
    assert served.rollback() == number
    plan = served.plan()
    assert plan is not None
    assert plan.champion == champion
    assert version not in plan.versions()
    if until == "pending":
        assert served.row().state is State.CANCELLED
    else:
        assert served.rollback() == number  # again: nothing happens
        served.probe()
        served.reconcile()
        assert served.row().state is State.ROLLED_BACK
    assert served.rollback(champion) == number - 1  # by its name the promotion before is undone
    served.probe()
    served.reconcile()
    with pytest.raises(RefusedError, match="HF404"):
        served.rollback()


def test_the_champion_keeps_its_fallback(served: World) -> None:
    """While another version is rolled out, and after it went back: until a promotion puts the champion there."""
    first, second = served.row().challenger, served.add_version()
    served.promote(second)

    def behind() -> tuple[str, str | None]:
        plan = served.plan()
        assert plan is not None
        return plan.champion, plan.previous

    assert behind() == (second, first)
    served.begin(served.add_version())
    served.champion_responses()
    seen = []
    while served.row().state is not State.VERIFYING:
        served.reconcile()
        seen.append((served.row().state, served.row().step, behind()))
        served.traffic()
    assert {each for *_, each in seen} == {(second, first)}
    assert {step for _, step, _ in seen} == {0, 1, 2}
    served.rollback()
    assert behind() == (second, first)
    served.probe()
    served.reconcile()
    served.begin(first)  # a version that is rolled out is no fallback
    served.reconcile()
    assert (served.row().state, behind()) == (State.CANARY, (second, None))
    served.rollback(first)
    assert behind() == (second, None)


def test_a_drill_is_not_required_where_none_can_pass(served: World) -> None:
    """No fallback version stands behind a model's first version without a heuristic: only a second version can."""
    model = served.model
    model.rollout = dataclasses.replace(rollout_world.POLICY, max_drill_age=timedelta(days=7))
    served.champion_responses()
    start.request(served.store, model, served.add_version(), actor="ann", now_us=served.tick())
    assert served.reconcile() == []  # the heuristic is there, and could be drilled
    with served.store.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE traffic_plans SET fallback = NULL")
    assert served.reconcile() == ["Start"]


def test_a_rollout_that_waits_for_a_drill_can_be_drilled(served: World) -> None:
    """R120: the drill used to refuse what the rollout waited for; and the status reports what that is."""
    served.champion_responses()
    model = served.model
    model.rollout = dataclasses.replace(rollout_world.POLICY, max_drill_age=timedelta(hours=1))
    start.request(served.store, model, served.add_version(), actor="ann", now_us=served.tick())
    assert served.reconcile() == []
    with served.store.ledger.read() as connection:
        found = progress(connection, "m", served.now_us)
    assert found is not None
    assert "the policy requires a drill within 1.0 h (holdfast drill rollback)" in found.waits_for
    champion = served.row().champion
    workspace = Workspace(served.store, model, (), served.tick, within_us=10**9)
    drilled = runner.run(workspace, DrillKind.ROLLBACK, actor="ann", lasts_us=10**12)
    assert "no server responds" in drilled.explanation  # it was tried: the only server is not there
    with served.store.ledger.write() as connection:
        passed = DrillResult(Verdict.PASS, "there and back")
        drills.end(connection, drilled.drill_id, passed, now_us=served.tick(), expires_at_us=10**17)
    assert served.reconcile() == ["Start"]
    assert served.plan().champion == champion


@pytest.mark.parametrize("until", ["pending", "canary", "promoted"])
def test_the_same_command_again_takes_nothing_more_back(served: World, until: str) -> None:
    """R118: neither just after the rollback was confirmed, nor when it names what was rolled back."""
    champion, version = served.row().challenger, served.add_version()
    number = served.begin(version)
    served.champion_responses()
    while served.row().state != until:
        served.reconcile()
        if served.row().state == "canary" != until:
            served.traffic()
        served.probe()
    served.rollback()
    served.probe()
    served.reconcile()
    before = served.plan(), read(served.store, rollouts.of_model, "m")
    assert served.rollback(version) == number
    with pytest.raises(RefusedError, match=f"{champion} serves: it is rolled back only if it is named"):
        served.rollback()
    assert (served.plan(), read(served.store, rollouts.of_model, "m")) == before
    served.tick(REPEATED_US)
    assert served.rollback() == number - 1


def test_what_was_promoted_after_a_rollback_is_rolled_back_by_no_name(served: World) -> None:
    served.begin(served.add_version())
    served.rollback()
    served.promote(served.add_version())
    assert served.row().state is State.PROMOTED
    assert served.rollback() == served.row().rollout_id


def test_a_named_version_is_rolled_back_or_nothing_is(served: World) -> None:
    champion, version = served.row().challenger, served.add_version()
    other = served.add_version()
    for name, why in ((version, "has no traffic"), (other, "has no traffic"), ("v9", "has no traffic")):
        with pytest.raises(RefusedError, match=why):
            served.rollback(name)
    number = served.begin(version)
    served.champion_responses()
    served.reconcile()
    with pytest.raises(RefusedError, match=f"of {version} against {champion} is canary, and comes first"):
        served.rollback(champion)
    with pytest.raises(RefusedError, match="has no traffic"):
        served.rollback(other)
    assert served.row().state is State.CANARY
    assert served.rollback(version) == number


def test_a_first_version_returns_to_the_heuristic(world: World) -> None:
    world.promote(world.add_version())
    world.rollback()
    plan = world.plan()
    assert plan is not None
    assert plan.champion == "v1-00000000"
    world.probe()
    world.reconcile()
    assert world.row().state is State.ROLLED_BACK


def test_what_may_not_begin(served: World) -> None:
    for role, state in (("candidate", "registered"), ("candidate", "refused"), ("heuristic", "qualified")):
        with pytest.raises(RefusedError, match="HF403"):
            served.begin(served.add_version(role, state))
    with pytest.raises(NotFoundError, match="HF303"):
        served.begin("v99-00000000")
    version = served.add_version()
    number = served.begin(version)
    assert served.begin(version) == number
    with pytest.raises(ConflictError, match="under way"):
        served.begin(served.add_version())


def test_a_loop_that_lost_its_lease_writes_nothing(served: World) -> None:
    """D6: the old holder slept; its decision is refused by the epoch, the new holder's stands."""
    served.begin(served.add_version())
    served.champion_responses()
    stale = served.lease
    with served.store.ledger.write() as connection:
        leases.release(connection, stale)
    fresh = rollout_world.take(served.store, "other")
    with pytest.raises(ConflictError, match="HF304"):
        served.reconcile(stale)
    assert served.row().state is State.PENDING
    assert served.reconcile(fresh) == ["Start"]


@pytest.mark.parametrize("point", failpoints.ROLLOUT_POINTS)
def test_a_loop_that_dies_leaves_all_or_nothing(served: World, point: str) -> None:
    """State, event and plan are one transaction: the next one that looks finds them together, and goes on."""

    class Death(BaseException):
        pass

    def die(reached: str) -> None:
        if reached == point:
            raise Death

    served.begin(served.add_version())
    served.champion_responses()
    before = served.plan()
    failpoints.armed = die
    try:
        with pytest.raises(Death):
            served.reconcile()
    finally:
        failpoints.armed = None
    committed = point == "rollout.after_commit"
    assert (served.row().state is State.CANARY) == committed
    assert (served.plan() != before) == committed
    with served.store.ledger.read() as connection:
        reported = events.newest(connection, subject=served.row().subject, kind="rollout.canary")
    assert len(reported) == committed
    assert served.reconcile() == ([] if committed else ["Start"])
    assert served.row().state is State.CANARY


def test_the_first_move_wins(served: World) -> None:
    """Compare and set: two loops that decided on the same row cannot both write."""
    served.begin(served.add_version())
    before = served.row()
    values = {"state": State.CANARY, "step": 0, "reason": "r", "actor": "a", "now_us": served.now_us}
    with served.store.ledger.write() as connection:
        rollouts.move(connection, before, **values)
    with pytest.raises(ConflictError, match="HF304"), served.store.ledger.write() as connection:
        rollouts.move(connection, before, **values)


def test_a_rollout_starts_at_a_few_requests_a_day(served: World) -> None:
    """The champion's latency was taken from a week, in which few requests a day are never enough."""
    needed = rollout_world.POLICY.latency_requests
    days = 30
    for _ in range(days):
        served.champion_responses(needed // days + 1)
        served.now_us += DAY_US
    served.begin(served.add_version())
    assert served.reconcile() == ["Start"]


def test_a_rollout_that_waits_for_requests_of_the_champion_reports_how_many(served: World) -> None:
    """F9: the decision knew what it waited for, and no report did."""
    served.champion_responses(29)
    number = served.begin(served.add_version())
    assert served.reconcile() == []
    with served.store.ledger.read() as connection:
        found = progress(connection, "m", served.now_us)
    assert found is not None
    champion, needed = served.row().champion, rollout_world.POLICY.latency_requests
    waits = f"29 of {needed} requests of {champion} are known"
    assert found.next.startswith(f"waits: {waits}")
    assert "ends inconclusive in" in found.next
    assert explain(served.store, number, now_us=served.now_us).next == found.next


def test_a_constant_id_is_named_and_silence_has_no_time(served: World) -> None:
    """300 requests of one unit ended "inconclusive in 42 d", and nothing named the id; without traffic a time receded."""
    served.champion_responses()
    served.begin(served.add_version())
    assert served.reconcile() == ["Start"]
    served.now_us += 2 * MINUTE_US
    served.traffic(units=1)  # and nine of the champion
    champion = served.row().champion
    assert champion is not None
    counted = UsageRow(champion, Arm.CHAMPION, "ok", served.now_us - served.now_us % MINUTE_US, 99, 99, 0, {})
    with served.store.ledger.write() as connection:
        request_counts.add(connection, "m", [counted])
    assert "came from" not in _progress(served).next, "99 requests of 10 units"
    with served.store.ledger.write() as connection:
        request_counts.add(connection, "m", [dataclasses.replace(counted, result="malformed")])
    assert "came from" not in _progress(served).next, "refused requests are no units"
    with served.store.ledger.write() as connection:
        request_counts.add(connection, "m", [dataclasses.replace(counted, requests=201)])
    found = _progress(served)
    assert found.next.endswith(
        "300 requests of this rollout came from at most 10 units: give each request or session an id of its own"
    )
    assert "none for" not in found.next
    served.now_us += 180 * MINUTE_US
    assert found.next != _progress(served).next
    assert "waits for requests: none for" in _progress(served).next
    assert _progress(served).decision_us is None
    assert _progress(served).is_stalled


def _progress(world: World) -> RolloutProgress:
    with world.store.ledger.read() as connection:
        found = progress(connection, "m", world.now_us)
    assert found is not None
    return found
