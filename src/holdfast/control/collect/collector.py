"""Collect the servers' prediction logs and join their labels: each part of a log, and each join, in one transaction.

Level-triggered: each round reads from the logs and the ledger what is left to do. Read position, file, usage, evidence and
labels move together or not at all, so a killed collector begins again where nothing has happened yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from holdfast.control.collect import arriving_labels
from holdfast.control.collect.arriving_labels import some_of
from holdfast.control.collect.evidence_fold import (
    fold_due_windows,
    fold_joined_pairs,
    fold_late_pairs,
    fold_quality,
    fold_shadow_windows,
    gather_requests,
)
from holdfast.control.collect.label_rows import count_rows
from holdfast.control.collect.log_summary import (
    LogContext,
    LogSummary,
    read_context,
    summarise,
)
from holdfast.control.collect.outcome_slices import slices_of
from holdfast.errors import IntegrityError
from holdfast.feedback import (
    Frontier,
    Impossible,
    Joined,
    Label,
    Settlement,
    Waiting,
    counting_label,
    full_id,
    names_row,
    settle_labels,
)
from holdfast.formatting import counted
from holdfast.records import Corrections
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files.staging import staged
from holdfast.store.rollout import evidence_windows
from holdfast.store.serving import label_rules, log_directory, prediction_log, servers
from holdfast.store.serving.prediction_log import FeedbackRecord
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import collected_log, labels, outcome_slices, outcomes, request_counts
from holdfast.store.telemetry.collected_log import (
    PREDICTIONS,
    SHADOWS,
    CollectedFile,
    Damaged,
    Position,
)

RETAINED_LOG_BYTES: Final = 1024**3
"""How much of the collected log stays in each server's directory, for the operator to look at."""

MAX_STRETCHES: Final = 4
"""How many parts of each server's log one round collects: the loop's other work must not wait for a backlog."""

MAX_LABELS: Final = 20_000
"""How many labels one transaction joins."""

MAX_JOINS: Final = 4
"""How many transactions that settle labels one round makes."""

MAX_LOOKS: Final = 16
"""How many times one round looks for labels that are due: those that it finds no prediction for must not hold it up."""

DAMAGED_RETRY_US: Final = 60_000_000
"""How long a label waits whose prediction may be in a damaged file, before the file is read again."""


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
        known = servers.registered(connection, model)
    # A directory of the same path and name may be that of another host's server, whose log this one does not continue.
    found = [each for each in known if log_directory.is_log_of(each.log_directory, each.server, each.boot_id)]
    records = sum(_collect_server(store, server, context, lease, now_us) for server in found)
    close_windows(store, model, lease, now_us=now_us)
    return records


def close_windows(store: Store, model: str, lease: Lease, *, now_us: int) -> None:
    """Fold the open windows of `model` whose time has come: after the logs of all servers were collected in a round.

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
        HF304 if another loop has the lease; it goes on with the windows.
    """
    with store.ledger.read() as connection:
        if not evidence_windows.due(connection, model, now_us):
            return
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        fold_due_windows(connection, model, now_us)
        failpoint("windows.before_commit")


