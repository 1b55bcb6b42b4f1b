"""Evaluate a version by every gate, and write verdicts, state and event in one transaction."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.contract import Contract
from holdfast.contract.batch.compiler import dtypes
from holdfast.contract.evolution.compatibility import Boundary, Compatibility
from holdfast.contract.evolution.diff import compare
from holdfast.contract.row.aliases import map_row
from holdfast.contract.row.compiler import compile_row
from holdfast.control.evaluation.sandbox import SandboxReport, run_sandbox
from holdfast.control.training.examples import read_examples, split_days, with_aggregates
from holdfast.declaration import Model
from holdfast.errors import ConflictError, NotFoundError
from holdfast.features import Aggregate, aggregates_from_json
from holdfast.qualify import (
    GateResult,
    HoldoutPair,
    LoadReport,
    Signature,
    check_baseline,
    check_champion,
    check_golden,
    check_load,
    check_objective,
    check_signature,
    check_size,
    decide_status,
    endpoint_signature,
    pass_first_version,
)
from holdfast.records import Verdict
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db import events
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs
from holdfast.store.models import gate_results, versions
from holdfast.store.models.versions import VersionRow
from holdfast.train.artifact import VersionMetadata, read_metadata


@dataclass(frozen=True, slots=True)
class _Predictions:
    """The predictions of one version for the held-out days, in the order of the table's rows.

    `admitted` are the rows that its own contract accepts: a server would not send it the others.
    """

    scores: npt.NDArray[np.float64]
    admitted: npt.NDArray[np.bool_]
    trained_before_us: int


class _HeldOut:
    """The newest labelled days of a snapshot, read once for all versions.

    Rows older than the end of a version's training are among them only if the declared holdout has grown
    since; `pair` leaves them out.
    """

    def __init__(self, store: Store, model: Model, snapshot: str) -> None:
        self._store, self._model, self._snapshot = store, model, snapshot
        self._days = split_days(model, read_examples(store, model, (), snapshot).frame).holdout
        self._columns: dict[Aggregate, pl.Series] = {}

    def rows(self, aggregates: tuple[Aggregate, ...]) -> pl.DataFrame:
        """Return the days without their label, with a column for each of `aggregates`.

        An aggregate that several versions declare alike is joined once.
        """
        days = self._days.drop(self._model.label)
        new = [aggregate for aggregate in aggregates if aggregate not in self._columns]
        joined = with_aggregates(self._store, self._model, new, self._snapshot, days)
        self._columns |= {aggregate: joined[aggregate.name] for aggregate in new}
        return days.with_columns(self._columns[aggregate] for aggregate in aggregates)

    def predictions_of(self, row: VersionRow, about: VersionMetadata) -> _Predictions | None:
        """Return the predictions of version `row`; None if it cannot read rows of the model's contract, or fails."""
        own = Contract.from_json(about.contract_json)
        if compare(own, self._model.contract).at(Boundary.MODELS) is Compatibility.BREAKING:
            return None
        rows = self.rows(aggregates_from_json(about.aggregates_json))
        # Of a column that was dropped since, every value is missing: callers may leave it out.
        dropped = {name: kind for name, kind in dtypes(own).items() if name not in rows.columns}
        rows = rows.with_columns(pl.lit(None, kind).alias(name) for name, kind in dropped.items())
        scores = _try(self._store, self._model, row, rows).probabilities
        if scores is None or scores.shape != (rows.height,):
            return None
        return _Predictions(scores, self._admitted(own), about.trained_before_us)

    def _admitted(self, own: Contract) -> npt.NDArray[np.bool_]:
        """Return which days the contract of a version accepts."""
        if own.hash == self._model.contract.hash:
            return np.ones(self._days.height, dtype=np.bool_)
        known = [column.name for column in own.request_columns if column.name in self._days.columns]
        check = compile_row(own, request=True)
        return np.array([not check(day) for day in self._days.select(known).iter_rows(named=True)], np.bool_)

    def pair(self, own: _Predictions, other: VersionRow) -> HoldoutPair | None:
        """Pair `own` with the predictions of `other`, on the days that neither was trained on.

        Returns None if `other` did not pass its gates or cannot predict.
        """
        if other.state != "qualified":
            return None
        theirs = self.predictions_of(other, read_metadata(blobs.get(self._store.root, other.digest)))
        if theirs is None:
            return None
        event_time_us = self._days[self._model.contract.event_time].dt.epoch("us").to_numpy()
        fresh = event_time_us >= max(own.trained_before_us, theirs.trained_before_us)
        fresh &= own.admitted & theirs.admitted
        labels = self._days[self._model.label].to_numpy().astype(np.bool_)
        return HoldoutPair(own.scores[fresh], theirs.scores[fresh], labels[fresh])


