"""Pushes from the request to the ledger: real logs, the control loop's own rounds, and what each push is called."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import insert

from holdfast.contract import Contract
from holdfast.control.collect import collector
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
from holdfast.store.rollout import evidence, evidence_windows, rollouts
from holdfast.store.telemetry import request_counts
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


def metric(history, name: str, rollout: int | None = None):
    rollout = rollout or history.world.row().rollout_id
    return next(
        each for each in read(history.world.store, evidence.of_rollout, rollout) if each.metric == name
    )


def test_a_first_version_is_censored_because_nothing_was_there_to_compare_it_with(begin):
    history = begin()
    assert (history.push().outcome, history.push().requests) == (PushOutcome.CENSORED, 0)
    assert "no champion to compare" in history.push().reason


def test_a_good_push_is_good_only_after_its_bake_time(begin):
    """R128, R129: promoted is not good."""
    history = begin(bake=timedelta(hours=2), rate_margin=None)
    version = history.promote()
    push = history.push()
    assert (push.outcome, push.challenger, push.state) == (PushOutcome.OPEN, version, State.PROMOTED)
    history.minutes(3)
    history.label()
    assert history.step() == []
    assert metric(history, "errors").step_units >= 20  # of the watch, as many as it needs
    history.world.tick(2 * HOUR_US)
    assert history.step() == ["EndBake"]
    assert (history.push().outcome, history.world.row().state) == (PushOutcome.GOOD, State.PROMOTED)
    assert "no harm in a bake time of 2 h" in history.push().reason
    assert "is labelled good" in history.reported("push.labelled")[0]
    assert history.step() == []


def test_harm_after_the_promotion_escapes_and_is_rolled_back_without_a_person(begin):
    """R117, R128: the watch goes on although the rollout rests."""
    history = begin()
    champion = history.world.plan().champion
    version = history.promote()
    history.minutes(5)
    assert history.step() == []
    history.minutes(2, lambda requested, number: {"failed": requested == version and number % 3 == 0})
    assert history.step() == ["RollBack"]
    row, push = history.world.row(), history.push()
    assert (row.state, row.actor, history.world.plan().champion) == (State.ROLLING_BACK, "holdfast", champion)
    assert "harm to errors" in row.reason
    assert push.outcome is PushOutcome.ESCAPED
    assert push.failed_or_wrong == pytest.approx(66, abs=3)
    assert push.detection_us is not None
    history.world.probe()
    assert history.step() == ["Confirm"]
    assert history.push().outcome is PushOutcome.ESCAPED


def test_labels_that_come_after_the_promotion_take_it_back(begin):
    """Traffic moved on early signals; the truth about the canary's own answers comes later (R125)."""
    history = begin(labels_per_step=0)
    version = history.version()
    history.minutes(1)
    history.label()
    history.world.begin(version)

    def wrong(requested, _number):
        return {"probability": 0.2} if requested == version else {}

    for _ in range(9):
        history.step()
        history.world.probe()
        if history.world.row().state == "canary":
            history.minutes(2, wrong)
    assert history.world.row().state is State.PROMOTED
    history.label()
    assert history.step() == ["RollBack"]
    assert "harm to quality" in history.world.row().reason
    assert history.push().outcome is PushOutcome.ESCAPED
    assert history.push().failed_or_wrong > 100


def test_a_policy_that_wants_labels_in_all_waits_for_them_before_it_gives_everything(begin):
    history = begin(labels_per_step=0, min_labels_total=100)
    history.version()
    history.minutes(1)
    history.world.begin(history.version())
    for _ in range(5):
        history.step()
        history.minutes(2)
    row = history.world.row()
    assert (row.state, row.step) == (State.CANARY, 1)
    history.label()
    assert history.step() == ["Advance"]
    assert history.world.plan().share_ppm == 1_000_000


def test_a_bake_time_without_responses_is_censored(begin):
    """No data is inconclusive, never success."""
    history = begin(bake=timedelta(hours=1))
    history.promote()
    history.world.tick(2 * HOUR_US)
    assert history.step() == ["EndBake"]
    assert history.push().outcome is PushOutcome.CENSORED
    assert "inconclusive: 0 of 20 units for errors" in history.push().reason


