"""Pushes from the request to the ledger: real logs, the control loop's own rounds, and what each push is called."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import insert

from holdfast.contract import Contract
from holdfast.control.collect.log_summary import read_context
from holdfast.control.evaluation import eligibility
from holdfast.control.rollout import pause, post_promotion, pushes
from holdfast.control.rollout import reconcile as rollout
from holdfast.control.rollout.reconcile import Transition
from holdfast.errors import ConflictError, InputError, NotFoundError, RefusedError
from holdfast.qualify import GateResult
from holdfast.records import Verdict
from holdfast.rollout import Event, PushOutcome, State
from holdfast.store.db import leases, schema
from holdfast.store.durability import failpoints
from holdfast.store.models import gate_results
from holdfast.store.rollout import evidence, rollouts
from tests.support import rollout_world
from tests.support.push_world import CONTRACT, MODEL, Pushes, carrier_of
from tests.support.queries import read

HOUR_US = 3_600_000_000


@pytest.fixture
def begin(tmp_path):
    def opened(**policy):
        made = Pushes.open(tmp_path / "store", tmp_path / "log", **policy)
        made.promote()
        return made

    return opened


def metric(story, name: str, rollout: int | None = None):
    rollout = rollout or story.world.row().rollout_id
    return next(each for each in read(story.world.store, evidence.of_rollout, rollout) if each.metric == name)


def test_a_first_version_is_censored_because_nothing_was_there_to_compare_it_with(begin):
    story = begin()
    assert (story.push().outcome, story.push().requests) == (PushOutcome.CENSORED, 0)
    assert "no champion to compare" in story.push().reason


def test_a_good_push_is_good_only_after_its_bake_time(begin):
    """R128, R129: promoted is not good."""
    story = begin(bake=timedelta(hours=2), rate_margin=None)
    version = story.promote()
    push = story.push()
    assert (push.outcome, push.challenger, push.state) == (PushOutcome.OPEN, version, State.PROMOTED)
    story.minutes(3)
    story.label()
    assert story.step() == []
    assert metric(story, "errors").step_units >= 20  # of the watch, as many as it needs
    story.world.tick(2 * HOUR_US)
    assert story.step() == ["EndBake"]
    assert (story.push().outcome, story.world.row().state) == (PushOutcome.GOOD, State.PROMOTED)
    assert "no harm in a bake time of 2 h" in story.push().reason
    assert "is labelled good" in story.told("push.labelled")[0]
    assert story.step() == []


def test_harm_after_the_promotion_escapes_and_is_rolled_back_without_a_person(begin):
    """R117, R128: the watch goes on although the rollout rests."""
    story = begin()
    champion = story.world.plan().champion
    version = story.promote()
    story.minutes(5)
    assert story.step() == []
    story.minutes(2, lambda asked, number: {"failed": asked == version and number % 3 == 0})
    assert story.step() == ["RollBack"]
    row, push = story.world.row(), story.push()
    assert (row.state, row.actor, story.world.plan().champion) == (State.ROLLING_BACK, "holdfast", champion)
    assert "harm to errors" in row.reason
    assert push.outcome is PushOutcome.ESCAPED
    assert push.failed_or_wrong == pytest.approx(66, abs=3)
    assert push.detection_us is not None
    story.world.probe()
    assert story.step() == ["Confirm"]
    assert story.push().outcome is PushOutcome.ESCAPED


def test_labels_that_come_after_the_promotion_take_it_back(begin):
    """Traffic moved on early signals; the truth about the canary's own answers comes later (R125)."""
    story = begin(labels_per_step=0)
    version = story.version()
    story.minutes(1)
    story.label()
    story.world.begin(version)

    def wrong(asked, _number):
        return {"probability": 0.2} if asked == version else {}

    for _ in range(9):
        story.step()
        story.world.probe()
        if story.world.row().state == "canary":
            story.minutes(2, wrong)
    assert story.world.row().state is State.PROMOTED
    story.label()
    assert story.step() == ["RollBack"]
    assert "harm to quality" in story.world.row().reason
    assert story.push().outcome is PushOutcome.ESCAPED
    assert story.push().failed_or_wrong > 100


def test_a_policy_that_wants_labels_in_all_waits_for_them_before_it_gives_everything(begin):
    story = begin(labels_per_step=0, min_labels_total=100)
    story.version()
    story.minutes(1)
    story.world.begin(story.version())
    for _ in range(5):
        story.step()
        story.minutes(2)
    row = story.world.row()
    assert (row.state, row.step) == (State.CANARY, 1)
    story.label()
    assert story.step() == ["Advance"]
    assert story.world.plan().share_ppm == 1_000_000


