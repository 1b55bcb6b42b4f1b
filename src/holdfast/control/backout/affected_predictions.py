"""Write the predictions that a back-out affects to a file: their ids, times and keys (R10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from holdfast.contract import Contract
from holdfast.control.collect.prediction_keys import key_rows, of_readable_versions
from holdfast.errors import ConflictError
from holdfast.store import Store
from holdfast.store.durability import fsync
from holdfast.store.files import staging
from holdfast.store.telemetry import collected_log
from holdfast.tables.backout import AffectedPredictions, BackoutPlan, ListPredictions

COLUMNS: Final = ("prediction_id", "predicted_at", "model", "version", "cause", "probability")
"""The columns of the file, before those of the key."""
_READ: Final = ("prediction", "at_us", "version", "probability", "inputs")


@dataclass(frozen=True, slots=True)
class WrittenPredictions:
    """How many predictions were written, and the collected files that cannot be read: theirs are missing."""

    rows: int
    damaged: tuple[str, ...]


def write_affected(
    store: Store, plan: BackoutPlan, file: Path, *, model: str = "", contract: Contract | None = None
) -> WrittenPredictions:
    """Write one line of CSV for each collected prediction that `plan` lists; the file appears when it is complete.

    Parameters
    ----------
    store, plan
        The store, and the plan of a back-out.
    file
        The file to write. One that exists is replaced.
    model, contract
        The declared model, and its contract, whose key columns are written too. Predictions of other models, and of
        versions that do not receive the key, have no key.

    One collected file is in memory at a time. Predictions that no server has handed over yet are not among them.
    Raises `ConflictError` HF304 if a file was deleted, because it expired, while the others were read; nothing is written.
    """
    part = file.with_name(f"{file.name}.part")
    keys = () if contract is None else contract.key
    rows, damaged = 0, list[str]()
    try:
        with part.open("wb") as written:
            written.write((",".join([*COLUMNS, *keys]) + "\n").encode())
            for name, affected in _by_model(plan):
                with store.ledger.read() as connection:
                    files = collected_log.files_of(connection, name)
                for each in files:
                    if not _may_hold(each, affected):
                        continue
                    frame = collected_log.read_file(store.root, each, _READ)
                    if isinstance(frame, collected_log.Damaged):
                        _raise_if_gone(store, each.path)
                        damaged.append(each.path)
                        continue
                    found = _listed(frame, name, affected)
                    found = _with_keys(store, found, contract if name == model else None, keys)
                    found.write_csv(written, include_header=False)
                    rows += found.height
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    fsync.sync(file)
    return WrittenPredictions(rows, tuple(damaged))


def _raise_if_gone(store: Store, path: str) -> None:
    with store.ledger.read() as connection:
        if not staging.named_in_ledger(connection, [path]):
            raise ConflictError(
                "HF304",
                f"{path} was deleted by another process while the predictions were read",
                state="no list of predictions was written",
                next_command="the same command again",
            )


def _by_model(plan: BackoutPlan) -> Iterator[tuple[str, list[AffectedPredictions]]]:
    listed = [each for step in plan.steps if isinstance(step, ListPredictions) for each in step.predictions]
    for model in dict.fromkeys(each.model for each in listed):
        yield model, [each for each in listed if each.model == model]


def _may_hold(file: collected_log.CollectedFile, affected: Sequence[AffectedPredictions]) -> bool:
    return any(
        each.cause == "version"
        or (file.predicted_at_min_us < each.last_us and each.first_us <= file.predicted_at_max_us)
        for each in affected
    )


def _listed(frame: pl.DataFrame, model: str, affected: Sequence[AffectedPredictions]) -> pl.DataFrame:
    """Return the rows of `frame` that are affected, with the cause, in the columns of the file."""
    cause = pl.lit(None, dtype=pl.String)
    for each in affected:
        is_of = pl.col("version") == each.version
        if each.cause != "version":  # a clean version: only while it could read the values
            is_of &= pl.col("at_us").is_between(each.first_us, each.last_us, closed="left")
        cause = pl.when(is_of).then(pl.lit(each.cause)).otherwise(cause)
    found = frame.with_columns(
        cause.alias("cause"),
        pl.lit(model).alias("model"),
        pl.col("prediction").alias("prediction_id"),
        pl.from_epoch("at_us", time_unit="us").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ").alias("predicted_at"),
    )
    return found.filter(pl.col("cause").is_not_null())


def _with_keys(
    store: Store, found: pl.DataFrame, contract: Contract | None, keys: Sequence[str]
) -> pl.DataFrame:
    if contract is None:
        return found.select(*COLUMNS, *(pl.lit(None, dtype=pl.String).alias(f"key {name}") for name in keys))
    known = of_readable_versions(store, found.select("prediction", "version", "inputs"))
    rows = key_rows(store, contract, known)
    named = rows.rename({name: f"key {name}" for name in keys})  # a key may be called like one of our columns
    joined = found.join(named, on="prediction", how="left")
    return joined.select(*COLUMNS, *(f"key {name}" for name in keys))