def test_a_newer_promotion_censors_the_bake_time_that_it_replaces(begin):
    history = begin()
    history.promote()
    older = history.world.row().rollout_id
    history.minutes(2)
    history.promote()
    assert history.push(older).outcome is PushOutcome.CENSORED
    assert f"rollout {older + 1} replaced it" in history.push(older).reason
    assert history.push(older + 1).outcome is PushOutcome.OPEN


def test_harm_that_is_shown_when_a_newer_version_replaces_it_escapes_all_the_same(begin):
    """A newer one that has everything only waits for its probe: what the older one did is not lost from the ledger."""
    history = begin()
    history.promote()
    older = history.world.row().rollout_id
    history.world.begin(history.version())
    store = history.world.store
    with store.ledger.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE rollout_evidence SET log_e = log_bound + 1 WHERE rollout_id = {older} AND metric = 'errors'"
        )
        for event in (Event.START, Event.COMPLETE, Event.CONFIRM):
            row = rollouts.newest(connection, "m")
            transition = Transition(event, "test", "ann", step=0)
            rollout.commit(connection, store, row, transition, now_us=history.world.tick())
    assert history.push(older).outcome is PushOutcome.ESCAPED
    assert f"rollout {older + 1} replaced it" in history.push(older).reason


def test_harm_in_the_bake_time_ends_a_newer_canary_with_it(begin):
    """Two cannot both move the traffic, and a version that is rolled back is no champion to compare with."""
    history = begin()
    champion = history.world.plan().champion
    version = history.promote()
    older = history.world.row().rollout_id
    history.minutes(1)
    history.world.begin(history.version())
    history.step()
    assert history.world.row().state is State.CANARY
    history.minutes(6, lambda requested, number: {"failed": requested == version and number % 3 == 0})
    assert history.step() == ["RollBack"]
    assert f"its champion, {version}, is rolled back" in history.world.row().reason
    # In the same plan: no caller is sent to the version whose harm is shown while a server has still to confirm.
    assert history.world.plan().champion == champion
    assert version not in history.world.plan().versions()
    assert history.push(older).outcome is PushOutcome.ESCAPED
    assert history.push().outcome is PushOutcome.CENSORED
    assert history.reported("traffic.withdrawn")
    history.world.probe()
    assert history.step() == ["Confirm"]
    # And it is no fallback: by the newest rollout of each version, and by what was withdrawn since.
    store = history.world.store
    with store.ledger.read() as connection:
        found = eligibility.fallback(connection, store, "m", None, warm="h", tainted={champion})
    assert found.version == "h"


def test_a_rate_that_fell_after_the_switch_is_reported_and_nothing_is_called_good(begin):
    history = begin(bake=timedelta(hours=1))
    history.minutes(20)
    history.promote()
    history.minutes(15, requests=20)
    history.label()
    assert history.step() == []
    assert "the rate of requests is 0." in history.reported("rollout.rate_changed")[0]
    history.world.tick(2 * HOUR_US)
    assert history.step() == ["EndBake"]
    assert (history.push().outcome, history.world.row().state) == (PushOutcome.CENSORED, State.PROMOTED)
    assert len(history.reported("rollout.rate_changed")) == 1


def test_scores_that_fall_a_little_after_the_switch_are_reported_once_and_censor_the_bake_time(begin):
    """A harder world does this to any version; what loses more than `bake_quality_margin` is rolled back."""
    history = begin(bake=timedelta(hours=2), rate_margin=None)
    history.promote()
    for _ in range(6):
        history.minutes(1)
        history.label(lambda _: 0.9 - 0.3)  # a score of 0.91 where it was 0.99
    assert history.step() == []
    assert "nothing is rolled back for it" in history.reported("rollout.quality_changed")[0]
    history.world.tick(2 * HOUR_US)
    assert history.step() == ["EndBake"]
    assert (history.push().outcome, history.world.row().state) == (PushOutcome.CENSORED, State.PROMOTED)
    assert "as in a world that got harder" in history.push().reason
    assert len(history.reported("rollout.quality_changed")) == 1


