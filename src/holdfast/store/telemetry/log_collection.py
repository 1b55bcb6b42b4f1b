"""What is brought home from the servers' logs, each stretch and each join in one transaction.

Read position, file of answers, usage, evidence and labels move together or not at all: whoever is killed in
between begins again where nothing has happened yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from holdfast.feedback import Arrival, Impossible, Joined, Label, Settled, arrival, settle
from holdfast.monitor import UsageRow
from holdfast.records import MINUTE_US, Arm
from holdfast.rollout import MetricState, RequestOutcome, fold_requests, fold_scores, score
from holdfast.rollout.evidence.history import record_point
from holdfast.rollout.evidence.strata import STRATUM_US, LabelledAnswer, Stratum, stratified
from holdfast.rollout.model.metric import QUALITY
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.store import Store
from holdfast.store.durability.failpoints import fault_point
from holdfast.store.rollout import evidence, pushes, rollouts, traffic_plans
from holdfast.store.serving import servers
from holdfast.store.serving.prediction_log import FeedbackRecord
from holdfast.store.telemetry import labels, log_positions, outcomes, shadow_files, usage
from holdfast.store.telemetry import prediction_files as predictions
from holdfast.store.telemetry.labels import NewLabel
from holdfast.store.telemetry.log_positions import Position
from holdfast.store.telemetry.prediction_files import PredictionFile
from holdfast.store.telemetry.shadow_files import Answered as Shadowed
from holdfast.store.telemetry.shadow_files import PairWindow, ShadowFile

_EXAMPLES = 3
_LONGEST_SUBJECT = 127


@dataclass(frozen=True, slots=True)
class Window:
    """Requests of one rollout within one minute: what its sequential tests see as one window."""

    rollout: int
    minute_start_us: int
    requests: tuple[RequestOutcome, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stretch of one segment, from `position` to byte `end_bytes`, and what it amounts to."""

    model: str
    position: Position
    end_bytes: int
    predictions: int
    file: PredictionFile | None
    usage: tuple[UsageRow, ...]
    windows: tuple[Window, ...]
    feedback: tuple[FeedbackRecord, ...]
    shadow_file: ShadowFile | None = None
    pairs: tuple[PairWindow, ...] = ()
    shadowed: tuple[Shadowed, ...] = ()


@dataclass(frozen=True, slots=True)
class SortedLabels:
    """Labels that may be taken, and those that were refused, with the reason."""

    taken: tuple[NewLabel, ...]
    refused: tuple[tuple[FeedbackRecord, Arrival], ...]


def sort_labels(feedback: Iterable[FeedbackRecord], known: dict[str, float]) -> SortedLabels:
    """Which labels may be taken, in the order in which they came; `known` are the ledger's values."""
    values = dict(known)
    taken: list[NewLabel] = []
    refused: list[tuple[FeedbackRecord, Arrival]] = []
    for record in feedback:
        match arrival(record.prediction, record.value, values.get(record.prediction)):
            case Arrival.TAKEN:
                values[record.prediction] = record.value
                taken.append(NewLabel(record.prediction, record.value, record.source[:63], record.at_us))
            case Arrival.REPEATED:
                pass
            case Arrival.CONTRADICTS | Arrival.MALFORMED as why:
                refused.append((record, why))
    return SortedLabels(tuple(taken), tuple(refused))


def keep(store: Store, lease: Lease, stretch: Stretch, *, now_us: int) -> None:
    """Keep one stretch of a log. Its file of answers must be written and sealed, and its stage still open.

    Raises `ConflictError` HF304 when the lease or the stretch has gone to another; then nothing is kept.
    """
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        known = labels.known(connection, [record.prediction for record in stretch.feedback])
        arrived = sort_labels(stretch.feedback, known)
        log_positions.advance(
            connection,
            stretch.position,
            stretch.end_bytes,
            predictions=stretch.predictions,
            feedback=len(stretch.feedback),
            refused=len(arrived.refused),
        )
        if stretch.file is not None:
            predictions.register(connection, stretch.file)
        usage.add(connection, stretch.model, stretch.usage)
        for window in stretch.windows:
            _fold_window(connection, window, now_us)
        labels.add(connection, arrived.taken)
        _tell_refused(connection, stretch.model, arrived.refused, now_us)
        if stretch.shadow_file is not None:
            shadow_files.register(connection, stretch.shadow_file)
            shadow_files.fold_windows(connection, stretch.pairs, now_us=now_us)
            shadow_files.fold_late(connection, stretch.shadowed, now_us=now_us)
        fault_point("collect.before_commit")
    fault_point("collect.after_commit")


def join(store: Store, lease: Lease, waiting: Sequence[Label], *, now_us: int) -> tuple[Settled, ...]:
    """Settle labels that wait: outcomes, quality evidence and the labels' own state, in one transaction.

    A label whose answer may lie in a damaged file is not settled: it waits until the file is there again.
    Raises `ConflictError` HF304 when the lease or a label has gone to another; then nothing is kept.
    """
    found = predictions.answers(store, [label.prediction_id for label in waiting])
    shadowed = shadow_files.answers(store, list(found.answers))
    for each in (*found.damaged, *shadowed.damaged):
        events.tell_once(
            store,
            at_us=now_us,
            kind="predictions.damaged",
            subject=_file_subject(each.path),
            explanation=each.explanation,
        )
    hidden = {prediction for each in found.damaged for prediction in each.sought} - found.answers.keys()
    waiting = [label for label in waiting if label.prediction_id not in hidden]
    known_servers = frozenset(server.server for server in servers.registered(store))
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        settled = settle(
            waiting, found.answers, predictions.frontiers(connection), known_servers, now_us=now_us
        )
        joined = [each for each in settled if isinstance(each, Joined)]
        outcomes.add(connection, joined, now_us=now_us)
        labels.mark_joined(connection, [each.label.prediction_id for each in joined])
        _fold_quality(connection, joined, now_us)
        shadow_files.fold_joined(connection, joined, shadowed.answered, now_us=now_us)
        impossible = [each for each in settled if isinstance(each, Impossible)]
        labels.give_up(connection, [each.label.prediction_id for each in impossible])
        _tell_impossible(connection, impossible, now_us)
        fault_point("join.before_commit")
    return settled


