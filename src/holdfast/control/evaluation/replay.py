"""Replay recorded requests against a candidate: which its contract would refuse, and where its predictions differ.

The inputs are those of the log, in the units of the contract that served then. They are converted to the candidate's
contract as a caller's would be. The log holds no aggregates: they are looked up in the online values at each
row's own event time, by the server's rule, so that a value which became known later is not used; one that was corrected
since is used as it is now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from math import isnan
from typing import Any, Final

from holdfast.contract import Contract, Timestamp
from holdfast.contract.row.adapter import RowAdapter
from holdfast.control.collect.log_summary import Slicer, no_slices, slicer_of
from holdfast.control.evaluation.sandbox import run_sandbox
from holdfast.declaration import Model
from holdfast.errors import HoldfastError, NotFoundError
from holdfast.features import FittedFeatures, OnlineTable, entity_key
from holdfast.qualify import GateResult
from holdfast.records import EPOCH, Progress, Verdict
from holdfast.rollout.evidence.evidence import score
from holdfast.rollout.evidence.replay import CONTRACT, Replayed, replayed
from holdfast.rollout.evidence.shadow import OK, ComparedRow, LabelledPair, Pair, describe, rank_slices
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.catalog import online_features
from holdfast.store.db import events
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs
from holdfast.store.models import gate_results, versions
from holdfast.store.models.versions import VersionRow
from holdfast.store.telemetry import outcomes, recorded_requests
from holdfast.store.telemetry.recorded_requests import RecordedRequest
from holdfast.train.artifact import VersionMetadata, read_metadata

DEFAULT_REQUESTS: Final = 1000
"""How many requests are replayed if neither the policy nor the caller sets a number."""
WORST_SHOWN: Final = 5
_ROWS_AT_ONCE: Final = 4096
_EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class WorstRow:
    """A row whose predictions differ most: its prediction's id, its inputs, and both probabilities."""

    prediction: str
    inputs: dict[str, Any]
    ours: float
    theirs: float


@dataclass(slots=True)
class ReplayReport:
    """The result of a replay.

    `refused` counts requests by reason ("column|rule"), `refused_examples` names some of each;
    `failed` counts requests by kind of failure; `left_out` names what could not be replayed, and why.
    """

    version: str
    against: list[str]
    requests: int = 0
    rows: int = 0
    labelled: int = 0
    refused_requests: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    refused_examples: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    verdict: Verdict = Verdict.INCONCLUSIVE
    explanation: str = ""
    metrics: dict[str, str] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)
    worst: list[WorstRow] = field(default_factory=list)
    unknown_aggregates: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Candidate:
    row: VersionRow
    contract: Contract
    fitted: FittedFeatures


@dataclass(slots=True)
class _Case:
    """One recorded request on its way to the candidate."""

    request: RecordedRequest
    rows: list[dict[str, Any]]
    reasons: tuple[str, ...]
    predictions: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def result(self) -> str:
        return CONTRACT if self.reasons else self.failure or OK


def replay(
    store: Store,
    model: Model,
    version: str,
    *,
    requests: int | None = None,
    since_us: int = 0,
    now_us: int,
    progress: Progress | None = None,
) -> ReplayReport:
    """Replay the newest recorded requests with `version`, compare, and keep the verdict as the gate "replay".

    Parameters
    ----------
    requests
        How many; by default the number of the rollout's policy, or 1,000.
    since_us
        How far back at most, microseconds since 1970 UTC.
    progress
        Called with the number of rows that are done, and of all.

    The candidate runs in a process of its own, bounded as in qualification. Raises `NotFoundError` HF303 for an unknown
    version and for one of another model, `RefusedError` HF406 for a tainted one.
    """
    candidate = _candidate(store, model, version)
    wanted = requests or model.rollout.replay_requests or DEFAULT_REQUESTS
    with store.ledger.read() as connection:
        found = recorded_requests.newest(connection, store.root, model.name, most=wanted, since_us=since_us)
    report = ReplayReport(
        version, sorted({each.version for each in found.requests}), left_out=dict(found.damaged)
    )
    cases = _crossed(store, candidate, found.requests, report)
    _fill(store, candidate, cases, report)
    _predict(store, model, candidate, cases, progress or (lambda _done, _of: None))
    columns = model.rollout.slices
    _judge(store, model, candidate, cases, slicer_of(store, columns) if columns else no_slices, report)
    _keep(store, report, wanted, now_us)
    return report