def test_a_bake_time_without_answers_is_censored(begin):
    """No data is inconclusive, never success."""
    story = begin(bake=timedelta(hours=1))
    story.promote()
    story.world.tick(2 * HOUR_US)
    assert story.step() == ["EndBake"]
    assert story.push().outcome is PushOutcome.CENSORED
    assert "inconclusive: 0 of 20 units for errors" in story.push().reason


def test_a_newer_promotion_censors_the_bake_time_that_it_replaces(begin):
    story = begin()
    story.promote()
    older = story.world.row().rollout_id
    story.minutes(2)
    story.promote()
    assert story.push(older).outcome is PushOutcome.CENSORED
    assert f"rollout {older + 1} replaced it" in story.push(older).reason
    assert story.push(older + 1).outcome is PushOutcome.OPEN


def test_harm_that_is_shown_when_a_newer_version_replaces_it_escapes_all_the_same(begin):
    """A newer one that has everything only waits for its probe: what the older one did is not lost from the ledger."""
    story = begin()
    story.promote()
    older = story.world.row().rollout_id
    story.world.begin(story.version())
    store = story.world.store
    with store.ledger.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE rollout_evidence SET log_e = log_bound + 1 WHERE rollout_id = {older} AND metric = 'errors'"
        )
        for event in (Event.START, Event.COMPLETE, Event.CONFIRM):
            row = rollouts.newest(connection, "m")
            transition = Transition(event, "test", "ann", step=0)
            rollout.commit(connection, store, row, transition, now_us=story.world.tick())
    assert story.push(older).outcome is PushOutcome.ESCAPED
    assert f"rollout {older + 1} replaced it" in story.push(older).reason


def test_harm_in_the_bake_time_ends_a_newer_canary_with_it(begin):
    """Two cannot both move the traffic, and a version that is taken back is no champion to compare with."""
    story = begin()
    champion = story.world.plan().champion
    version = story.promote()
    older = story.world.row().rollout_id
    story.minutes(1)
    story.world.begin(story.version())
    story.step()
    assert story.world.row().state is State.CANARY
    story.minutes(6, lambda asked, number: {"failed": asked == version and number % 3 == 0})
    assert story.step() == ["RollBack"]
    assert f"its champion, {version}, is rolled back" in story.world.row().reason
    # In the same plan: nobody is sent to the version whose harm is shown while a server has still to confirm.
    assert story.world.plan().champion == champion
    assert version not in story.world.plan().versions()
    assert story.push(older).outcome is PushOutcome.ESCAPED
    assert story.push().outcome is PushOutcome.CENSORED
    assert story.told("traffic.withdrawn")
    story.world.probe()
    assert story.step() == ["Confirm"]
    # And it is no fallback: by the newest rollout of each version, and by what was withdrawn since.
    store = story.world.store
    with store.ledger.read() as connection:
        found = eligibility.fallback(connection, store, "m", None, warm="h", tainted={champion})
    assert found.version == "h"


def test_a_rate_that_fell_after_the_switch_is_reported_and_nothing_is_called_good(begin):
    story = begin(bake=timedelta(hours=1))
    story.minutes(20)
    story.promote()
    story.minutes(15, requests=20)
    story.label()
    assert story.step() == []
    assert "the rate of requests is 0." in story.told("rollout.rate_changed")[0]
    story.world.tick(2 * HOUR_US)
    assert story.step() == ["EndBake"]
    assert (story.push().outcome, story.world.row().state) == (PushOutcome.CENSORED, State.PROMOTED)
    assert len(story.told("rollout.rate_changed")) == 1


def test_scores_that_fall_a_little_after_the_switch_are_reported_once_and_censor_the_bake_time(begin):
    """A harder world does this to any version; what loses more than `bake_quality_margin` is taken back."""
    story = begin(bake=timedelta(hours=2), rate_margin=None)
    story.promote()
    for _ in range(6):
        story.minutes(1)
        story.label(lambda _: 0.9 - 0.3)  # a score of 0.91 where it was 0.99
    assert story.step() == []
    assert "nothing is rolled back for it" in story.told("rollout.quality_changed")[0]
    story.world.tick(2 * HOUR_US)
    assert story.step() == ["EndBake"]
    assert (story.push().outcome, story.world.row().state) == (PushOutcome.CENSORED, State.PROMOTED)
    assert "as in a world that got harder" in story.push().reason
    assert len(story.told("rollout.quality_changed")) == 1


