"""What shadows made of copies, from a stretch of a log: rows to keep and pairs to count. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

import polars as pl

from holdfast.records import MINUTE_US
from holdfast.rollout.evidence.shadow import OK, ComparedRow, Pair
from holdfast.store.serving.prediction_log import PredictionRecord, ShadowRecord
from holdfast.store.telemetry.shadow_files import SCHEMA, PairWindow

Slicer: TypeAlias = Callable[[str, Sequence[Any]], tuple[str, ...]]
"""The slices of a row that a version answered: from the version and its inputs as logged to names as "carrier=AA"."""


def no_slices(_version: str, _inputs: Sequence[Any]) -> tuple[str, ...]:
    """The slicer of a policy that names no columns."""
    return ()


def copies_of(shadowed: Sequence[ShadowRecord]) -> pl.DataFrame:
    """One row per row that either answered, at least one per copy, in the files' schema."""
    rows = [
        (
            f"{record.id}/{row}",
            record.at_us,
            record.unit,
            record.rollout,
            record.version,
            record.result,
            record.latency_us,
            record.beside_us,
            ours,
            record.champion,
            record.champion_result,
            record.beside_us,
            theirs,
        )
        for record in shadowed
        for row, (ours, theirs) in enumerate(
            list(zip_longest(record.probabilities, record.champion_probabilities)) or [(None, None)]
        )
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def pair_windows(
    shadowed: Sequence[ShadowRecord], predictions: Sequence[PredictionRecord], slicer: Slicer = no_slices
) -> tuple[PairWindow, ...]:
    """The pairs of each rollout by minute.

    A row's slices are read from its request, which was logged just before; a pair whose request lies in an earlier
    stretch of the log counts in no slice.
    """
    asked = {record.id: record for record in predictions} if slicer is not no_slices else {}
    found: dict[tuple[int, int], list[Pair]] = defaultdict(list)
    for record in shadowed:
        if record.rollout is not None:
            minute_start_us = record.at_us - record.at_us % MINUTE_US
            found[record.rollout, minute_start_us].append(_pair(record, asked, slicer))
    return tuple(
        PairWindow(rollout, minute_start_us, tuple(pairs))
        for (rollout, minute_start_us), pairs in sorted(found.items())
    )


def _pair(record: ShadowRecord, asked: Mapping[str, PredictionRecord], slicer: Slicer) -> Pair:
    champion_failed = record.champion_result != OK
    rows: tuple[ComparedRow, ...] = ()
    if record.result == OK and not champion_failed:  # what stood in for the champion is no measure
        request = asked.get(record.id)
        inputs = [] if request is None else request.inputs
        rows = tuple(
            ComparedRow(ours, theirs, () if row is None or request is None else slicer(request.version, row))
            for ours, theirs, row in zip_longest(
                record.probabilities, record.champion_probabilities, inputs[: len(record.probabilities)]
            )
        )
    return Pair(record.unit, record.result, champion_failed, rows, record.latency_us, record.beside_us)