def _fold_window(connection: Connection, window: Window, now_us: int) -> None:
    before = evidence.canary_of_running(connection, window.rollout)
    if before:
        folded = fold_requests(before, window.requests, window.minute_start_us)
        after = [record_point(state, now_us) for state in folded]
        evidence.put(connection, window.rollout, after, now_us=now_us)


def _fold_quality(connection: Connection, joined: Sequence[Joined], now_us: int) -> None:
    by_rollout: dict[int, list[Joined]] = defaultdict(list)
    for each in joined:
        if each.answer.rollout_id is not None:
            by_rollout[each.answer.rollout_id].append(each)
    for rollout, found in sorted(by_rollout.items()):
        _fold_strata(connection, rollout, _strata(connection, found), now_us)
    for model in sorted({each.answer.model for each in joined}):
        _fold_watched(connection, model, joined, now_us)


def _fold_watched(connection: Connection, model: str, joined: Sequence[Joined], now_us: int) -> None:
    """What the champion answers while its promotion is watched is evidence about it, whatever plan it answered under."""
    watched = pushes.watched_in(connection, model)
    if watched is None:
        return
    challenger = rollouts.get_in(connection, watched.rollout_id).challenger
    found = [
        each
        for each in joined
        if (each.answer.version, each.answer.arm) == (challenger, Arm.CHAMPION)
        and each.answer.rollout_id != watched.rollout_id
    ]
    if found:
        alone = [
            Stratum(each.since_us, challenger=each.champion, champion=())
            for each in _strata(connection, found)
        ]
        _fold_strata(connection, watched.rollout_id, alone, now_us)


def _fold_strata(connection: Connection, rollout: int, strata: Sequence[Stratum], now_us: int) -> None:
    before = evidence.canary_of_running(connection, rollout)
    after = tuple(
        record_point(_after_strata(state, strata, now_us), now_us) if state.metric == QUALITY else state
        for state in before
    )
    if after:
        evidence.put(connection, rollout, after, now_us=now_us)
    if any(state.has_warned for state in after) and not any(state.has_warned for state in before):
        row = rollouts.get_in(connection, rollout)
        events.append(
            connection,
            at_us=now_us,
            kind="rollout.quality_changed",
            subject=row.subject,
            explanation=f"after the promotion of {row.challenger} the mean score is below what the champion showed; "
            "nothing is taken back for it, because a world that got harder does the same to every version",
        )


def _after_strata(state: MetricState, strata: Sequence[Stratum], now_us: int) -> MetricState:
    minute_start_us = now_us - now_us % MINUTE_US
    for each in strata:
        state = fold_scores(state, each.challenger, each.champion, minute_start_us, since_us=each.since_us)
    return state


def _strata(connection: Connection, joined: Sequence[Joined]) -> tuple[Stratum, ...]:
    """The scores of answers of one model, those apart that may not be compared."""
    first_us = min(each.answer.at_us for each in joined)
    changes_us = traffic_plans.changes_in(connection, joined[0].answer.model, first_us - STRATUM_US)
    answers = (
        LabelledAnswer(
            each.answer.prediction_id,
            each.answer.at_us,
            Arm(each.answer.arm),
            each.answer.unit,
            score(each.answer.probability, each.label.value),
        )
        for each in joined
    )
    return stratified(answers, changes_us)


def _tell_refused(
    connection: Connection, model: str, refused: Sequence[tuple[FeedbackRecord, Arrival]], now_us: int
) -> None:
    if not refused:
        return
    contradicting = [record.prediction for record, why in refused if why is Arrival.CONTRADICTS]
    malformed = [record.prediction for record, why in refused if why is Arrival.MALFORMED]
    parts = []
    if contradicting:
        parts.append(
            f"{len(contradicting)} contradict an earlier label of the same answer ({_some(contradicting)})"
        )
    if malformed:
        parts.append(f"{len(malformed)} name no answer or have no value from 0 to 1 ({_some(malformed)})")
    events.append(
        connection,
        at_us=now_us,
        kind="labels.refused",
        subject=model,
        explanation=f"Labels refused: {'; '.join(parts)}. The earlier labels stand.",
    )


def _tell_impossible(connection: Connection, impossible: Sequence[Impossible], now_us: int) -> None:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for each in impossible:
        by_reason[each.reason].append(each.label.prediction_id)
    for reason, ids in sorted(by_reason.items()):
        events.append(
            connection,
            at_us=now_us,
            kind="labels.given_up",
            subject="labels",
            explanation=f"{len(ids)} labels were given up, because {reason} ({_some(ids)}).",
        )


def _file_subject(path: str) -> str:
    return f"file/{path}"[:_LONGEST_SUBJECT]


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(each[:48] for each in ids[:_EXAMPLES])
    return shown if len(ids) <= _EXAMPLES else f"{shown}, ..."