def is_due(store: Store, model: Model, version: str) -> bool:
    """Return True if the policy requires a replay that `version` lacks: it was not replayed, or with too few requests."""
    if not model.rollout.replay_requests:
        return False
    with store.ledger.read() as connection:
        last = gate_results.newest_replay(connection, version)
    return (
        last is None
        or last.verdict is Verdict.INCONCLUSIVE
        or (last.observed or 0) < model.rollout.replay_requests
    )


def _candidate(store: Store, model: Model, version: str) -> _Candidate:
    with store.ledger.read() as connection:
        row = versions.get(connection, version)
    if row.model != model.name:
        raise NotFoundError(
            "HF303",
            f"{version} is a version of {row.model!r}, not of {model.name!r}",
            state="nothing was replayed",
            next_command="holdfast status",
        )
    with store.ledger.read() as connection:
        taints.refuse(connection, "version", version)
    about = _about(store, version)
    return _Candidate(
        row, Contract.from_json(about.contract_json), FittedFeatures.from_json(about.features_json)
    )


def _about(store: Store, version: str) -> VersionMetadata:
    with store.ledger.read() as connection:
        return read_metadata(blobs.get(store.root, versions.get(connection, version).digest))


def _crossed(
    store: Store, candidate: _Candidate, requests: Iterable[RecordedRequest], report: ReplayReport
) -> list[_Case]:
    """Each request as the candidate's contract reads it, with the reasons why it refuses some."""
    crossings: dict[str, RowAdapter | None] = {}
    cases: list[_Case] = []
    for request in requests:
        if request.version not in crossings:
            try:
                known = Contract.from_json(_about(store, request.version).contract_json)
                crossings[request.version] = RowAdapter(known, candidate.contract)
            except HoldfastError as error:
                crossings[request.version] = None
                report.left_out[request.version] = f"its contract cannot be read: {error.what}"
        crossing = crossings[request.version]
        if crossing is not None:
            rows, reasons = crossing.admit(request.rows)
            cases.append(_Case(request, rows, reasons))
    refused: Counter[str] = Counter()
    for each in cases:
        for reason in each.reasons:
            refused[reason] += 1
            examples = report.refused_examples.setdefault(reason, [])
            if len(examples) < _EXAMPLES:
                examples.append(each.request.id)
    report.refused = dict(refused.most_common())
    report.refused_requests = sum(bool(each.reasons) for each in cases)
    report.requests, report.rows = len(cases), sum(len(each.request.rows) for each in cases)
    return cases


def _fill(store: Store, candidate: _Candidate, cases: Sequence[_Case], report: ReplayReport) -> None:
    """Give each row what was known about its entities at its own event time."""
    rows = [row for each in cases if not each.reasons for row in each.rows]
    if not rows:
        return
    event = candidate.contract.event_time
    event_times = [row[event] for row in rows]
    for aggregate in candidate.fitted.aggregates:
        entities = sorted({key for row in rows if (key := entity_key(row.get(aggregate.by))) is not None})
        low, high = min(event_times) - aggregate.window_us, max(event_times) + 1
        table = OnlineTable()
        with store.ledger.read() as connection:
            known = online_features.between(connection, aggregate.key, entities, low, high)
        if not known:
            report.unknown_aggregates.append(aggregate.name)
        for each in known:
            if each.value is not None:
                table.add(aggregate.key, each.entity, each.known_at_us, each.value)
        for row in rows:
            found = table.lookup(
                aggregate.key, entity_key(row.get(aggregate.by)), row[event], aggregate.window_us
            )
            if not isnan(found):  # absent is missing, as in a server
                row[aggregate.name] = found


def _predict(
    store: Store, model: Model, candidate: _Candidate, cases: Sequence[_Case], progress: Progress
) -> None:
    """Ask the candidate, some thousand rows at once, each time in a fresh process."""
    open_ones = [each for each in cases if not each.reasons]
    total = sum(len(each.rows) for each in open_ones)
    path = blobs.path_of(store.root, candidate.row.digest)
    done = 0
    progress(0, total)
    while open_ones:
        part = [open_ones.pop(0)]
        while open_ones and sum(len(each.rows) for each in part) + len(open_ones[0].rows) <= _ROWS_AT_ONCE:
            part.append(open_ones.pop(0))
        rows = [row for each in part for row in each.rows]
        seen = run_sandbox(path, candidate.row.digest, model.gates, single_rows=rows)
        predictions = seen.probabilities
        at = 0
        for each in part:
            end = at + len(each.rows)
            if predictions is None:
                each.failure = seen.trial.outcome.replace(" ", "_")
            elif failed := [what for place, what in seen.failed.items() if at <= place < end]:
                each.failure = f"exception_{failed[0]}"
            else:
                each.predictions = predictions[at:end].tolist()
                each.failure = _unfit(each.predictions)
            at = end
        done += len(rows)
        progress(done, total)


