"""Rows of `shadow_files`, and the Parquet files that they name: what shadows made of copies, each beside the answer given.

Written, sealed and registered as `prediction_files.py` does. The pairs of a rollout are counted
in the transaction that registers their file and moves the read position, so each counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import polars as pl
from sqlalchemy import Connection, insert, select

from holdfast.errors import IntegrityError
from holdfast.feedback import Joined, parse_id
from holdfast.rollout import score
from holdfast.rollout.evidence.history import record_point
from holdfast.rollout.evidence.shadow import HUNG, LabelledPair, Pair, fold_labelled, fold_pairs
from holdfast.store.db import events
from holdfast.store.db.schema import shadow_files
from holdfast.store.db.store import Store
from holdfast.store.files import parquet
from holdfast.store.files.staging import Stage
from holdfast.store.rollout import evidence, rollouts
from holdfast.store.telemetry import outcomes
from holdfast.store.telemetry.prediction_files import Damaged

TABLE: Final = "shadows"
"""What the files' footers call the table."""

SCHEMA: Final = pl.Schema(
    {
        "prediction": pl.String,
        "at_us": pl.Int64,
        "unit": pl.Binary,
        "rollout": pl.Int64,
        "version": pl.String,
        "result": pl.String,
        "latency_us": pl.Int64,
        "beside_us": pl.Int64,
        "probability": pl.Float64,
        "champion": pl.String,
        "champion_result": pl.String,
        "champion_latency_us": pl.Int64,
        "champion_probability": pl.Float64,
    }
)
"""One row per row of the answer, one with nulls for a copy that has none. `prediction` is the answer's id with its row."""

_LATER_SEGMENTS: Final = 2
"""A copy that was answered after a segment was closed is logged in one of the next."""

_PAIR_COLUMNS: Final = ("prediction", "unit", "rollout", "probability", "champion_probability")


@dataclass(frozen=True, slots=True)
class ShadowFile:
    """One file of shadow answers, as the ledger knows it. `path` is relative to the store's root."""

    path: str
    model: str
    server: str
    segment: int
    rows: int
    bytes: int
    sha256: str
    predicted_at_min_us: int
    predicted_at_max_us: int


@dataclass(frozen=True, slots=True)
class PairWindow:
    """Pairs of one rollout within one minute."""

    rollout_id: int
    minute_start_us: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """One row that both answered: by its prediction's id, of which unit and rollout, with both probabilities."""

    prediction: str
    unit: bytes
    rollout: int
    ours: float
    theirs: float


@dataclass(frozen=True, slots=True)
class Found:
    """Rows that a shadow answered too, by the ids of their predictions, and the files that could not be looked into."""

    answered: dict[str, Answered]
    damaged: tuple[Damaged, ...]


def write(stage: Stage, frame: pl.DataFrame, *, model: str, server: str, segment: int) -> ShadowFile:
    """Write `frame` (in `SCHEMA`, not empty) on `stage`; seal it, and register the file before it ends."""
    facts = stage.write(TABLE, frame, {"model": model, "server": server, "segment": segment})
    answered_us = frame["at_us"].to_numpy()
    return ShadowFile(
        path=facts.path,
        model=model,
        server=server,
        segment=segment,
        rows=facts.rows,
        bytes=facts.bytes,
        sha256=facts.sha256,
        predicted_at_min_us=int(answered_us.min()),
        predicted_at_max_us=int(answered_us.max()),
    )


def register(connection: Connection, file: ShadowFile) -> None:
    """Name `file` in the ledger, in the caller's transaction. Its segment must be there."""
    connection.execute(insert(shadow_files).values(asdict(file)))


def files(store: Store) -> tuple[ShadowFile, ...]:
    """Every file that the ledger names, in the order of its server, segment and time."""
    columns = shadow_files.c
    query = select(shadow_files).order_by(
        columns.server, columns.segment, columns.predicted_at_min_us, columns.path
    )
    with store.ledger.read() as connection:
        return tuple(ShadowFile(**row) for row in connection.execute(query).mappings())


