"""Summarise a part of a prediction log: usage, predictions to store, evidence for rollouts. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Final, assert_never

import msgspec
import polars as pl

from holdfast.control.collect.log_context import LogContext, Slicer, no_slices
from holdfast.monitor.latency import bucket_of
from holdfast.monitor.usage import UsageRow
from holdfast.records import MINUTE_US, Arm
from holdfast.rollout import RequestOutcome
from holdfast.rollout.evidence.shadow import OK, ComparedRow, Pair
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, Record, ShadowRecord
from holdfast.store.telemetry.collected_files import PREDICTIONS, SHADOWS

NO_CONTEXT: Final = LogContext()
"""The context without slices and without a baking promotion."""
_to_json: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Window:
    """Requests of one rollout within one minute: one window of its sequential tests."""

    rollout_id: int
    minute_start_us: int
    requests: tuple[RequestOutcome, ...]


@dataclass(frozen=True, slots=True)
class PairWindow:
    """Pairs of one rollout within one minute."""

    rollout_id: int
    minute_start_us: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class LogSummary:
    """Contents of one part of a log; `numbers` are the smallest and the largest record number."""

    predictions: int
    usage: tuple[UsageRow, ...]
    windows: tuple[Window, ...]
    rows: pl.DataFrame
    """Predicted rows, in the schema of `PREDICTIONS`."""
    numbers: tuple[int, int]
    feedback: tuple[FeedbackRecord, ...]
    shadow_rows: pl.DataFrame
    pair_windows: tuple[PairWindow, ...]


def summarise(records: Iterable[Record], context: LogContext = NO_CONTEXT) -> LogSummary:
    """Summarise one part of a log for the rollouts that `context` names.

    A window is at most a minute: within a window the tests assume that neither shares nor the world change.
    """
    predictions: list[PredictionRecord] = []
    feedback: list[FeedbackRecord] = []
    shadowed: list[ShadowRecord] = []
    for record in records:
        match record:
            case PredictionRecord():
                predictions.append(record)
            case FeedbackRecord():
                feedback.append(record)
            case ShadowRecord():
                shadowed.append(record)
            case _:
                assert_never(record)
    return LogSummary(
        predictions=len(predictions),
        usage=_usage(predictions),
        windows=(*_windows(predictions, context.slicer), *_baking_windows(predictions, context)),
        rows=_rows(predictions),
        numbers=_numbers(predictions),
        feedback=tuple(feedback),
        shadow_rows=shadow_rows(shadowed),
        pair_windows=pair_windows(shadowed, predictions, context.slicer),
    )


@dataclass(slots=True)
class _Count:
    requests: int = 0
    rows: int = 0
    latency_sum_us: int = 0
    latency: dict[int, int] = field(default_factory=dict)


def _usage(predictions: Sequence[PredictionRecord]) -> tuple[UsageRow, ...]:
    counts: dict[tuple[str, str, str, int], _Count] = defaultdict(_Count)
    for record in predictions:
        # A request that no version served belongs to the champion's side: it was routed there.
        arm = record.arm or Arm.CHAMPION.value
        count = counts[record.version, arm, record.result, _minute(record)]
        count.requests += 1
        count.rows += len(record.probabilities)
        count.latency_sum_us += record.latency_us
        bucket = bucket_of(record.latency_us)
        count.latency[bucket] = count.latency.get(bucket, 0) + 1
    return tuple(
        UsageRow(
            version,
            arm,
            result,
            minute_start_us,
            count.requests,
            count.rows,
            count.latency_sum_us,
            count.latency,
        )
        for (version, arm, result, minute_start_us), count in sorted(counts.items())
    )


def _windows(predictions: Sequence[PredictionRecord], slicer: Slicer) -> tuple[Window, ...]:
    requests: dict[tuple[int, int], list[RequestOutcome]] = defaultdict(list)
    for record in predictions:
        if record.rollout is not None:
            requests[record.rollout, _minute(record)].append(_request_outcome(record, slicer))
    return tuple(
        Window(rollout, minute_start_us, tuple(found))
        for (rollout, minute_start_us), found in sorted(requests.items())
    )


def _baking_windows(predictions: Sequence[PredictionRecord], context: LogContext) -> tuple[Window, ...]:
    """Return the windows of the promotion that is baking: its champion is the rollout's challenger, alone.

    After promotion the plan no longer names the rollout. A request is matched by the version that served it or, if that
    failed, by the version it was routed to.
    """
    baking = context.baking
    if baking is None:
        return ()
    requests: dict[int, list[RequestOutcome]] = defaultdict(list)
    for record in predictions:
        since = record.at_us >= baking.since_us and record.rollout != baking.rollout_id
        if since and record.unit and _is_of_champion(record, baking.challenger):
            outcome = _request_outcome(record, context.slicer)
            requests[_minute(record)].append(replace(outcome, arm=Arm.CHALLENGER))
    return tuple(
        Window(baking.rollout_id, minute_start_us, tuple(found))
        for minute_start_us, found in sorted(requests.items())
    )


def _is_of_champion(record: PredictionRecord, champion: str) -> bool:
    """Return True if the request was routed to the champion. One that names a version itself is no evidence."""
    if record.challenger_failed or record.arm == Arm.CHALLENGER:
        return False
    return record.version == champion or record.result == "champion_failed"


def _request_outcome(record: PredictionRecord, slicer: Slicer) -> RequestOutcome:
    challenged = record.arm == Arm.CHALLENGER or record.challenger_failed != ""
    rows = record.inputs if slicer is not no_slices else ()
    slices = {name: None for row in rows for name in slicer(record.version, row)}
    return RequestOutcome(
        unit=record.unit,
        arm=Arm.CHALLENGER if challenged else Arm.CHAMPION,
        failed=record.challenger_failed != "" or record.result != OK,
        latency_us=record.latency_us,
        slices=tuple(slices),
    )


def _rows(predictions: Sequence[PredictionRecord]) -> pl.DataFrame:
    rows = [
        (
            f"{record.id}/{row}",
            record.at_us,
            record.event_time_us,
            record.unit,
            record.arm,
            record.version,
            record.rollout,
            record.latency_us,
            probability,
            _to_json(inputs).decode(),
        )
        for record in predictions
        for row, (probability, inputs) in enumerate(zip(record.probabilities, record.inputs, strict=False))
    ]
    return pl.DataFrame(rows, schema=PREDICTIONS.schema, orient="row")


def _numbers(predictions: Sequence[PredictionRecord]) -> tuple[int, int]:
    numbers = [int(record.id.rpartition("-")[2]) for record in predictions]
    return (min(numbers), max(numbers)) if numbers else (0, 0)


def _minute(record: PredictionRecord) -> int:
    return record.at_us - record.at_us % MINUTE_US


def shadow_rows(shadowed: Sequence[ShadowRecord]) -> pl.DataFrame:
    """Return one row per row that either side predicted, at least one per record, in the schema of `SHADOWS`."""
    rows = [
        (
            f"{record.id}/{row}",
            record.at_us,
            record.unit,
            record.rollout,
            record.version,
            record.result,
            record.latency_us,
            record.champion_rerun_us,
            ours,
            record.champion,
            record.champion_result,
            record.champion_latency_us,
            theirs,
        )
        for record in shadowed
        for row, (ours, theirs) in enumerate(
            list(zip_longest(record.probabilities, record.champion_probabilities)) or [(None, None)]
        )
    ]
    return pl.DataFrame(rows, schema=SHADOWS.schema, orient="row")


def pair_windows(
    shadowed: Sequence[ShadowRecord], predictions: Sequence[PredictionRecord], slicer: Slicer = no_slices
) -> tuple[PairWindow, ...]:
    """Return the pairs of each rollout by minute.

    Slices are read from the request, which was logged just before. A pair whose request was collected earlier is in no slice.
    """
    requests = {record.id: record for record in predictions} if slicer is not no_slices else {}
    found: dict[tuple[int, int], list[Pair]] = defaultdict(list)
    for record in shadowed:
        if record.rollout is not None:
            minute_start_us = record.at_us - record.at_us % MINUTE_US
            found[record.rollout, minute_start_us].append(_pair(record, requests, slicer))
    return tuple(
        PairWindow(rollout, minute_start_us, tuple(pairs))
        for (rollout, minute_start_us), pairs in sorted(found.items())
    )


def _pair(record: ShadowRecord, requests: Mapping[str, PredictionRecord], slicer: Slicer) -> Pair:
    champion_failed = record.champion_result != OK
    rows: tuple[ComparedRow, ...] = ()
    if record.result == OK and not champion_failed:  # a fallback's prediction is no measure
        request = requests.get(record.id)
        inputs = [] if request is None else request.inputs
        rows = tuple(
            ComparedRow(ours, theirs, () if row is None or request is None else slicer(request.version, row))
            for ours, theirs, row in zip_longest(
                record.probabilities, record.champion_probabilities, inputs[: len(record.probabilities)]
            )
        )
    return Pair(
        record.unit, record.result, champion_failed, rows, record.latency_us, record.champion_rerun_us
    )
