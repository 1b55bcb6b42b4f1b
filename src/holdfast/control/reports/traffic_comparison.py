"""Compare the requests of a champion with its training data, periodically, and report what no training row covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from holdfast.contract import Contract
from holdfast.control.collect.collector import emit_damaged
from holdfast.features import FittedFeatures
from holdfast.monitor.traffic_comparison import compare_slices, estimate_label_share, find_unseen_words
from holdfast.monitor.traffic_record import LabelShare, TrafficComparison, TrafficSlice
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.telemetry import comparison_inputs, traffic_comparison
from holdfast.train.artifact import read_metadata

EVERY_US: Final = 30_000_000
"""Time between two comparisons of the same champion, in microseconds."""

MAX_PREDICTIONS: Final = 5_000
MOST_FILES: Final = 400
"""The newest predictions come from so many collected files: half a second of reading if each holds a few."""

MOST_LABELS: Final = 20_000
_LONGEST_SUBJECT: Final = 127
_SHIFTED: Final = "label.shifted"
_SHIFT_ENDED: Final = "label.shift_ended"

_inputs: Final = msgspec.json.Decoder(list[Any]).decode


def compare(store: Store, model: str, lease: Lease, *, now_us: int) -> TrafficComparison | None:
    """Compare the champion's newest predictions with its training data, if that is due; None if not.

    An event reports once for each version: a slice of the contract that callers send and no training row had (slice.uncovered),
    and a share of positive labels that differs from that of the training rows (label.shifted). When real labels of the
    newest predictions show no such difference, another event ends it (label.shift_ended). Raises `ConflictError` HF304
    when `lease` has gone to another loop.
    """
    with store.ledger.read() as connection:
        champion = versions.champion(connection, model)
    if champion is None:
        return None
    with store.ledger.read() as connection:
        before = traffic_comparison.last(connection, model)
    if (
        before is not None
        and before.version == champion.version
        and now_us - before.computed_at_us < EVERY_US
    ):
        return None
    found = _compared(store, champion, now_us)
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        traffic_comparison.put(connection, model, found)
    _report(store, model, found, now_us)
    return found


def _compared(store: Store, champion: versions.VersionRow, now_us: int) -> TrafficComparison:
    about = read_metadata(blobs.get(store.root, champion.digest))
    with store.ledger.read() as connection:
        rows, damaged = comparison_inputs.newest_predictions(
            connection,
            store.root,
            champion.model,
            champion.version,
            most_rows=MAX_PREDICTIONS,
            most_files=MOST_FILES,
        )
    emit_damaged(store, damaged, now_us)
    if rows.is_empty():
        return TrafficComparison(champion.version, 0, 0, 0, now_us, (), None)
    with store.ledger.read() as connection:
        trained = comparison_inputs.training_rows(
            connection, champion.snapshot, about.selection_json, about.seed
        )
        came = comparison_inputs.labelled(connection, champion.model, champion.version, most=MOST_LABELS)
    contract = Contract.from_json(about.contract_json)
    words = FittedFeatures.from_json(about.features_json).words
    others = [name for name in words if name not in contract.slices]
    newest = set(rows["prediction"].to_list())  # not np.isin: over texts it compares each with each
    recent = np.fromiter((each in newest for each in came.predictions), np.bool_, len(came.predictions))
    return TrafficComparison(
        version=champion.version,
        predictions=rows.height,
        first_us=int(rows["at_us"][0]),
        last_us=int(rows["at_us"][-1]),
        computed_at_us=now_us,
        slices=(
            *compare_slices(_texts(rows["inputs"], contract, contract.slices), trained.slices),
            *find_unseen_words(_texts(rows["inputs"], contract, others), words),
        ),
        label=estimate_label_share(
            rows["probability"].to_numpy(),
            trained.label_share,
            (came.probabilities[~recent], came.labels[~recent]),
            came.labels[recent],
        ),
    )


def _texts(inputs: pl.Series, contract: Contract, columns: Sequence[str]) -> pl.DataFrame:
    """Return `columns` of received rows, as texts, aliases as their words; one that no request contains is left out."""
    names = [column.name for column in contract.request_columns]
    rows = [_inputs(row) for row in inputs]
    return pl.DataFrame(
        {
            name: pl.Series(
                [_text(contract.word(name, row[names.index(name)])) for row in rows], dtype=pl.String
            )
            for name in columns
            if name in names
        }
    )


def _text(value: object) -> str | None:
    """Return a value as a snapshot's slices have it."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _report(store: Store, model: str, found: TrafficComparison, now_us: int) -> None:
    for each in found.uncovered:
        with store.ledger.write() as connection:
            events.append_once(
                connection,
                at_us=now_us,
                kind="slice.uncovered",
                subject=f"{found.version}/{each.column}={each.value}"[:_LONGEST_SUBJECT],
                explanation=f"{each.share:.1%} of the newest {found.predictions:,} predictions of {model} are for "
                f"{each.column} = {each.value}, and {_why_unseen(each, found.version)}",
            )
    if found.label is not None and (found.label.shifted or found.label.refutes_shift):
        with store.ledger.write() as connection:
            _report_label_share(connection, model, found.version, found.label, now_us)


def _why_unseen(found: TrafficSlice, version: str) -> str:
    if found.is_word:
        return f"{version} has no code for that word: it predicts as for any word that it does not know"
    return f"no training row of {version} was: its predictions there are a guess"


def _report_label_share(
    connection: Transaction, model: str, version: str, label: LabelShare, now_us: int
) -> None:
    newest = [
        event
        for kind in (_SHIFTED, _SHIFT_ENDED)
        for event in events.newest(connection, subject=version, kind=kind, limit=1)
    ]
    last = max(newest, key=lambda event: event.event_id, default=None)
    if last is not None and last.kind == _SHIFTED:
        kind = _SHIFT_ENDED if label.refutes_shift else None
    else:
        # After labels refuted a shift, an estimate is no reason to report one again.
        kind = _SHIFTED if label.shifted and (last is None or label.by_labels) else None
    if kind is not None:
        text = f"Of {model}: {label.explanation}."
        events.append(connection, at_us=now_us, kind=kind, subject=version, explanation=text)