def test_a_version_that_fails_for_one_carrier_only_is_found(begin):
    """R115: 3 % of the requests, and all of them fail; among all requests that is no harm beyond a champion's own 3 %."""

    def failing(version):
        def does(requested, number):
            if requested == version:
                return {"failed": carrier_of(number) == "YV"}
            return {"failed": carrier_of(number) != "YV" and number % 31 == 0}  # as often, for others

        return does

    history = begin(
        slices=("carrier",), labels_per_step=0, error_margin=2.0, steps=(50, 100), units_per_step=5000
    )
    version = history.version()
    history.minutes(1)
    history.world.begin(version)
    history.step()
    taken: list[str] = []
    while not taken and history.requested < 3_000:
        history.minutes(1, failing(version), requests=200)
        taken = history.step()
    assert taken == ["RollBack"]
    assert "harm to carrier=YV: errors" in history.world.row().reason
    assert metric(history, "errors").log_e < 1.0
    assert history.push().outcome is PushOutcome.BAD


def test_slices_are_distinguished_only_by_columns_that_both_versions_have(begin):
    """A challenger without a carrier is in no slice of it when it answers, and in one when the champion answers for it: its
    failures alone would be counted there."""
    history = begin(slices=("carrier", "distance"))
    store, champion = history.world.store, history.world.plan().champion
    known = [column for column in CONTRACT.columns if column.name not in ("carrier", "late")]
    version = history.version(Contract(*known, key="id", event_time="at", label=CONTRACT.label))
    with pytest.raises(
        InputError, match=f"HF107.*'carrier', and {version} has no such column; it has id, distance"
    ):
        history.world.begin(version)
    with store.ledger.write() as connection:  # as an older release let it begin
        rollouts.insert_pending(
            connection, model="m", challenger=version, champion=champion, policy=history.policy.to_json(),
            reason="-", actor="ann", now_us=history.world.tick(),
        )  # fmt: skip
    slicer = read_context(history.world.store, MODEL).slicer
    assert slicer(champion, ["f1", "AA", 700.0, "2013-03-01T10:00:00Z"]) == ("distance=700.0",)


def test_a_person_holds_a_canary_and_harm_is_stronger(begin):
    history = begin()
    with pytest.raises(NotFoundError, match="HF410"):
        pause.pause(history.world.store, "m", actor="ann", reason="lunch", now_us=history.world.tick())
    history.minutes(1)
    version = history.version()
    number = history.world.begin(version)
    with pytest.raises(RefusedError, match="HF404"):
        pause.pause(history.world.store, "m", actor="ann", reason="lunch", now_us=history.world.tick())
    history.step()
    plan = history.world.plan()
    for _ in range(2):  # again: nothing happens
        assert (
            pause.pause(history.world.store, "m", actor="ann", reason="lunch", now_us=history.world.tick())
            == number
        )
    assert history.world.plan() == plan
    history.minutes(5)
    history.label()
    assert history.step() == []
    assert metric(history, "errors").challenger_units > 20  # evidence goes on
    pause.resume(history.world.store, "m", actor="ann", reason="back", now_us=history.world.tick())
    assert history.step() == ["Advance"]
    pause.pause(history.world.store, "m", actor="ann", reason="tea", now_us=history.world.tick())
    history.minutes(3, lambda requested, _: {"failed": requested == version})
    assert history.step() == ["RollBack"]
    assert history.push().outcome is PushOutcome.BAD
    assert history.push().failed_or_wrong > 50


def test_a_person_without_evidence_censors_and_may_report_more_later(begin):
    history = begin()
    history.minutes(1)
    number = history.world.begin(history.version())
    store = history.world.store
    with pytest.raises(RefusedError, match="is not over"):
        pushes.relabel(store, number, good=True, why="-", actor="ann", now_us=history.world.tick())
    history.step()
    history.minutes(1)
    history.world.rollback()
    assert history.push().outcome is PushOutcome.CENSORED
    assert "an operator ended it without evidence of harm" in history.push().reason
    history.world.probe()
    history.step()
    pushes.relabel(
        store, number, good=False, why="it priced in yen", actor="ann", now_us=history.world.tick()
    )
    push = history.push()
    assert (push.outcome, push.reason, push.labelled_by) == (PushOutcome.BAD, "it priced in yen", "ann")
    pushes.relabel(
        store, number, good=True, why="the prices were right", actor="bob", now_us=history.world.tick()
    )
    found = pushes.totals(pushes.listed(store, "m"))
    # No harm was shown: it was not rolled back for any.
    assert (found.pushes, found.good, found.false_rollbacks, found.censored) == (2, 1, 0, 1)
    assert "bob labels it good" in history.reported("push.labelled")[0]


