"""Commit what was collected from the servers' logs: each part of a log, and each join of labels, in one transaction.

Read position, file, usage, evidence and labels move together or not at all. A killed collector begins again where nothing
has happened yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.control.collect.evidence_fold import (
    fold_joined_pairs,
    fold_late_pairs,
    fold_quality,
    fold_shadow_windows,
    fold_window,
)
from holdfast.control.collect.log_summary import PairWindow, Window
from holdfast.feedback import Arrival, Impossible, Joined, Label, Settlement, classify_label, settle_labels
from holdfast.monitor.usage import UsageRow
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.serving import servers
from holdfast.store.serving.prediction_log import FeedbackRecord
from holdfast.store.telemetry import collected_files, labels, log_positions, outcomes, usage
from holdfast.store.telemetry.collected_files import PREDICTIONS, SHADOWS, CollectedFile, Damaged, ShadowPair
from holdfast.store.telemetry.labels import NewLabel
from holdfast.store.telemetry.log_positions import Position

_EXAMPLES = 3
_LONGEST_SUBJECT = 127


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of one log segment, from `position` to byte `end_bytes`, and its contents."""

    model: str
    position: Position
    end_bytes: int
    predictions: int
    file: CollectedFile | None
    usage: tuple[UsageRow, ...]
    windows: tuple[Window, ...]
    feedback: tuple[FeedbackRecord, ...]
    shadow_file: CollectedFile | None = None
    pair_windows: tuple[PairWindow, ...] = ()
    pairs: tuple[ShadowPair, ...] = ()


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
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        known = labels.known(connection, [record.prediction for record in stretch.feedback])
        checked = check_labels(stretch.feedback, known)
        log_positions.advance(
            connection,
            stretch.position,
            stretch.end_bytes,
            predictions=stretch.predictions,
            feedback=len(stretch.feedback),
            rejected=len(checked.rejected),
        )
        if stretch.file is not None:
            collected_files.register(connection, PREDICTIONS, stretch.file)
        usage.add(connection, stretch.model, stretch.usage)
        for window in stretch.windows:
            fold_window(connection, window, now_us)
        labels.add(connection, checked.accepted)
        _emit_rejected(connection, stretch.model, checked.rejected, now_us)
        if stretch.shadow_file is not None:
            collected_files.register(connection, SHADOWS, stretch.shadow_file)
            fold_shadow_windows(connection, stretch.pair_windows, now_us)
            fold_late_pairs(connection, stretch.pairs, now_us)
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
        located = collected_files.locate(connection, PREDICTIONS, [label.prediction_id for label in waiting])
    found, damaged = collected_files.read_predictions(store.root, located)
    with store.ledger.read() as connection:
        located = collected_files.locate(connection, SHADOWS, found)
    pairs, damaged_shadows = collected_files.read_shadow_pairs(store.root, located)
    emit_damaged(store, (*damaged, *damaged_shadows), now_us)
    hidden = {prediction for each in damaged for prediction in each.sought} - found.keys()
    waiting = [label for label in waiting if label.prediction_id not in hidden]
    with store.ledger.read() as connection:
        known_servers = frozenset(server.server for server in servers.registered(connection))
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        settled = settle_labels(
            waiting, found, collected_files.frontiers(connection), known_servers, now_us=now_us
        )
        joined = [each for each in settled if isinstance(each, Joined)]
        outcomes.add(connection, joined, now_us=now_us)
        labels.mark_joined(connection, [each.label.prediction_id for each in joined])
        fold_quality(connection, joined, now_us)
        fold_joined_pairs(connection, joined, pairs, now_us)
        impossible = [each for each in settled if isinstance(each, Impossible)]
        labels.delete_unmatched(connection, [each.label.prediction_id for each in impossible])
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
