"""Collect the servers' prediction logs and join their labels: each part of a log, and each join, in one transaction.

Level-triggered: each round reads from the logs and the ledger what is left to do. Read position, file, usage, evidence and
labels move together or not at all, so a killed collector begins again where nothing has happened yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.control.collect.evidence_fold import (
    fold_joined_pairs,
    fold_late_pairs,
    fold_quality,
    fold_shadow_windows,
    fold_window,
)
from holdfast.control.collect.log_summary import (
    LogContext,
    LogSummary,
    read_context,
    summarise,
)
from holdfast.control.collect.outcome_slices import slices_of
from holdfast.errors import IntegrityError
from holdfast.feedback import (
    Arrival,
    Impossible,
    Joined,
    Label,
    Settlement,
    Waiting,
    classify_label,
    parse_id,
    settle_labels,
)
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files.staging import staged
from holdfast.store.serving import log_directory, prediction_log, servers
from holdfast.store.serving.prediction_log import FeedbackRecord
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import collected_log, key_labels, outcome_slices, outcomes, request_counts
from holdfast.store.telemetry.collected_log import (
    PREDICTIONS,
    SHADOWS,
    CollectedFile,
    Damaged,
    Position,
)
from holdfast.store.telemetry.key_labels import KeyLabel
from holdfast.store.telemetry.outcomes import NewLabel

RETAINED_LOG_BYTES: Final = 1024**3
"""How much of the collected log stays in each server's directory, for the operator to look at."""

MAX_STRETCHES: Final = 4
"""How many parts of each server's log one round collects: the loop's other work must not wait for a backlog."""

MAX_LABELS: Final = 20_000
"""How many labels one transaction joins."""

MAX_JOINS: Final = 4
"""How many transactions that settle labels one round makes."""

_EXAMPLES: Final = 3
_LONGEST_SUBJECT: Final = 127


def collect(store: Store, model: str, lease: Lease, *, now_us: int) -> int:
    """Collect what the servers of `model` have logged since the last round; return the number of records.

    A damaged segment is one event: the records before the damage are collected, the file stays as it is, and the other
    segments are collected.

    Parameters
    ----------
    store, model
        The store, and the name of the model.
    lease
        The lease of the control loop.
    now_us
        The current time, microseconds since 1970 UTC.

    Raises
    ------
    ConflictError
        HF304 if another loop has the lease or has collected the same part, which is then not counted again.
    """
    context = read_context(store, model)
    with store.ledger.read() as connection:
        found = servers.registered(connection, model)
    return sum(_collect_server(store, server, context, lease, now_us) for server in found)


def join(store: Store, model: str, lease: Lease, *, now_us: int) -> int:
    """Join waiting labels with their predictions; return how many were settled, joined or deleted.

    A label waits until its prediction is collected, or until a damaged file that may contain it is restored. A label
    without a possible prediction is deleted; an event names it.

    Parameters
    ----------
    store, model
        The store, and the name of the model.
    lease
        The lease of the control loop.
    now_us
        The current time, microseconds since 1970 UTC.

    Raises
    ------
    ConflictError
        HF304 if another loop has the lease.
    """
    with store.ledger.read() as connection:
        others = {each.server for each in servers.registered(connection) if each.model != model}
    done = joins = 0
    last = ""
    while joins < MAX_JOINS:
        with store.ledger.read() as connection:
            waiting = outcomes.waiting_labels(connection, after=last, limit=MAX_LABELS)
        if not waiting:
            return done
        last = waiting[-1].prediction_id
        ours = [label for label in waiting if not others or _server(label.prediction_id) not in others]
        if ours:
            settled = commit_join(store, lease, ours, now_us=now_us)
            many = sum(1 for each in settled if not isinstance(each, Waiting))
            done += many
            joins += many > 0
    return done


def _server(prediction: str) -> str:
    place = parse_id(prediction)
    return "" if place is None else place.server


