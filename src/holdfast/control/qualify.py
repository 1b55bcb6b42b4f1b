"""Judges a version by every gate, and writes verdicts, state and event in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.contract import Contract
from holdfast.control.examples import read_examples, split_days
from holdfast.control.trial import Attempt, attempt
from holdfast.declaration import Model
from holdfast.errors import InputError, RefusedError
from holdfast.features import aggregates_from_json
from holdfast.qualify import (
    GateResult,
    Pair,
    Signature,
    Trial,
    baseline,
    champion,
    endpoint_signature,
    first_version,
    golden,
    loads,
    objective,
    signature,
    size,
    standing,
)
from holdfast.records import Verdict
from holdfast.store import Store, blobs, events, gates, versions
from holdfast.store.versions import VersionRow
from holdfast.train.artifact import VersionMetadata, read_metadata


@dataclass(frozen=True, slots=True)
class _Holdout:
    """The labelled days that a version never learnt from, as it answered them, in the order of the table's
    rows."""

    scores: npt.NDArray[np.float64]
    labels: npt.NDArray[np.bool_]
    event_us: npt.NDArray[np.int64]
    trained_before_us: int


def qualify(store: Store, model: Model, version: str, *, now_us: int) -> list[GateResult]:
    """Judge `version` of `model` and return what every gate said, in the order in which the gates were tried.

    Verdicts, the version's state and an event are written in one transaction. A version that was qualified
    or refused keeps that state: its verdicts are returned as they were. One that could not be judged to the
    end stays registered and may be judged again. The heuristic beside a candidate is judged first, when it
    was not yet.

    Raises `NotFoundError` HF303 for an unknown version, `InputError` HF101 when it belongs to another model
    and `ConflictError` HF403 when somebody else ended the judgement first.
    """
    row = versions.get(store, version)
    if row.model != model.name:
        raise InputError(
            "HF101",
            f"{version} is a version of {row.model!r}, not of {model.name!r}",
            state="nothing was judged",
        )
    if row.state != "registered":
        return gates.newest(store, version)
    results = (
        _judge_heuristic(store, model, row) if row.role == "heuristic" else _judge(store, model, row, now_us)
    )
    state = standing(results)
    with store.ledger.write() as connection:
        gates.append(connection, version, results, now_us=now_us)
        if state != "registered":
            versions.set_state(connection, version, state, before="registered")
        events.append(
            connection,
            at_us=now_us,
            kind=f"version.{'judged' if state == 'registered' else state}",
            subject=version,
            explanation=_told(results),
        )
    return results


def require_qualified(store: Store, version: str) -> VersionRow:
    """The row of `version`, when every gate let it through; `RefusedError` HF403 with the reasons otherwise
    (R88)."""
    row = versions.get(store, version)
    if row.state != "qualified":
        found = gates.newest(store, version)
        raise RefusedError(
            "HF403",
            f"{version} is {row.state}, not qualified: {_told(found) if found else 'no gate has judged it'}",
            state="no traffic was moved",
            next_command=f"holdfast qualify {version}",
        )
    return row


def _judge_heuristic(store: Store, model: Model, row: VersionRow) -> list[GateResult]:
    """A heuristic may answer users, so it must load and fit; nobody asks it to beat itself."""
    seen = _try(store, model, row).trial
    return [
        loads(seen, model.gates),
        signature(seen, _endpoint(store, model)),
        size(row.bytes, None, model.gates),
    ]


def _judge(store: Store, model: Model, row: VersionRow, now_us: int) -> list[GateResult]:
    seen = _try(store, model, row).trial
    results = [loads(seen, model.gates), signature(seen, _endpoint(store, model))]
    if model.golden:
        results.append(golden(seen, model.golden))
    results.append(size(row.bytes, _size_before(store, row), model.gates))
    # Held-out rows are asked only of a file that loads and fits: the others have nothing more to say.
    fits = results[0].verdict is Verdict.PASS and results[1].verdict is Verdict.PASS
    own = _held_out(store, model, row, row, _about(seen)) if fits else None
    beside = versions.heuristic_beside(store, row)
    if beside.state == "registered":
        qualify(store, model, beside.version, now_us=now_us)
    against_heuristic = _pair(own, _known(store, model, row, beside)) if own else None
    results.append(baseline(against_heuristic, model.gates))
    if model.objective is not None:
        results.append(objective(against_heuristic, model.objective, model.gates))
    current = versions.champion(store, model.name)
    if current is None:
        results.append(first_version())
    else:
        results.append(champion(_pair(own, _known(store, model, row, current)) if own else None, model.gates))
    return results


def _try(store: Store, model: Model, row: VersionRow, rows: pl.DataFrame | None = None) -> Attempt:
    golden_rows = [query.row for query in model.golden] if rows is None and row.role == "candidate" else []
    path = blobs.path_of(store.root, row.digest)
    return attempt(path, row.digest, model.gates, golden=golden_rows, rows=rows)


def _endpoint(store: Store, model: Model) -> Signature:
    """What callers use now: the champion's contract, or the declared one before there is a champion."""
    current = versions.champion(store, model.name)
    contract = model.contract
    if current is not None and current.contract_hash != contract.hash:
        contract = Contract.from_json(read_metadata(blobs.get(store, current.digest)).contract_json)
    return endpoint_signature(contract, [aggregate.name for aggregate in model.aggregates])