def test_a_version_that_fails_for_one_carrier_only_is_found(begin):
    """R115: 3 % of the requests, and all of them fail; among all requests that is no harm beyond a champion's own 3 %."""

    def failing(version):
        def does(asked, number):
            if asked == version:
                return {"failed": carrier_of(number) == "YV"}
            return {"failed": carrier_of(number) != "YV" and number % 31 == 0}  # as often, for others

        return does

    story = begin(
        slices=("carrier",), labels_per_step=0, error_margin=2.0, steps=(50, 100), units_per_step=5000
    )
    version = story.version()
    story.minutes(1)
    story.world.begin(version)
    story.step()
    taken: list[str] = []
    while not taken and story.asked < 3_000:
        story.minutes(1, failing(version), requests=200)
        taken = story.step()
    assert taken == ["RollBack"]
    assert "harm to carrier=YV: errors" in story.world.row().reason
    assert metric(story, "errors").log_e < 1.0
    assert story.push().outcome is PushOutcome.BAD


def test_slices_are_told_apart_only_by_columns_that_both_versions_have(begin):
    """A challenger without a carrier is in no slice of it when it answers, and in one when the champion answers for it: its
    failures alone would be counted there."""
    story = begin(slices=("carrier", "distance"))
    store, champion = story.world.store, story.world.plan().champion
    known = [column for column in CONTRACT.columns if column.name not in ("carrier", "late")]
    version = story.version(Contract(*known, key="id", event_time="at", label=CONTRACT.label))
    with pytest.raises(
        InputError, match=f"HF107.*'carrier', and {version} has no such column; it has id, distance"
    ):
        story.world.begin(version)
    with store.ledger.write() as connection:  # as an older release let it begin
        rollouts.insert_pending(
            connection, model="m", challenger=version, champion=champion, policy=story.policy.to_json(),
            reason="-", actor="ann", now_us=story.world.tick(),
        )  # fmt: skip
    slicer = read_context(story.world.store, MODEL).slicer
    assert slicer(champion, ["f1", "AA", 700.0, "2013-03-01T10:00:00Z"]) == ("distance=700.0",)


def test_a_person_holds_a_canary_and_harm_is_stronger(begin):
    story = begin()
    with pytest.raises(NotFoundError, match="HF410"):
        pause.pause(story.world.store, "m", actor="ann", reason="lunch", now_us=story.world.tick())
    story.minutes(1)
    version = story.version()
    number = story.world.begin(version)
    with pytest.raises(RefusedError, match="HF404"):
        pause.pause(story.world.store, "m", actor="ann", reason="lunch", now_us=story.world.tick())
    story.step()
    plan = story.world.plan()
    for _ in range(2):  # again: nothing happens
        assert (
            pause.pause(story.world.store, "m", actor="ann", reason="lunch", now_us=story.world.tick())
            == number
        )
    assert story.world.plan() == plan
    story.minutes(5)
    story.label()
    assert story.step() == []
    assert metric(story, "errors").challenger_units > 20  # evidence goes on
    pause.resume(story.world.store, "m", actor="ann", reason="back", now_us=story.world.tick())
    assert story.step() == ["Advance"]
    pause.pause(story.world.store, "m", actor="ann", reason="tea", now_us=story.world.tick())
    story.minutes(3, lambda asked, _: {"failed": asked == version})
    assert story.step() == ["RollBack"]
    assert story.push().outcome is PushOutcome.BAD
    assert story.push().failed_or_wrong > 50


def test_a_person_without_evidence_censors_and_may_say_more_later(begin):
    story = begin()
    story.minutes(1)
    number = story.world.begin(story.version())
    store = story.world.store
    with pytest.raises(RefusedError, match="is not over"):
        pushes.relabel(store, number, good=True, why="-", actor="ann", now_us=story.world.tick())
    story.step()
    story.minutes(1)
    story.world.rollback()
    assert story.push().outcome is PushOutcome.CENSORED
    assert "an operator ended it without evidence of harm" in story.push().reason
    story.world.probe()
    story.step()
    pushes.relabel(store, number, good=False, why="it priced in yen", actor="ann", now_us=story.world.tick())
    push = story.push()
    assert (push.outcome, push.reason, push.labelled_by) == (PushOutcome.BAD, "it priced in yen", "ann")
    pushes.relabel(
        store, number, good=True, why="the prices were right", actor="bob", now_us=story.world.tick()
    )
    found = pushes.totals(pushes.listed(store, "m"))
    # No harm was shown: nobody took it back for any.
    assert (found.pushes, found.good, found.false_rollbacks, found.censored) == (2, 1, 0, 1)
    assert "bob labels it good" in story.told("push.labelled")[0]