def fold_windows(connection: Connection, windows: Sequence[PairWindow], *, now_us: int) -> None:
    """Count the pairs of each rollout that is under way, in the caller's transaction."""
    for window in windows:
        if any(pair.result == HUNG for pair in window.pairs):
            events.append(
                connection,
                at_us=now_us,
                kind="shadow.off",
                subject=rollouts.subject_of(window.rollout_id),
                explanation="The shadow did not come back from a copy; the server that waited gives it none any more.",
            )
        before = evidence.shadow_of_running(connection, window.rollout_id)
        if before:
            after = [record_point(state, now_us) for state in fold_pairs(before, window.pairs)]
            evidence.put(connection, window.rollout_id, after, now_us=now_us)


def fold_late(connection: Connection, answered: Iterable[Answered], *, now_us: int) -> None:
    """Count the pairs among `answered`, collected just now, whose labels were joined before, in the caller's transaction."""
    by_id = {each.prediction: each for each in answered}
    known = outcomes.labels_of_in(connection, by_id)
    _fold(connection, [(by_id[prediction], label) for prediction, label in known.items()], now_us)


def fold_joined(
    connection: Connection, joined: Sequence[Joined], answered: dict[str, Answered], *, now_us: int
) -> None:
    """Count the pairs of labels that are joined in the caller's transaction; `answered` are those among them that a shadow
    answered, as `answers` found them before it."""
    found = [
        (answered[each.answer.prediction_id], each.label.value)
        for each in joined
        if each.answer.prediction_id in answered
    ]
    _fold(connection, found, now_us)


def answers(store: Store, predictions: Iterable[str]) -> Found:
    """What shadows made of the rows that `predictions` name. Only the files that can hold one of them are read."""
    sought: dict[tuple[str, int], list[str]] = defaultdict(list)
    for prediction in predictions:
        place = parse_id(prediction)
        if place is not None:
            sought[place.server, place.segment].append(prediction)
    chosen: dict[str, list[str]] = defaultdict(list)
    with store.ledger.read() as connection:
        for (server, segment), ids in sought.items():
            query = select(shadow_files.c.path).where(
                shadow_files.c.server == server,
                shadow_files.c.segment.between(segment, segment + _LATER_SEGMENTS),
            )
            for path in connection.execute(query).scalars():
                chosen[path] += ids
    found: dict[str, Answered] = {}
    damaged = []
    for path, ids in chosen.items():
        try:
            wanted = pl.Series("prediction", ids, dtype=pl.String).implode()
            frame = parquet.read(store.root / path, _PAIR_COLUMNS)
            found |= {
                each.prediction: each for each in pairs_of(frame.filter(pl.col("prediction").is_in(wanted)))
            }
        except IntegrityError as error:
            damaged.append(Damaged(path, frozenset(ids), str(error)))
    return Found(found, tuple(damaged))


def pairs_of(frame: pl.DataFrame) -> list[Answered]:
    """The rows of `frame` that both answered within a rollout."""
    both = frame.drop_nulls(["rollout", "probability", "champion_probability"])
    return [Answered(*row) for row in both.select(_PAIR_COLUMNS).iter_rows()]


def _fold(connection: Connection, found: Sequence[tuple[Answered, float]], now_us: int) -> None:
    by_rollout: dict[int, list[LabelledPair]] = defaultdict(list)
    for each, label in found:
        pair = LabelledPair(each.unit, score(each.ours, label), score(each.theirs, label))
        by_rollout[each.rollout].append(pair)
    for rollout, pairs in sorted(by_rollout.items()):
        before = evidence.shadow_of_running(connection, rollout)
        if before:
            evidence.put(connection, rollout, fold_labelled(before, pairs), now_us=now_us)