def _unfit(predictions: Sequence[float]) -> str:
    if any(isnan(each) for each in predictions):
        return "not_finite"
    return "" if all(0.0 <= each <= 1.0 for each in predictions) else "not_a_probability"


def _judge(
    store: Store,
    model: Model,
    candidate: _Candidate,
    cases: Sequence[_Case],
    slicer: Slicer,
    report: ReplayReport,
) -> None:
    pairs = [_pair(each, slicer) for each in cases]
    report.failed = dict(Counter(each.failure for each in cases if each.failure))
    labelled = _labelled(store, cases)
    report.labelled = len(labelled)
    with store.ledger.read() as connection:
        own = candidate.row.contract_hash
        changed = {versions.get(connection, name).contract_hash for name in report.against} - {own}
        accepted = bool(changed) and all(
            contracts.is_accepted(connection, model.name, old, own) for old in changed
        )
    ended: Replayed = replayed(
        model.rollout,
        pairs,
        labelled,
        needed=model.rollout.replay_requests,
        refused=report.refused_requests,
        accepted=accepted,
    )
    report.verdict, report.explanation = ended.verdict, ended.explanation
    report.metrics = {state.metric: describe(state) for state in ended.states if state.challenger_units}
    report.slices = [asdict(each) for each in rank_slices(ended.states)]
    report.worst = _worst(candidate, cases)


def _pair(each: _Case, slicer: Slicer) -> Pair:
    request = each.request
    rows = tuple(
        ComparedRow(ours, theirs, slicer(request.version, inputs))
        for ours, theirs, inputs in zip(each.predictions, request.probabilities, request.rows, strict=False)
        if each.result == OK
    )
    return Pair(request.unit, each.result, False, rows, 0.0, None)


def _labelled(store: Store, cases: Sequence[_Case]) -> list[LabelledPair]:
    predicted = [each for each in cases if each.result == OK]
    with store.ledger.read() as connection:
        known = outcomes.labels_of(
            connection,
            [f"{each.request.id}/{row}" for each in predicted for row in range(len(each.predictions))],
        )
    return [
        LabelledPair(each.request.unit, score(ours, label), score(theirs, label))
        for each in predicted
        for row, (ours, theirs) in enumerate(zip(each.predictions, each.request.probabilities, strict=False))
        if (label := known.get(f"{each.request.id}/{row}")) is not None
    ]


def _worst(candidate: _Candidate, cases: Sequence[_Case]) -> list[WorstRow]:
    columns = candidate.contract.request_columns
    rows = [
        WorstRow(
            f"{each.request.id}/{at}",
            {column.name: each.rows[at][column.name] for column in columns if column.name in each.rows[at]},
            ours,
            theirs,
        )
        for each in cases
        if each.result == OK
        for at, (ours, theirs) in enumerate(zip(each.predictions, each.request.probabilities, strict=False))
    ]
    rows.sort(key=lambda row: (-abs(row.ours - row.theirs), row.prediction))
    timestamps = [column.name for column in columns if isinstance(column, Timestamp)]
    return [
        replace(row, inputs={name: _shown(value, name in timestamps) for name, value in row.inputs.items()})
        for row in rows[:WORST_SHOWN]
        if row.ours != row.theirs
    ]


def _shown(value: object, is_timestamp: bool) -> object:
    """Return an input as a caller may send it: a timestamp is RFC 3339 in UTC, not the microseconds of the log."""
    if is_timestamp and isinstance(value, int):
        return (EPOCH + timedelta(microseconds=value)).isoformat()
    return value


def _keep(store: Store, report: ReplayReport, wanted: int, now_us: int) -> None:
    result = GateResult(
        gate_results.REPLAY,
        report.verdict,
        report.explanation,
        observed=float(report.requests),
        bound=float(wanted),
    )
    with store.ledger.write() as connection:
        gate_results.append(connection, report.version, [result], now_us=now_us)
        events.append(
            connection,
            at_us=now_us,
            kind="version.replayed",
            subject=report.version,
            explanation=f"replay {report.verdict}: {report.explanation}",
        )