def _size_before(store: Store, row: VersionRow) -> int | None:
    before = versions.champion(store, row.model)
    if before is None:
        earlier = (
            v for v in versions.of_model(store, row.model) if v.role == "candidate" and v.number < row.number
        )
        before = next((v for v in earlier if v.state == "qualified"), None)
    return None if before is None else before.bytes


def _about(trial: Trial) -> VersionMetadata:
    facts: Any = trial.metadata
    return VersionMetadata(**facts)


def _known(store: Store, model: Model, candidate: VersionRow, other: VersionRow) -> _Holdout | None:
    """The held-out days as a version answers them that passed its gates before; None when it did not, or
    cannot answer."""
    if other.state == "refused" or other.contract_hash != candidate.contract_hash:
        return None
    if versions.get(store, other.version).state != "qualified":
        return None
    return _held_out(store, model, candidate, other, read_metadata(blobs.get(store, other.digest)))


def _held_out(
    store: Store, model: Model, candidate: VersionRow, row: VersionRow, about: VersionMetadata
) -> _Holdout | None:
    """The newest labelled days of the candidate's snapshot as version `row` answers them; None when it does
    not.

    Rows older than the end of its training are among them only if the declared holdout has grown since;
    `_pair` leaves them out.
    """
    if row.contract_hash != model.contract.hash:
        return None
    examples = read_examples(store, model, aggregates_from_json(about.aggregates_json), candidate.snapshot)
    days = split_days(model, examples.frame).holdout
    scores = _try(store, model, row, days.drop(model.label)).probabilities
    if scores is None or scores.shape != (days.height,):
        return None
    labels = days[model.label].to_numpy().astype(np.bool_)
    return _Holdout(scores, labels, _event_us(days, model), about.trained_before_us)


def _event_us(days: pl.DataFrame, model: Model) -> npt.NDArray[np.int64]:
    return days[model.contract.event_time].dt.epoch("us").to_numpy()


def _pair(own: _Holdout, other: _Holdout | None) -> Pair | None:
    """The rows that neither version learnt from; None when the other could not be asked."""
    if other is None:
        return None
    assert np.array_equal(own.event_us, other.event_us)
    fresh = own.event_us >= max(own.trained_before_us, other.trained_before_us)
    return Pair(own.scores[fresh], other.scores[fresh], own.labels[fresh])


def _told(results: list[GateResult]) -> str:
    return "; ".join(f"{result.gate} {result.verdict}: {result.explanation}" for result in results)