def _collect_server(store: Store, server: Server, context: LogContext, lease: Lease, now_us: int) -> int:
    listed = log_directory.segments(server.log_directory)
    with store.ledger.read() as connection:
        known = collected_log.positions(connection, server.server)
    records = stretches = 0
    finished: list[Path] = []
    for number, path in listed:
        position = known.get(number, Position(server.server, number, 0))
        try:
            while stretches < MAX_STRETCHES and position.collected_bytes != path.stat().st_size:
                found, end = prediction_log.read(path, position.collected_bytes)
                if end == position.collected_bytes:
                    break
                summary = summarise(found, context)
                _store(store, server, position, summary, end, lease, now_us)
                records += len(found)
                stretches += 1
                position = Position(position.server, position.segment, end)
        except IntegrityError as error:
            with store.ledger.write() as connection:
                events.append_once(
                    connection,
                    at_us=now_us,
                    kind="log.damaged",
                    subject=f"log/{server.server}/{number}",
                    explanation=str(error),
                )
            continue
        if stretches >= MAX_STRETCHES:
            break
        if number != listed[-1][0]:
            finished.append(path)
    collected_log.delete_collected(finished, keep_bytes=RETAINED_LOG_BYTES)
    return records


def _store(
    store: Store, server: Server, position: Position, summary: LogSummary, end: int, lease: Lease, now_us: int
) -> None:
    segment = position.segment
    with staged(store.root) as stage:
        file = shadow_file = None
        if not summary.rows.is_empty():
            file = collected_log.write(
                stage, PREDICTIONS, summary.rows,
                model=server.model, server=server.server, segment=segment, numbers=summary.numbers,
            )  # fmt: skip
        if not summary.shadow_rows.is_empty():
            shadow_file = collected_log.write(
                stage, SHADOWS, summary.shadow_rows, model=server.model, server=server.server, segment=segment
            )
        if file is not None or shadow_file is not None:
            stage.sync()
        failpoint("collect.written")
        stretch = Stretch(server.model, position, end, summary, file, shadow_file)
        commit_stretch(store, lease, stretch, now_us=now_us)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of one log segment, from `position` to byte `end_bytes`, its contents, and the files of its rows."""

    model: str
    position: Position
    end_bytes: int
    summary: LogSummary
    file: CollectedFile | None = None
    shadow_file: CollectedFile | None = None


@dataclass(frozen=True, slots=True)
class CheckedLabels:
    """Accepted labels, and rejected ones with the reason."""

    accepted: tuple[NewLabel, ...]
    rejected: tuple[tuple[FeedbackRecord, Arrival], ...]


def check_labels(feedback: Iterable[FeedbackRecord], known: dict[str, float]) -> CheckedLabels:
    """Decide which labels are accepted, in the order in which they came; `known` are the ledger's values."""
    values = dict(known)
    accepted: list[NewLabel] = []
    rejected: list[tuple[FeedbackRecord, Arrival]] = []
    for record in feedback:
        match classify_label(record.prediction, record.value, values.get(record.prediction)):
            case Arrival.ACCEPTED:
                values[record.prediction] = record.value
                accepted.append(NewLabel(record.prediction, record.value, record.source[:63], record.at_us))
            case Arrival.REPEATED:
                pass
            case Arrival.CONTRADICTS | Arrival.MALFORMED as why:
                rejected.append((record, why))
    return CheckedLabels(tuple(accepted), tuple(rejected))


def commit_stretch(store: Store, lease: Lease, stretch: Stretch, *, now_us: int) -> None:
    """Commit one part of a log.

    Parameters
    ----------
    store
        The store.
    lease
        The lease of the control loop.
    stretch
        The part. Its files must be written and durable, and their stage still open.
    now_us
        Microseconds since 1970 UTC.

    Raises
    ------
    ConflictError
        HF304 when another loop has the lease or has collected the part; then nothing is written.
    """
    summary = stretch.summary
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        known = outcomes.known_labels(connection, [record.prediction for record in summary.feedback])
        checked = check_labels(summary.feedback, known)
        collected_log.advance(
            connection,
            stretch.position,
            stretch.end_bytes,
            predictions=summary.predictions,
            feedback=len(summary.feedback) + len(summary.key_feedback),
            rejected=len(checked.rejected),
        )
        if stretch.file is not None:
            collected_log.register(connection, PREDICTIONS, stretch.file)
        request_counts.add(connection, stretch.model, summary.usage)
        for window in summary.windows:
            fold_window(connection, window, now_us)
        outcomes.add_labels(connection, checked.accepted)
        key_labels.add(
            connection,
            stretch.model,
            [KeyLabel(each.key, each.value, each.source[:63], each.at_us) for each in summary.key_feedback],
        )
        _emit_rejected(connection, stretch.model, checked.rejected, now_us)
        if stretch.shadow_file is not None:
            collected_log.register(connection, SHADOWS, stretch.shadow_file)
            fold_shadow_windows(connection, summary.pair_windows, now_us)
            fold_late_pairs(connection, collected_log.shadow_pairs(summary.shadow_rows), now_us)
        failpoint("collect.before_commit")
    failpoint("collect.after_commit")