def test_what_a_policy_asks_for_is_waited_for(begin):
    """R120: and a first version, which can be neither replayed nor rolled back, is asked for nothing."""
    story = begin(max_drill_age=timedelta(days=7), replay_requests=100)
    story.minutes(1)
    version = story.version()
    story.world.begin(version)
    assert story.step() == []
    store, now_us = story.world.store, story.world.now_us
    passed = GateResult(
        gate_results.REPLAY, Verdict.PASS, "100 requests, as well as before", observed=100.0, bound=100.0
    )
    with store.ledger.write() as connection:
        gate_results.append(connection, version, [passed], now_us=now_us)
    assert story.step() == []

    def drilled(believed_us: int) -> None:
        with store.ledger.write() as connection:
            connection.execute(
                insert(schema.drills).values(
                    kind="rollback", model="m", verdict="pass", evidence_json="{}", explanation="done", actor="ann",
                    started_at_us=now_us, ended_at_us=now_us, expires_at_us=now_us + believed_us,
                )
            )  # fmt: skip

    drilled(0)  # the policy believes it for seven days, whoever drilled does not
    assert story.step() == []
    drilled(HOUR_US)
    assert story.step() == ["Start"]


def test_a_loop_that_lost_its_lease_neither_labels_nor_rolls_back(begin):
    """D6: whoever slept wakes up too late."""
    story = begin(bake=timedelta(hours=1))
    version = story.promote()
    stale = story.world.lease
    story.minutes(2, lambda asked, _: {"failed": asked == version})
    with story.world.store.ledger.write() as connection:
        leases.release(connection, stale)
    fresh = rollout_world.take(story.world.store, "other")
    with pytest.raises(ConflictError, match="HF304"):
        post_promotion.carry(story.world.store, "m", stale, now_us=story.world.tick())
    assert story.push().outcome is PushOutcome.OPEN
    story.world.lease = fresh
    assert story.step() == ["RollBack"]
    assert story.push().outcome is PushOutcome.ESCAPED


@pytest.mark.parametrize("point", ["rollout.before_commit", "rollout.after_commit"])
def test_a_push_is_labelled_in_the_transaction_that_ends_it(begin, point):
    """Whoever dies in between finds state, plan and label together, or none of them."""

    class Death(BaseException):
        pass

    def die(reached):
        if reached == point:
            raise Death

    story = begin()
    story.minutes(1)
    version = story.version()
    story.world.begin(version)
    story.step()
    story.minutes(6, lambda asked, _: {"failed": asked == version})
    failpoints.armed = die
    try:
        with pytest.raises(Death):
            story.world.reconcile()
    finally:
        failpoints.armed = None
    ended = point == "rollout.after_commit"
    assert (story.push().outcome is PushOutcome.BAD) == ended
    assert (story.world.row().state is State.ROLLING_BACK) == ended
    assert (version in story.world.plan().versions()) != ended


def test_a_rollback_of_a_good_push_without_harm_is_no_needless_one(begin):
    """Its watch ended good and a person took it back for a trial: nothing was found out, so nothing took minutes (R130)."""
    story = begin(bake=timedelta(hours=2), rate_margin=None)
    first = story.push()
    story.promote()
    story.minutes(3)
    story.label(lambda prediction: float(not prediction.endswith("-50/0")))  # one in a hundred
    story.world.tick(2 * HOUR_US)
    assert story.step() == ["EndBake"]
    ended = story.push()
    story.world.rollback()
    story.minutes(3)
    story.label(lambda _: 0.0)
    push = story.push()
    assert (push.state, push.outcome, push.for_harm) == (State.ROLLING_BACK, PushOutcome.GOOD, False)
    assert push.detection_us is None
    assert pushes.totals(pushes.listed(story.world.store, "m")).false_rollbacks == 0
    # What others answered since, and what the first version did, is none of its numbers.
    assert 0 < push.failed_or_wrong == ended.failed_or_wrong < push.requests
    assert (story.push(first.rollout_id).requests, story.push(first.rollout_id).failed_or_wrong) == (0, 0)


def test_a_rollback_for_harm_that_is_called_good_later_is_a_needless_one(begin):
    story = begin()
    version = story.promote()
    story.minutes(2, lambda asked, _: {"failed": asked == version})
    assert story.step() == ["RollBack"]
    why = "the callers sent rubbish"
    pushes.relabel(
        story.world.store, story.push().rollout_id, good=True, why=why, actor="ann", now_us=story.world.tick()
    )
    push = story.push()
    assert (push.outcome, push.for_harm, push.detection_us is None) == (PushOutcome.GOOD, True, False)
    assert pushes.totals(pushes.listed(story.world.store, "m")).false_rollbacks == 1