def join(store: Store, model: str, lease: Lease, *, now_us: int) -> int:
    """Join the labels that are due with their predictions; return how many were settled, joined or deleted.

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
    done = joins = looks = 0
    while joins < MAX_JOINS and looks < MAX_LOOKS:
        with store.ledger.read() as connection:
            due = labels.due(connection, now_us=now_us, limit=MAX_LABELS, without_servers=others)
        if not due:
            break
        settled = commit_join(store, lease, model, due, now_us=now_us)
        many = sum(1 for each in settled if not isinstance(each, Waiting))
        done += many
        joins += many > 0
        looks += 1
    return done


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
                model=server.model, server=server.server, segment=segment, numbers=summary.number_range,
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
    rows, _ = count_rows(
        store, [each.prediction for each in summary.feedback], summary.rows["prediction"].to_list()
    )
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        frontier = collected_log.frontiers(connection).get(stretch.position.server)
        collected_log.advance(
            connection,
            stretch.position,
            stretch.end_bytes,
            predictions=summary.predictions,
            feedback=len(summary.feedback) + len(summary.key_feedback),
        )
        if stretch.file is not None:
            collected_log.register(connection, PREDICTIONS, stretch.file)
        request_counts.add(connection, stretch.model, summary.usage)
        gather_requests(connection, summary.requests, now_us)
        rejected = arriving_labels.take(
            connection, stretch.model, summary.feedback, summary.key_feedback, rows, now_us=now_us
        )
        collected_log.count_rejected(connection, stretch.position, rejected)
        _wake_labels(connection, stretch, frontier, now_us)
        if stretch.shadow_file is not None:
            collected_log.register(connection, SHADOWS, stretch.shadow_file)
            fold_shadow_windows(connection, summary.pair_windows, now_us)
            fold_late_pairs(connection, collected_log.shadow_pairs(summary.shadow_rows), now_us)
        failpoint("collect.before_commit")
    failpoint("collect.after_commit")


def _wake_labels(connection: Transaction, stretch: Stretch, frontier: Frontier | None, now_us: int) -> None:
    """Make the labels due that waited for this part of the log, and those for numbers in it that were not logged."""
    server, segment = stretch.position.server, stretch.position.segment
    for named, (first, last) in stretch.summary.numbers.items():
        continues = named == segment and frontier is not None and frontier.segment == segment
        begin = min(first, frontier.number + 1) if continues and frontier is not None else first
        labels.wake(connection, server, named, begin, last, now_us=now_us)
    if stretch.position.collected_bytes == 0:
        labels.wake_earlier_segments(connection, server, segment, now_us=now_us)


def commit_join(
    store: Store, lease: Lease, model: str, waiting: Sequence[Label], *, now_us: int
) -> tuple[Settlement, ...]:
    """Join waiting labels with their predictions, and commit outcomes, quality evidence and the labels' states.

    A label whose prediction may be in a damaged file is not settled: it waits until the file is back. One that names no row
    is taken again once its request is collected: with the only row, or into the quarantine.

    Parameters
    ----------
    store
        The store.
    lease
        The lease of the control loop.
    model
        The model of the predictions.
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
        located = collected_log.locate(
            connection,
            PREDICTIONS,
            [label.prediction_id for label in waiting if names_row(label.prediction_id)],
        )
    rows, damaged_requests = count_rows(store, [label.prediction_id for label in waiting])
    found, damaged = collected_log.read_predictions(store.root, located)
    with store.ledger.read() as connection:
        located = collected_log.locate(connection, SHADOWS, found)
    pairs, damaged_shadows = collected_log.read_shadow_pairs(store.root, located)
    emit_damaged(store, (*damaged, *damaged_requests, *damaged_shadows), now_us)
    sought = {prediction for each in (*damaged, *damaged_requests) for prediction in each.sought}
    hidden = {
        label.prediction_id
        for label in waiting
        if full_id(label.prediction_id) in sought and label.prediction_id not in found.keys() | rows.keys()
    }
    visible = [label for label in waiting if label.prediction_id not in hidden | rows.keys()]
    with store.ledger.read() as connection:
        known_servers = frozenset(server.server for server in servers.registered(connection))
    slices = slices_of(store, found.values())
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        _take_again(connection, model, rows, now_us)
        rules = label_rules.read(connection, model)
        settled = settle_labels(
            visible, found, collected_log.frontiers(connection), known_servers, rules, now_us=now_us
        )
        joined = _with_counting_labels(connection, settled, rules.corrections)
        outcomes.add(connection, joined, now_us=now_us)
        of_joined = [each.label.prediction_id for each in joined]
        outcome_slices.add(connection, {each: slices[each] for each in of_joined if each in slices})
        labels.mark_joined(connection, [each.label.prediction_id for each in joined])
        # A label that was withdrawn and came back was counted when it came first.
        counted = outcomes.withdrawn(connection, [each.label.prediction_id for each in joined])
        fresh = [each for each in joined if each.label.prediction_id not in counted]
        fold_quality(connection, fresh, now_us)
        fold_joined_pairs(connection, fresh, pairs, now_us)
        impossible = [each for each in settled if isinstance(each, Impossible)]
        labels.remove(connection, [each.label.prediction_id for each in impossible], waiting=True)
        _emit_unmatched(connection, impossible, now_us)
        later = {each.label.prediction_id: each.look_at_us for each in settled if isinstance(each, Waiting)}
        labels.look_again(connection, later | dict.fromkeys(hidden, now_us + DAMAGED_RETRY_US))
        failpoint("join.before_commit")
    return settled


def _take_again(connection: Transaction, model: str, rows: Mapping[str, int], now_us: int) -> None:
    """Take the labels again that named no row and whose request is collected now. `rows` are the rows of each request."""
    names = sorted(rows)
    waited = [
        FeedbackRecord(each.prediction_id, each.value, each.source, each.received_at_us)
        for each in labels.histories(connection, names)
    ]
    labels.remove(connection, names, waiting=True)
    arriving_labels.take(connection, model, waited, (), rows, now_us=now_us)


def _with_counting_labels(
    connection: Transaction, settled: Sequence[Settlement], corrections: Corrections
) -> list[Joined]:
    """Return what is joined, each with the label that counts among all of its prediction."""
    joined = [each for each in settled if isinstance(each, Joined)]
    held = labels.known_labels(connection, [each.label.prediction_id for each in joined])
    counts = {name: counting_label(history, corrections).value for name, history in held.items()}
    return [
        replace(each, label=replace(each.label, value=counts[each.label.prediction_id]))
        if each.label.prediction_id in counts
        else each
        for each in joined
    ]


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
            explanation=f"{counted(len(ids), 'label', 'was', 'were')} deleted, because {reason} ({some_of(ids)}).",
        )


def emit_damaged(store: Store, damaged: Sequence[Damaged], now_us: int) -> None:
    """Report each damaged file of predictions once."""
    for each in damaged:
        with store.ledger.write() as connection:
            events.append_once(
                connection,
                at_us=now_us,
                kind="predictions.damaged",
                subject=f"file/{each.path}",
                explanation=each.explanation,
            )
