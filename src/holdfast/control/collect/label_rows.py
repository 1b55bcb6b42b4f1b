"""The rows of labels whose prediction id names none: that of a request of one row, and no other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from holdfast.feedback import FEED_SOURCE, KnownLabel, full_id, names_row, rows_reason
from holdfast.store import Store
from holdfast.store.serving.prediction_log import FeedbackRecord
from holdfast.store.telemetry import collected_log
from holdfast.store.telemetry.collected_log import PREDICTIONS, Damaged
from holdfast.store.telemetry.quarantined_labels import QuarantinedLabel


def count_rows(
    store: Store, names: Iterable[str], uncollected: Collection[str] = ()
) -> tuple[dict[str, int], tuple[Damaged, ...]]:
    """Return the rows of the request of each id without a row, and the files that cannot be read.

    Parameters
    ----------
    store
        The store.
    names
        Prediction ids. Those with a row, and those whose request is not found, are left out.
    uncollected
        Ids of predicted rows that the ledger does not name yet.
    """
    sought = {name for name in names if not names_row(name)}
    if not sought:
        return {}, ()
    with store.ledger.read() as connection:
        located = collected_log.locate(connection, PREDICTIONS, map(full_id, sought))
    counts, damaged = collected_log.count_rows(store.root, located, sought)
    for prediction in uncollected:
        request = prediction.partition("/")[0]
        if request in sought:
            counts[request] = counts.get(request, 0) + 1
    return counts, damaged


@dataclass(frozen=True, slots=True)
class AssignedRows:
    """Labels by what their ids name. `named` has those with a row, and those whose request was not collected yet."""

    named: list[FeedbackRecord] = field(default_factory=list)
    without_row: list[QuarantinedLabel] = field(default_factory=list)
    overtaken: list[FeedbackRecord] = field(default_factory=list)
    """Those that waited for their request, and are older than another label that names the row."""


def with_rows(feedback: Iterable[FeedbackRecord], rows: Mapping[str, int]) -> list[FeedbackRecord]:
    """Return the labels with the row of a request that has one row, by `rows`: the rows of each request."""
    return [
        replace(record, prediction=full_id(record.prediction)) if rows.get(record.prediction) == 1 else record
        for record in feedback
    ]


def assign_rows(
    feedback: Sequence[FeedbackRecord], rows: Mapping[str, int], known: Mapping[str, KnownLabel]
) -> AssignedRows:
    """Return the labels with their rows; for the quarantine those that name no row of a request with several.

    Parameters
    ----------
    feedback
        The labels, in the order in which they came.
    rows
        The rows of each request whose id they have without a row.
    known
        The newest label of each prediction in the ledger.
    """
    found = AssignedRows()
    for sent, record in zip(feedback, with_rows(feedback, rows), strict=True):
        newest = known.get(record.prediction) if record is not sent else None
        if newest is not None and newest.source == FEED_SOURCE:
            newest = None  # a label feed and a caller never contradict each other
        if rows.get(record.prediction, 1) > 1:
            reason = rows_reason(record.prediction, rows[record.prediction])
            found.without_row.append(
                QuarantinedLabel(
                    record.prediction, None, record.value, record.source[:63], record.at_us, reason
                )
            )
        elif newest is not None and newest.received_at_us > record.at_us:
            # A label that waited must not correct a newer one, though it is taken after it.
            if newest.value != record.value:
                found.overtaken.append(record)
        else:
            found.named.append(record)
    return found
