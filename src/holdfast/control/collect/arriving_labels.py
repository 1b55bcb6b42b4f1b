"""Take the labels of one part of a log into the ledger: accept, correct, quarantine or reject each.

The rules are those of the servers (`feedback/label_rules.py`); only here they are decided against every label that is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from holdfast.control.collect.label_rows import assign_rows, with_rows
from holdfast.errors import NotFoundError
from holdfast.feedback import (
    LONGEST_ID,
    MAXIMUM_WAIT_US,
    Arrival,
    IdCheck,
    KnownLabel,
    LabelRules,
    PredictionId,
    classify_label,
    correction_time_us,
    counting_label,
    full_id,
    is_ahead,
    parse_id,
)
from holdfast.formatting import counted
from holdfast.records import Corrections
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.serving import label_rules
from holdfast.store.serving.prediction_log import FeedbackRecord, KeyFeedbackRecord
from holdfast.store.telemetry import collected_log, key_labels, labels, outcomes, quarantined_labels
from holdfast.store.telemetry.key_labels import KeyLabel
from holdfast.store.telemetry.labels import NewLabel
from holdfast.store.telemetry.quarantined_labels import QuarantinedLabel

MAX_WAITING_OF_SOURCE: Final = 10_000
"""How many labels of one source wait whose ids cannot be verified and whose log was not collected yet."""
MAX_WAITING: Final = 100_000
"""How many labels of all sources wait, when one comes whose id cannot be verified."""
MAX_ROWS_WAITING_OF_SOURCE: Final = 100_000
"""How many labels of one source wait, when one comes for a later row of a request whose log was not collected yet."""
MAX_ROWS_WAITING: Final = 300_000
"""How many labels of all sources wait, when such a one comes."""

_EXAMPLES: Final = 3


class Rejection(StrEnum):
    """Why a label is rejected, in words that follow a number of labels."""

    CONTRADICTS = "contradict an earlier label of the same prediction"
    MALFORMED = "name no prediction or have no value from 0 to 1"
    NOT_ISSUED = "name a prediction that no server of this ledger made"
    OVER_QUOTA = "cannot be verified, and as many of their source or of all sources wait as may"


@dataclass(slots=True)
class WaitingRoom:
    """How many more labels of one kind may wait."""

    of_source: Callable[[str | None], int]
    """Returns how many more of a source, or of all (None), may wait. Called only for what has this bound: it counts."""
    _left_of: dict[str | None, int] = field(default_factory=dict, init=False)

    def admit(self, source: str) -> bool:
        """Return True if one more label of `source` may wait; it is then counted."""
        bounds = (source, None)
        for each in bounds:
            if each not in self._left_of:
                self._left_of[each] = self.of_source(each)
        if any(self._left_of[each] <= 0 for each in bounds):
            return False
        for each in bounds:
            self._left_of[each] -= 1
        return True


@dataclass(frozen=True, slots=True)
class CheckedLabels:
    """The labels of one part of a log by what becomes of them. `ahead` has the accepted ones whose log is not collected yet."""

    accepted: list[NewLabel] = field(default_factory=list)
    ahead: set[str] = field(default_factory=set)
    next_to_feed: list[NewLabel] = field(default_factory=list)
    """The first labels of callers for predictions that have the label of a label feed."""
    corrected: list[NewLabel] = field(default_factory=list)
    quarantined: list[QuarantinedLabel] = field(default_factory=list)
    without_row: list[QuarantinedLabel] = field(default_factory=list)
    rejected: list[tuple[FeedbackRecord, Rejection]] = field(default_factory=list)


def check_labels(
    feedback: Iterable[FeedbackRecord],
    known: Mapping[str, KnownLabel],
    rules: LabelRules,
    is_uncollected: Callable[[PredictionId], bool],
    rooms: Mapping[IdCheck, WaitingRoom],
) -> CheckedLabels:
    """Decide what becomes of each label, in the order in which they came.

    Parameters
    ----------
    feedback
        The labels.
    known
        The newest label of each prediction in the ledger, of a caller; of label feeds if no caller sent one.
    rules
        The declared corrections, and which ids can have been issued.
    is_uncollected
        Returns True for a place beyond the collected part of its server's log.
    rooms
        How many labels may wait whose ids, or whose rows, cannot be verified. Others have no such bound.
    """
    newest = dict(known)
    found = CheckedLabels()
    for record in feedback:
        label = KnownLabel(record.value, record.source[:63], record.at_us)
        before = newest.get(record.prediction)
        match classify_label(record.prediction, label, before, rules.corrections):
            case Arrival.ACCEPTED if before is not None:
                newest[record.prediction] = label
                found.next_to_feed.append(_new(record, label, record.at_us))
            case Arrival.ACCEPTED:
                place = parse_id(full_id(record.prediction))
                assert place is not None, "it was classified"
                check, ahead = rules.check_id(place), is_uncollected(place)
                if check is IdCheck.NOT_ISSUED:
                    found.rejected.append((record, Rejection.NOT_ISSUED))
                elif ahead and check in rooms and not rooms[check].admit(label.source):
                    found.rejected.append((record, Rejection.OVER_QUOTA))
                else:
                    newest[record.prediction] = label
                    found.accepted.append(_new(record, label, record.at_us))
                    if ahead:
                        found.ahead.add(record.prediction)
            case Arrival.CORRECTED:
                assert before is not None, "it corrects a label"
                at_us = correction_time_us(label, before)
                newest[record.prediction] = KnownLabel(label.value, label.source, at_us)
                found.corrected.append(_new(record, label, at_us))
            case Arrival.QUARANTINED:
                assert before is not None, "it contradicts a label"
                found.quarantined.append(
                    QuarantinedLabel(
                        record.prediction, None, label.value, label.source, record.at_us, reason_of(before)
                    )
                )
            case Arrival.REPEATED:
                pass
            case Arrival.CONTRADICTS:
                found.rejected.append((record, Rejection.CONTRADICTS))
            case Arrival.MALFORMED:
                found.rejected.append((record, Rejection.MALFORMED))
    return found


def _new(record: FeedbackRecord, label: KnownLabel, at_us: int) -> NewLabel:
    return NewLabel(record.prediction, label.value, label.source, at_us)


def reason_of(standing: KnownLabel) -> str:
    """Return why a label of another source is quarantined."""
    return f"source {standing.source!r} labelled it {standing.value:g} before, and only that source can correct it"


def take(
    connection: Transaction,
    model: str,
    feedback: Sequence[FeedbackRecord],
    key_feedback: Sequence[KeyFeedbackRecord],
    rows: Mapping[str, int],
    *,
    now_us: int,
) -> int:
    """Take labels by id and by key into the ledger, in the caller's transaction; return how many were not accepted.

    Their part of the log must be registered before, so that a label finds a prediction of the same part. `rows` are the rows
    of each collected request that a label names without a row. Such a label of another request waits for its log.
    """
    checked = _take_by_id(connection, model, feedback, rows, now_us) if feedback else CheckedLabels()
    by_key = [KeyLabel(each.key, each.value, each.source[:63], each.at_us) for each in key_feedback]
    quarantined = [*checked.quarantined, *key_labels.add(connection, model, by_key, reason_of)]
    _quarantine(connection, model, quarantined, "contradict the label of another source", now_us)
    why = "have the id of a request of several rows and name none of them"
    _quarantine(connection, model, checked.without_row, why, now_us)
    _emit_rejected(connection, model, checked.rejected, now_us)
    return len(checked.rejected) + len(quarantined) + len(checked.without_row)


def _take_by_id(
    connection: Transaction,
    model: str,
    feedback: Sequence[FeedbackRecord],
    rows: Mapping[str, int],
    now_us: int,
) -> CheckedLabels:
    frontiers = collected_log.frontiers(connection)

    def is_uncollected(place: PredictionId) -> bool:
        frontier = frontiers.get(place.server)
        return frontier is None or is_ahead(place, frontier)

    def room(most_of_source: int, most: int) -> WaitingRoom:
        def left(source: str | None) -> int:
            bound = most if source is None else most_of_source
            return bound - labels.count_waiting(connection, now_us=now_us, at_most=bound, source=source)

        return WaitingRoom(left)

    known = labels.newest_labels(connection, [record.prediction for record in with_rows(feedback, rows)])
    found = assign_rows(feedback, rows, known)
    rules = label_rules.read(connection, model)
    rooms = {
        IdCheck.UNVERIFIED: room(MAX_WAITING_OF_SOURCE, MAX_WAITING),
        IdCheck.ROW_UNVERIFIED: room(MAX_ROWS_WAITING_OF_SOURCE, MAX_ROWS_WAITING),
    }
    checked = check_labels(found.named, known, rules, is_uncollected, rooms)
    checked.without_row.extend(found.without_row)
    checked.rejected.extend((record, Rejection.CONTRADICTS) for record in found.overtaken)
    labels.add(
        connection,
        checked.accepted,
        {
            label.prediction_id: label.received_at_us + MAXIMUM_WAIT_US + 1
            if label.prediction_id in checked.ahead
            else now_us
            for label in checked.accepted
        },
    )
    _correct(connection, model, [*checked.next_to_feed, *checked.corrected], rules.corrections, now_us)
    return checked


def _correct(
    connection: Transaction, model: str, later: Sequence[NewLabel], corrections: Corrections, now_us: int
) -> None:
    """Store labels that are not the first of their predictions, and give outcomes the label that counts."""
    if not later:
        return
    labels.add_corrections(connection, later)
    names = list(dict.fromkeys(label.prediction_id for label in later))
    counts = {
        prediction: counting_label(history, corrections).value
        for prediction, history in labels.known_labels(connection, names).items()
    }
    joined = outcomes.labels_of(connection, names)
    outcomes.correct(
        connection, {name: counts[name] for name, value in joined.items() if counts[name] != value}
    )
    events.append(
        connection,
        at_us=now_us,
        kind=outcomes.CORRECTED,
        subject=model,
        explanation=f"{len(names)} predictions got a later label from callers ({some_of(names)}).",
    )


def _quarantine(
    connection: Transaction, model: str, found: Sequence[QuarantinedLabel], why: str, now_us: int
) -> None:
    if not found:
        return
    new, kept = quarantined_labels.add(connection, model, found)
    if not new:
        return
    names = [each.prediction_id or each.key_json or "" for each in found]
    sources = sorted({each.source for each in found})
    events.append(
        connection,
        at_us=now_us,
        kind="labels.quarantined",
        subject=model,
        explanation=f"{new} labels {why} ({some_of(names)}); "
        f"they came from {some_of(sources)}. They label nothing; {kept} are kept in quarantine "
        "(holdfast labels quarantined).",
    )


def drop_quarantined(
    store: Store, model: str, *, numbers: Sequence[int], source: str | None, actor: str, now_us: int
) -> int:
    """Drop labels from the quarantine, by their numbers or all of `source`, with an event; return how many.

    Raises `NotFoundError` HF410 if one of them is not there; then nothing is dropped.
    """
    with store.ledger.write() as connection:
        dropped = quarantined_labels.drop(connection, model, numbers=numbers, source=source)
        if dropped < max(1, len(set(numbers))):
            named = "one of these numbers" if source is None else f"source {source!r}"
            raise NotFoundError(
                "HF410",
                f"the quarantine of {model} has no label of {named}",
                state="nothing was dropped",
                next_command="holdfast labels quarantined",
            )
        which = f"numbers {some_of([str(each) for each in numbers])}" if numbers else f"source {source!r}"
        events.append(
            connection,
            at_us=now_us,
            kind="labels.dropped",
            subject=model,
            actor=actor,
            explanation=f"{counted(dropped, 'label', 'was', 'were')} dropped from the quarantine ({which}).",
        )
    return dropped


def _emit_rejected(
    connection: Transaction, model: str, rejected: Sequence[tuple[FeedbackRecord, Rejection]], now_us: int
) -> None:
    if not rejected:
        return
    by_reason: dict[Rejection, list[str]] = defaultdict(list)
    for record, why in rejected:
        by_reason[why].append(record.prediction)
    parts = [
        f"{len(by_reason[why])} {why.value} ({some_of(by_reason[why])})"
        for why in Rejection
        if why in by_reason
    ]
    events.append(
        connection,
        at_us=now_us,
        kind="labels.rejected",
        subject=model,
        explanation=f"Labels rejected: {'; '.join(parts)}. The earlier labels stand.",
    )


def some_of(names: Sequence[str]) -> str:
    """Return the first of `names` as a list, each of at most `LONGEST_ID` characters."""
    shown = ", ".join(each[:LONGEST_ID] for each in names[:_EXAMPLES])
    return shown if len(names) <= _EXAMPLES else f"{shown}, ..."
