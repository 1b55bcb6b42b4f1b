"""Fold collected requests, scores and shadow pairs into the evidence of the rollouts that are under way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from holdfast.control.collect.log_summary import PairWindow
from holdfast.feedback import Joined
from holdfast.records import EVERYTHING_PPM, MINUTE_US, Arm
from holdfast.rollout import Canary, MetricState, State, fold_requests, fold_scores, score
from holdfast.rollout.evidence.evidence import count_requests
from holdfast.rollout.evidence.records import RequestOutcome, record_point
from holdfast.rollout.evidence.shadow import HUNG, LabelledPair, fold_labelled, fold_pairs
from holdfast.rollout.evidence.strata import STRATUM_US, LabelledPrediction, Stratum, stratified
from holdfast.rollout.evidence.windows import (
    UNKNOWN_SHARE,
    Gathered,
    OpenWindow,
    RequestGroup,
    close_due,
    gather,
    window_units,
)
from holdfast.rollout.model.metric import QUALITY
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import evidence, evidence_windows, rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.telemetry import outcomes
from holdfast.store.telemetry.collected_log import ShadowPair


def gather_requests(connection: Transaction, groups: Sequence[RequestGroup], now_us: int) -> None:
    """Add collected requests to the open windows of their rollouts, and fold the windows that are full.

    Those of a rollout that has ended are counted only.
    """
    by_rollout: dict[int, list[RequestGroup]] = defaultdict(list)
    for each in groups:
        by_rollout[each.rollout_id].append(each)
    for rollout, found in sorted(by_rollout.items()):
        states = evidence.canary_of_running(connection, rollout)
        if states:
            most_units = window_units(_policy_of(connection, rollout))
            before = evidence_windows.of_rollout(connection, rollout)
            gathered = gather(before, found, most_units=most_units, now_us=now_us)
            _fold_closed(connection, rollout, states, before, gathered, now_us)
        else:
            _count(connection, rollout, [request for group in found for request in group.requests], now_us)


def fold_due_windows(connection: Transaction, model: str, now_us: int) -> None:
    """Close the windows of `model` whose time has come, and fold them; those of a rollout that has ended are counted only."""
    for rollout in evidence_windows.due(connection, model, now_us):
        states = evidence.canary_of_running(connection, rollout)
        before = evidence_windows.of_rollout(connection, rollout)
        _fold_closed(connection, rollout, states, before, close_due(before, now_us), now_us)


def _fold_closed(
    connection: Transaction,
    rollout: int,
    states: Sequence[MetricState],
    before: Sequence[OpenWindow],
    gathered: Gathered,
    now_us: int,
) -> None:
    """Write the windows of a rollout, and its evidence `states` with those that were closed."""
    evidence_windows.put(connection, rollout, before, gathered.opened)
    if not gathered.closed:
        return
    if not states:
        _count(connection, rollout, [each for window in gathered.closed for each in window.requests], now_us)
        return
    shares_ppm = {_share_of_step(rollouts.get(connection, rollout)), UNKNOWN_SHARE}
    for window in gathered.closed:
        of_step = window.share_ppm in shares_ppm
        states = fold_requests(states, window.requests, window.minute_start_us, of_step=of_step)
    evidence.put(connection, rollout, [record_point(state, now_us) for state in states], now_us=now_us)


def _count(connection: Transaction, rollout: int, requests: Sequence[RequestOutcome], now_us: int) -> None:
    """Count requests of a rollout that has ended: its evidence stays as it was decided by."""
    before = evidence.canary_of_rollout(connection, rollout)
    after = count_requests(before, requests)
    changed = [state for known, state in zip(before, after, strict=True) if state != known]
    evidence.put(connection, rollout, changed, now_us=now_us)


def _policy_of(connection: Transaction, rollout: int) -> Canary:
    return Canary.from_json(rollouts.get(connection, rollout).policy_json)


def _share_of_step(row: RolloutRow) -> int:
    """Return the challenger's share in the present step; what is verified or promoted has all traffic."""
    if row.state in (State.VERIFYING, State.PROMOTED):
        return EVERYTHING_PPM
    return Canary.from_json(row.policy_json).shares_ppm[row.step]


def fold_quality(connection: Transaction, joined: Sequence[Joined], now_us: int) -> None:
    """Fold the scores of joined labels into the quality of each rollout, and of each promotion that is baking."""
    by_rollout: dict[int, list[Joined]] = defaultdict(list)
    for each in joined:
        if each.prediction.rollout_id is not None:
            by_rollout[each.prediction.rollout_id].append(each)
    for rollout, found in sorted(by_rollout.items()):
        _fold_strata(connection, rollout, _strata(connection, found), now_us)
    for model in sorted({each.prediction.model for each in joined}):
        _fold_baking(connection, model, joined, now_us)