def test_what_a_policy_asks_for_is_waited_for(begin):
    """R120: and a first version, which can be neither replayed nor rolled back, is requested nothing."""
    history = begin(max_drill_age=timedelta(days=7), replay_requests=100)
    history.minutes(1)
    version = history.version()
    history.world.begin(version)
    assert history.step() == []
    store, now_us = history.world.store, history.world.now_us
    passed = GateResult(
        gate_results.REPLAY, Verdict.PASS, "100 requests, as well as before", observed=100.0, bound=100.0
    )
    with store.ledger.write() as connection:
        gate_results.append(connection, version, [passed], now_us=now_us)
    assert history.step() == []

    def drilled(believed_us: int) -> None:
        with store.ledger.write() as connection:
            connection.execute(
                insert(schema.drills).values(
                    kind="rollback", model="m", verdict="pass", evidence_json="{}", explanation="done", actor="ann",
                    started_at_us=now_us, ended_at_us=now_us, expires_at_us=now_us + believed_us,
                )
            )  # fmt: skip

    drilled(0)  # the policy believes it for seven days, the drill itself does not
    assert history.step() == []
    drilled(HOUR_US)
    assert history.step() == ["Start"]


def test_a_loop_that_lost_its_lease_neither_labels_nor_rolls_back(begin):
    """D6: a loop that slept wakes up too late."""
    history = begin(bake=timedelta(hours=1))
    version = history.promote()
    stale = history.world.lease
    history.minutes(2, lambda requested, _: {"failed": requested == version})
    with history.world.store.ledger.write() as connection:
        leases.release(connection, stale)
    fresh = rollout_world.take(history.world.store, "other")
    with pytest.raises(ConflictError, match="HF304"):
        post_promotion.carry(history.world.store, "m", stale, now_us=history.world.tick())
    assert history.push().outcome is PushOutcome.OPEN
    history.world.lease = fresh
    assert history.step() == ["RollBack"]
    assert history.push().outcome is PushOutcome.ESCAPED


@pytest.mark.parametrize("point", ["rollout.before_commit", "rollout.after_commit"])
def test_a_push_is_labelled_in_the_transaction_that_ends_it(begin, point):
    """After a death in between, state, plan and label are there together, or none of them."""

    class Death(BaseException):
        pass

    def die(reached):
        if reached == point:
            raise Death

    history = begin()
    history.minutes(1)
    version = history.version()
    history.world.begin(version)
    history.step()
    history.minutes(6, lambda requested, _: {"failed": requested == version})
    failpoints.armed = die
    try:
        with pytest.raises(Death):
            history.world.reconcile()
    finally:
        failpoints.armed = None
    ended = point == "rollout.after_commit"
    assert (history.push().outcome is PushOutcome.BAD) == ended
    assert (history.world.row().state is State.ROLLING_BACK) == ended
    assert (version in history.world.plan().versions()) != ended


def test_a_rollback_of_a_good_push_without_harm_is_no_needless_one(begin):
    """Its bake time ended good and a person rolled it back for a trial: nothing was found, so nothing lasted minutes (R130)."""
    history = begin(bake=timedelta(hours=2), rate_margin=None)
    first = history.push()
    history.promote()
    history.minutes(3)
    history.label(lambda prediction: float(not prediction.endswith("-50/0")))  # one in a hundred
    history.world.tick(2 * HOUR_US)
    assert history.step() == ["EndBake"]
    ended = history.push()
    history.world.rollback()
    history.minutes(3)
    history.label(lambda _: 0.0)
    push = history.push()
    assert (push.state, push.outcome, push.for_harm) == (State.ROLLING_BACK, PushOutcome.GOOD, False)
    assert push.detection_us is None
    assert pushes.totals(pushes.listed(history.world.store, "m")).false_rollbacks == 0
    # What others answered since, and what the first version did, is none of its numbers.
    assert 0 < push.failed_or_wrong == ended.failed_or_wrong < push.requests
    assert (history.push(first.rollout_id).requests, history.push(first.rollout_id).failed_or_wrong) == (0, 0)


