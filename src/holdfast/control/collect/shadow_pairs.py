"""Read shadow results from a part of a log: rows to store and pairs to compare. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

import polars as pl

from holdfast.records import MINUTE_US
from holdfast.rollout.evidence.shadow import OK, ComparedRow, Pair
from holdfast.store.serving.prediction_log import PredictionRecord, ShadowRecord
from holdfast.store.telemetry.collected_files import SHADOWS

Slicer: TypeAlias = Callable[[str, Sequence[Any]], tuple[str, ...]]
"""Returns the slices of a row, such as "carrier=AA", from the version that predicted it and its logged inputs."""


@dataclass(frozen=True, slots=True)
class PairWindow:
    """Pairs of one rollout within one minute."""

    rollout_id: int
    minute_start_us: int
    pairs: tuple[Pair, ...]


def no_slices(_version: str, _inputs: Sequence[Any]) -> tuple[str, ...]:
    """Return no slices: the slicer of a policy that names no columns."""
    return ()


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
