"""What a stretch of a prediction log amounts to: usage, answers to keep, evidence for a rollout. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec
import polars as pl

from holdfast.control.pairs import copies_of, pair_windows
from holdfast.monitor import UsageRow, bucket_of
from holdfast.records import Arm
from holdfast.rollout import Answered
from holdfast.store.collected import Window
from holdfast.store.prediction_log import FeedbackRecord, PredictionRecord, Record, ShadowRecord
from holdfast.store.predictions import SCHEMA
from holdfast.store.shadows import PairWindow

MINUTE_US: Final = 60_000_000
_OK: Final = "ok"
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


def tally(records: Iterable[Record]) -> Tally:
    """Count one stretch of a log.

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
        windows=_windows(predictions),
        answers=_answers(predictions),
        numbers=_numbers(predictions),
        feedback=tuple(feedback),
        copies=copies_of(shadowed),
        pairs=pair_windows(shadowed, predictions),
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
            version, arm, result, minute_us, count.requests, count.rows, count.latency_sum_us, count.latency
        )
        for (version, arm, result, minute_us), count in sorted(counts.items())
    )


def _windows(predictions: Sequence[PredictionRecord]) -> tuple[Window, ...]:
    requests: dict[tuple[int, int], list[Answered]] = defaultdict(list)
    for record in predictions:
        if record.rollout is not None:
            requests[record.rollout, _minute(record)].append(_answered(record))
    return tuple(
        Window(rollout, minute_us, tuple(found)) for (rollout, minute_us), found in sorted(requests.items())
    )


def _answered(record: PredictionRecord) -> Answered:
    challenged = record.arm == Arm.CHALLENGER or record.challenger_failed != ""
    return Answered(
        unit=record.unit,
        arm=Arm.CHALLENGER if challenged else Arm.CHAMPION,
        failed=record.challenger_failed != "" or record.result != _OK,
        latency_us=record.latency_us,
    )


def _answers(predictions: Sequence[PredictionRecord]) -> pl.DataFrame:
    rows = [
        (
            f"{record.id}/{row}",
            record.at_us,
            record.event_us,
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