def commit_join(
    store: Store, lease: Lease, waiting: Sequence[Label], *, now_us: int
) -> tuple[Settlement, ...]:
    """Join waiting labels with their predictions, and commit outcomes, quality evidence and the labels' states.

    A label whose prediction may be in a damaged file is not settled: it waits until the file is back.

    Parameters
    ----------
    store
        The store.
    lease
        The lease of the control loop.
    waiting
        The labels.
    now_us
        Microseconds since 1970 UTC.

    Raises
    ------
    ConflictError
        HF304 when another loop has the lease or has joined a label; then nothing is written.
    """
    with store.ledger.read() as connection:
        located = collected_log.locate(connection, PREDICTIONS, [label.prediction_id for label in waiting])
    found, damaged = collected_log.read_predictions(store.root, located)
    with store.ledger.read() as connection:
        located = collected_log.locate(connection, SHADOWS, found)
    pairs, damaged_shadows = collected_log.read_shadow_pairs(store.root, located)
    emit_damaged(store, (*damaged, *damaged_shadows), now_us)
    hidden = {prediction for each in damaged for prediction in each.sought} - found.keys()
    waiting = [label for label in waiting if label.prediction_id not in hidden]
    with store.ledger.read() as connection:
        known_servers = frozenset(server.server for server in servers.registered(connection))
    slices = slices_of(store, found.values())
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        settled = settle_labels(
            waiting, found, collected_log.frontiers(connection), known_servers, now_us=now_us
        )
        joined = [each for each in settled if isinstance(each, Joined)]
        outcomes.add(connection, joined, now_us=now_us)
        of_joined = [each.label.prediction_id for each in joined]
        outcome_slices.add(connection, {each: slices[each] for each in of_joined if each in slices})
        outcomes.mark_joined(connection, [each.label.prediction_id for each in joined])
        # A label that was withdrawn and came back was counted when it came first.
        counted = outcomes.withdrawn(connection, [each.label.prediction_id for each in joined])
        fresh = [each for each in joined if each.label.prediction_id not in counted]
        fold_quality(connection, fresh, now_us)
        fold_joined_pairs(connection, fresh, pairs, now_us)
        impossible = [each for each in settled if isinstance(each, Impossible)]
        outcomes.delete_unmatched(connection, [each.label.prediction_id for each in impossible])
        _emit_unmatched(connection, impossible, now_us)
        failpoint("join.before_commit")
    return settled


def _emit_rejected(
    connection: Transaction, model: str, rejected: Sequence[tuple[FeedbackRecord, Arrival]], now_us: int
) -> None:
    if not rejected:
        return
    contradicting = [record.prediction for record, why in rejected if why is Arrival.CONTRADICTS]
    malformed = [record.prediction for record, why in rejected if why is Arrival.MALFORMED]
    parts = []
    if contradicting:
        parts.append(
            f"{len(contradicting)} contradict an earlier label of the same prediction ({_some(contradicting)})"
        )
    if malformed:
        parts.append(f"{len(malformed)} name no prediction or have no value from 0 to 1 ({_some(malformed)})")
    events.append(
        connection,
        at_us=now_us,
        kind="labels.rejected",
        subject=model,
        explanation=f"Labels rejected: {'; '.join(parts)}. The earlier labels stand.",
    )


def _emit_unmatched(connection: Transaction, impossible: Sequence[Impossible], now_us: int) -> None:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for each in impossible:
        by_reason[each.reason].append(each.label.prediction_id)
    for reason, ids in sorted(by_reason.items()):
        events.append(
            connection,
            at_us=now_us,
            kind="labels.unmatched",
            subject="labels",
            explanation=f"{len(ids)} labels were deleted, because {reason} ({_some(ids)}).",
        )


def emit_damaged(store: Store, damaged: Sequence[Damaged], now_us: int) -> None:
    """Report each damaged file of predictions once."""
    for each in damaged:
        with store.ledger.write() as connection:
            events.append_once(
                connection,
                at_us=now_us,
                kind="predictions.damaged",
                subject=f"file/{each.path}"[:_LONGEST_SUBJECT],
                explanation=each.explanation,
            )


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(each[:48] for each in ids[:_EXAMPLES])
    return shown if len(ids) <= _EXAMPLES else f"{shown}, ..."