def fold_shadow_windows(connection: Transaction, windows: Sequence[PairWindow], now_us: int) -> None:
    """Fold the pairs of each window into its rollout; a shadow that hung is an event."""
    for window in windows:
        if any(pair.result == HUNG for pair in window.pairs):
            events.append(
                connection,
                at_us=now_us,
                kind="shadow.disabled",
                subject=rollouts.subject_of(window.rollout_id),
                explanation="The shadow did not come back from a copy; its server sends it no more.",
            )
        before = evidence.shadow_of_running(connection, window.rollout_id)
        if before:
            after = [record_point(state, now_us) for state in fold_pairs(before, window.pairs)]
            evidence.put(connection, window.rollout_id, after, now_us=now_us)


def fold_late_pairs(connection: Transaction, pairs: Iterable[ShadowPair], now_us: int) -> None:
    """Fold those of the newly collected `pairs` whose labels were joined before."""
    by_id = {each.prediction: each for each in pairs}
    known = outcomes.labels_of(connection, by_id)
    _fold_labelled(connection, [(by_id[prediction], label) for prediction, label in known.items()], now_us)


def fold_joined_pairs(
    connection: Transaction, joined: Sequence[Joined], pairs: Mapping[str, ShadowPair], now_us: int
) -> None:
    """Fold those of `pairs` whose labels are joined in this transaction.

    Parameters
    ----------
    connection
        The transaction.
    joined
        The labels that it joins.
    pairs
        Shadow pairs by prediction id.
    now_us
        The current time, microseconds since 1970 UTC.
    """
    found = [
        (pairs[each.prediction.prediction_id], each.label.value)
        for each in joined
        if each.prediction.prediction_id in pairs
    ]
    _fold_labelled(connection, found, now_us)


def _fold_labelled(connection: Transaction, found: Sequence[tuple[ShadowPair, float]], now_us: int) -> None:
    by_rollout: dict[int, list[LabelledPair]] = defaultdict(list)
    for each, label in found:
        pair = LabelledPair(each.unit, score(each.shadow, label), score(each.champion, label))
        by_rollout[each.rollout].append(pair)
    for rollout, pairs in sorted(by_rollout.items()):
        before = evidence.shadow_of_running(connection, rollout)
        if before:
            evidence.put(connection, rollout, fold_labelled(before, pairs), now_us=now_us)


def _fold_baking(connection: Transaction, model: str, joined: Sequence[Joined], now_us: int) -> None:
    # While a promotion bakes, the new champion's predictions are its evidence, under whatever plan they were made.
    baking = rollouts.baking(connection, model)
    if baking is None:
        return
    challenger = rollouts.get(connection, baking.rollout_id).challenger
    found = [
        each
        for each in joined
        if (each.prediction.version, each.prediction.arm) == (challenger, Arm.CHAMPION)
        and each.prediction.rollout_id != baking.rollout_id
    ]
    if found:
        alone = [
            Stratum(each.since_us, challenger=each.champion, champion=())
            for each in _strata(connection, found)
        ]
        _fold_strata(connection, baking.rollout_id, alone, now_us)


def _fold_strata(connection: Transaction, rollout: int, strata: Sequence[Stratum], now_us: int) -> None:
    before = evidence.canary_of_running(connection, rollout)
    after = tuple(
        record_point(_after_strata(state, strata, now_us), now_us) if state.metric == QUALITY else state
        for state in before
    )
    if after:
        evidence.put(connection, rollout, after, now_us=now_us)
    if any(state.has_warned for state in after) and not any(state.has_warned for state in before):
        row = rollouts.get(connection, rollout)
        events.append(
            connection,
            at_us=now_us,
            kind="rollout.quality_changed",
            subject=row.subject,
            explanation=f"after the promotion of {row.challenger} the mean score is below what the champion showed; "
            "nothing is rolled back for it, because a world that got harder does the same to every version",
        )


def _after_strata(state: MetricState, strata: Sequence[Stratum], now_us: int) -> MetricState:
    minute_start_us = now_us - now_us % MINUTE_US
    for each in strata:
        state = fold_scores(state, each.challenger, each.champion, minute_start_us, since_us=each.since_us)
    return state


def _strata(connection: Transaction, joined: Sequence[Joined]) -> tuple[Stratum, ...]:
    """Return the scores of one model's predictions, grouped so that only comparable ones meet."""
    without_share = [each.prediction for each in joined if each.prediction.share_ppm is None]
    changes_us: list[int] = []
    if without_share:
        first_us = min(each.at_us for each in without_share)
        changes_us = traffic_plans.changes(connection, without_share[0].model, first_us - STRATUM_US)
    predictions = (
        LabelledPrediction(
            each.prediction.prediction_id,
            each.prediction.at_us,
            Arm(each.prediction.arm),
            each.prediction.unit,
            score(each.prediction.probability, each.label.value),
            each.prediction.share_ppm,
        )
        for each in joined
    )
    return stratified(predictions, changes_us)