def qualify(store: Store, model: Model, version: str, *, now_us: int) -> list[GateResult]:
    """Evaluate `version` of `model` by its gates, and return their results in order.

    Verdicts, the version's state and an event are written in one transaction. A version that was qualified
    or refused keeps that state: its verdicts are returned as they were. One whose
    evaluation did not end stays registered and may be evaluated again. The heuristic of a candidate is evaluated
    first, if it was not yet.

    Raises `NotFoundError` HF303 for an unknown version and for one of another model,
    `RefusedError` HF406 for a tainted one, also if it was tainted meanwhile, and `ConflictError` HF304 if
    another process ended its evaluation first.
    """
    with store.ledger.read() as connection:
        row = versions.get(connection, version)
    if row.model != model.name:
        raise NotFoundError(
            "HF303",
            f"{version} is a version of {row.model!r}, not of {model.name!r}",
            state="nothing was judged",
            next_command="holdfast status",
        )
    with store.ledger.read() as connection:
        taints.refuse(connection, "version", version)
    if row.state != "registered":
        with store.ledger.read() as connection:
            return gate_results.newest(connection, version)
    results = (
        _judge_heuristic(store, model, row) if row.role == "heuristic" else _judge(store, model, row, now_us)
    )
    state = decide_status(results)
    with store.ledger.write() as connection:
        taints.refuse(connection, "version", version)
        gate_results.append(connection, version, results, now_us=now_us)
        if state != "registered":
            versions.set_state(connection, version, state, before="registered")
        events.append(
            connection,
            at_us=now_us,
            kind=f"version.{'judged' if state == 'registered' else state}",
            subject=version,
            explanation=_message(results),
        )
    return results


def _judge_heuristic(store: Store, model: Model, row: VersionRow) -> list[GateResult]:
    """Evaluate a heuristic: it may serve, so it must load and fit; it is not compared with itself."""
    seen = _try(store, model, row).trial
    with store.ledger.read() as connection:
        return [
            check_load(seen, model.gates),
            _signature(store, model, row, seen, versions.champion(connection, model.name)),
            check_size(row.bytes, None, model.gates),
        ]


def _judge(store: Store, model: Model, row: VersionRow, now_us: int) -> list[GateResult]:
    with store.ledger.read() as connection:
        current = versions.champion(
            connection, model.name
        )  # read once: every gate compares with the same champion
    seen = _try(store, model, row).trial
    results = [check_load(seen, model.gates), _signature(store, model, row, seen, current)]
    if model.golden:
        results.append(check_golden(seen, model.golden))
    results.append(check_size(row.bytes, _size_before(store, row, current), model.gates))
    baseline = _judged_heuristic(store, model, row, now_us)
    # Only a file that loads and fits gets held-out rows: the others have failed already.
    fits = results[0].verdict is Verdict.PASS and results[1].verdict is Verdict.PASS
    days = _HeldOut(store, model, row.snapshot) if fits else None
    own = days.predictions_of(row, _about(seen)) if days else None
    against_heuristic = days.pair(own, baseline) if days and own else None
    results.append(check_baseline(against_heuristic, model.gates))
    if model.objective is not None:
        results.append(check_objective(against_heuristic, model.objective, model.gates))
    if current is None:
        results.append(pass_first_version())
    else:
        results.append(check_champion(days.pair(own, current) if days and own else None, model.gates))
    return results


def _judged_heuristic(store: Store, model: Model, candidate: VersionRow, now_us: int) -> VersionRow:
    with store.ledger.read() as connection:
        baseline = versions.heuristic_of(connection, candidate)
    if baseline.state == "registered":
        # The process that ended first wins: its verdict is about the same file.
        with suppress(ConflictError):
            qualify(store, model, baseline.version, now_us=now_us)
        with store.ledger.read() as connection:
            baseline = versions.get(connection, baseline.version)
    return baseline


def _try(store: Store, model: Model, row: VersionRow, rows: pl.DataFrame | None = None) -> SandboxReport:
    golden = model.golden if rows is None and row.role == "candidate" else ()
    golden_rows = [map_row(model.contract, query.row) for query in golden]
    path = blobs.path_of(store.root, row.digest)
    return run_sandbox(path, row.digest, model.gates, golden=golden_rows, rows=rows)


def _endpoint(store: Store, model: Model, current: VersionRow | None) -> Signature:
    """Return what callers use now: the champion's contract, or the declared one before there is a champion."""
    contract = model.contract
    if current is not None and current.contract_hash != contract.hash:
        contract = Contract.from_json(read_metadata(blobs.get(store.root, current.digest)).contract_json)
    return endpoint_signature(contract, [aggregate.name for aggregate in model.aggregates])


def _signature(
    store: Store, model: Model, row: VersionRow, seen: LoadReport, current: VersionRow | None
) -> GateResult:
    endpoint = _endpoint(store, model, current)
    with store.ledger.read() as connection:
        accepted = contracts.is_accepted(connection, model.name, endpoint.contract.hash, row.contract_hash)
    return check_signature(seen, endpoint, accepted=accepted)


def _size_before(store: Store, row: VersionRow, current: VersionRow | None) -> int | None:
    # The size of a heuristic that serves for want of a model does not bound the size of a model.
    if current is not None and current.role == "candidate":
        return current.bytes
    with store.ledger.read() as connection:
        known = versions.of_model(connection, row.model)
    for earlier in known:
        if earlier.role == "candidate" and earlier.number < row.number and earlier.state == "qualified":
            return earlier.bytes
    return None


def _about(trial: LoadReport) -> VersionMetadata:
    facts: Any = trial.metadata
    return VersionMetadata(**facts)


def _message(results: list[GateResult]) -> str:
    return "; ".join(f"{result.gate} {result.verdict}: {result.explanation}" for result in results)
