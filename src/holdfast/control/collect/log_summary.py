"""What a stretch of a prediction log amounts to: usage, answers to keep, evidence for a rollout. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

import msgspec
import polars as pl

from holdfast.control.collect.log_context import Reading
from holdfast.control.collect.shadow_pairs import Slicer, copies_of, no_slices, pair_windows
from holdfast.monitor import UsageRow, bucket_of
from holdfast.records import MINUTE_US, Arm
from holdfast.rollout import RequestOutcome
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, Record, ShadowRecord
from holdfast.store.telemetry.log_collection import Window
from holdfast.store.telemetry.prediction_files import SCHEMA
from holdfast.store.telemetry.shadow_files import PairWindow

_OK: Final = "ok"
NOTHING: Final = Reading()
"""Read for rollouts without slices, while nothing is watched."""
_to_json: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Tally:
    """What one stretch of a log holds; `numbers` are the smallest and the largest record number."""

    predictions: int
    usage: tuple[UsageRow, ...]
    windows: tuple[Window, ...]
    answers: pl.DataFrame
    numbers: tuple[int, int]
    feedback: tuple[FeedbackRecord, ...]
    copies: pl.DataFrame
    pairs: tuple[PairWindow, ...]


def tally(records: Iterable[Record], reading: Reading = NOTHING) -> Tally:
    """Count one stretch of a log, read for the rollouts that `reading` names.

    A window is a minute at most: shares and the world may change between two minutes, and within a window the
    tests assume that neither does.
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
    return Tally(
        predictions=len(predictions),
        usage=_usage(predictions),
        windows=(*_windows(predictions, reading.slicer), *_watched(predictions, reading)),
        answers=_answers(predictions),
        numbers=_numbers(predictions),
        feedback=tuple(feedback),
        copies=copies_of(shadowed),
        pairs=pair_windows(shadowed, predictions, reading.slicer),
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
        # A request that no version answered belongs to the champion's side: it would have had to answer.
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
            requests[record.rollout, _minute(record)].append(_answered(record, slicer))
    return tuple(
        Window(rollout, minute_start_us, tuple(found))
        for (rollout, minute_start_us), found in sorted(requests.items())
    )


def _watched(predictions: Sequence[PredictionRecord], reading: Reading) -> tuple[Window, ...]:
    """What the champion answers while its promotion is watched: it is the challenger of that rollout, and alone.

    Under its own plan no request is of a rollout, and under that of a newer one it is the champion; so its requests are
    known by who answered, and those that it failed by whose they were.
    """
    watched = reading.watched
    if watched is None:
        return ()
    requests: dict[int, list[RequestOutcome]] = defaultdict(list)
    for record in predictions:
        since = record.at_us >= watched.since_us and record.rollout != watched.rollout_id
        if since and record.unit and _is_of_champion(record, watched.challenger):
            answered = _answered(record, reading.slicer)
            requests[_minute(record)].append(replace(answered, arm=Arm.CHALLENGER))
    return tuple(
        Window(watched.rollout_id, minute_start_us, tuple(found))
        for minute_start_us, found in sorted(requests.items())
    )


def _is_of_champion(record: PredictionRecord, champion: str) -> bool:
    """Whether the request was the champion's to answer; one that named a version of its own is nobody's evidence."""
    if record.challenger_failed or record.arm == Arm.CHALLENGER:
        return False
    return record.version == champion or record.result == "champion_failed"


def _answered(record: PredictionRecord, slicer: Slicer) -> RequestOutcome:
    challenged = record.arm == Arm.CHALLENGER or record.challenger_failed != ""
    rows = record.inputs if slicer is not no_slices else ()
    slices = {name: None for row in rows for name in slicer(record.version, row)}
    return RequestOutcome(
        unit=record.unit,
        arm=Arm.CHALLENGER if challenged else Arm.CHAMPION,
        failed=record.challenger_failed != "" or record.result != _OK,
        latency_us=record.latency_us,
        slices=tuple(slices),
    )


def _answers(predictions: Sequence[PredictionRecord]) -> pl.DataFrame:
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
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _numbers(predictions: Sequence[PredictionRecord]) -> tuple[int, int]:
    numbers = [int(record.id.rpartition("-")[2]) for record in predictions]
    return (min(numbers), max(numbers)) if numbers else (0, 0)


def _minute(record: PredictionRecord) -> int:
    return record.at_us - record.at_us % MINUTE_US