def test_a_rollback_for_harm_that_is_called_good_later_is_a_needless_one(begin):
    history = begin()
    version = history.promote()
    history.minutes(2, lambda requested, _: {"failed": requested == version})
    assert history.step() == ["RollBack"]
    why = "the callers sent rubbish"
    pushes.relabel(
        history.world.store,
        history.push().rollout_id,
        good=True,
        why=why,
        actor="ann",
        now_us=history.world.tick(),
    )
    push = history.push()
    assert (push.outcome, push.for_harm, push.detection_us is None) == (PushOutcome.GOOD, True, False)
    assert pushes.totals(pushes.listed(history.world.store, "m")).false_rollbacks == 1


def test_labels_that_come_after_the_bake_time_count_for_the_requests_in_it(begin):
    """R128: labels come weeks later; what was predicted in the bake time was wrong in it, whenever that is known."""
    history = begin(bake=timedelta(hours=2), rate_margin=None)
    history.promote()
    before = history.push().failed_or_wrong
    history.minutes(3, lambda _version, number: {"probability": 0.1 if number % 50 == 0 else 0.9})
    wrong = sum(number % 50 == 0 for number in range(history.requested - 299, history.requested + 1))
    history.world.tick(3 * HOUR_US)
    assert history.step() == ["EndBake"]
    history.minutes(2, lambda _version, _number: {"probability": 0.1})  # wrong, but after the bake time
    assert history.push().failed_or_wrong == before
    history.label()
    assert history.push().failed_or_wrong == before + wrong


def test_a_push_has_every_request_that_its_challenger_was_sent(begin):
    """Those of windows that were open when it ended, and those served or collected afterwards, count too."""
    history = begin()
    version = history.version()
    history.minutes(1)
    history.world.begin(version)
    while history.world.row().state != "canary":
        history.step()
        history.world.probe()
    sent: list[bool] = []

    def fails_at_times(requested, number):
        failed = number % 40 == 0
        if requested == version:
            sent.append(failed)
        return {"failed": failed and requested == version, "probability": 0.1 if number % 7 == 0 else 0.9}

    def check():
        push, store = history.push(), history.world.store
        served = read(store, request_counts.requests_by_version, MODEL)[version]
        assert (push.requests, push.failed) == (len(sent), sum(sent)) == (served + push.failed, push.failed)
        assert push.failed_or_wrong == push.failed + push.wrong <= push.requests

    plan = history.world.plan()
    history.minutes(2, fails_at_times, requests=110)
    assert read(history.world.store, evidence_windows.of_rollout, history.world.row().rollout_id)
    check()
    history.world.rollback()
    history.world.probe()
    assert history.step() == ["Confirm"]
    check()
    history.minutes(1, fails_at_times, requests=110, plan=plan)
    check()
    history.label()
    wrong = history.push().wrong
    assert 0 < wrong < len(sent)
    before = len(sent)
    history.world.tick(HOUR_US)
    history.minutes(1, fails_at_times)
    collector.close_windows(history.world.store, MODEL, history.world.lease, now_us=history.world.tick())
    assert read(history.world.store, evidence_windows.of_rollout, history.world.row().rollout_id) == ()
    check()
    assert (len(sent), history.push().wrong) == (before, wrong)


def test_a_promotion_that_is_rolled_back_at_once_has_every_request_of_its_bake_time(begin):
    """A promotion that is rolled back after a minute has the requests of that minute."""
    history = begin()
    version = history.promote()
    history.minutes(1, requests=75)
    assert read(history.world.store, evidence_windows.of_rollout, history.world.row().rollout_id)
    history.world.rollback()
    history.world.probe()
    assert history.step() == ["Confirm"]
    served = read(history.world.store, request_counts.requests_by_version, MODEL)[version]
    assert history.push().requests == served
    history.world.tick(HOUR_US)
    collector.close_windows(history.world.store, MODEL, history.world.lease, now_us=history.world.tick())
    assert history.push().requests == served
