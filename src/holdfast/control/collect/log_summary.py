"""Summarise a part of a prediction log: usage, predictions to store, evidence for rollouts.

The context names the model's rollouts: their slices, and the promotion that is baking. `summarise` is pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import zip_longest
from typing import Any, Final, TypeAlias, assert_never

import msgspec
import polars as pl

from holdfast.contract import Contract
from holdfast.errors import InputError, IntegrityError, NotFoundError
from holdfast.monitor.latency import bucket_of
from holdfast.monitor.usage import UsageRow
from holdfast.records import EVERYTHING_PPM, MINUTE_US, Arm
from holdfast.rollout import Canary, RequestOutcome
from holdfast.rollout.evidence.shadow import OK, ComparedRow, Pair
from holdfast.rollout.evidence.windows import UNKNOWN_SHARE, RequestGroup
from holdfast.rollout.model.policy import SERVER
from holdfast.store import Store
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.serving.prediction_log import (
    FeedbackRecord,
    KeyFeedbackRecord,
    PredictionRecord,
    Record,
    ShadowRecord,
)
from holdfast.store.telemetry.collected_log import PREDICTIONS, SHADOWS
from holdfast.train.artifact import read_metadata

_LONGEST: Final = 63
"""A longer value is truncated: it is a name in a table, not data."""

Slicer: TypeAlias = Callable[[str, Sequence[Any]], tuple[str, ...]]
"""Returns the slices of a row, such as "carrier=AA", from the version that predicted it and its logged inputs."""


def no_slices(_version: str, _inputs: Sequence[Any]) -> tuple[str, ...]:
    """Return no slices: the slicer of a policy that names no columns."""
    return ()


@dataclass(frozen=True, slots=True)
class Baking:
    """A promotion in its bake time.

    Its evidence is all predictions of `challenger` since `since_us` (microseconds since 1970 UTC), under any plan.
    """

    rollout_id: int
    challenger: str
    since_us: int


@dataclass(frozen=True, slots=True)
class LogContext:
    """The context of the records of a log."""

    slicer: Slicer = no_slices
    baking: Baking | None = None
    guards_servers: bool = False
    """Whether the server that answered is a slice as well."""


def read_context(store: Store, model: str) -> LogContext:
    """Return the context of the model's rollouts now."""
    with store.ledger.read() as connection:
        row = rollouts.under_way(connection, model)
        push = rollouts.baking(connection, model)
        promoted = None if push is None else rollouts.get(connection, push.rollout_id)
    baking = None
    if promoted is not None:
        baking = Baking(promoted.rollout_id, promoted.challenger, promoted.changed_at_us)
    columns: tuple[str, ...] = ()
    guards_servers = False
    for each in (row, promoted):
        if each is not None:
            columns = columns or _comparable(store, each)
            guards_servers |= SERVER in Canary.from_json(each.policy_json).slices
    slicer = slicer_of(store, columns) if columns else no_slices
    return LogContext(slicer, baking, guards_servers and SERVER not in columns)


def _comparable(store: Store, row: RolloutRow) -> tuple[str, ...]:
    """Return the columns of the policy's slices that both versions have.

    With a column of the champion alone, the challenger's predictions would be in no slice, but its failures, which the
    champion serves, would be in one.
    """
    columns = tuple(Canary.from_json(row.policy_json).slices)
    for version in (row.challenger, row.champion):
        if version is not None and columns:
            known = known_columns(store, version)
            columns = tuple(name for name in columns if name in known)
    return columns


def refuse_unguarded(store: Store, policy: Canary, challenger: str, champion: str | None) -> None:
    """Refuse a policy that guards slices by a column that one of the versions lacks.

    A version whose file is unreadable is skipped: other checks report it.

    Parameters
    ----------
    store
        The store.
    policy
        The policy of the rollout.
    challenger, champion
        The versions; the champion is None if there is none.

    Raises
    ------
    InputError
        HF107, because such a guard would get no request.
    """
    for version in (challenger, champion):
        known = () if version is None or not policy.slices else known_columns(store, version)
        for name in policy.slices if known else ():
            if name not in known and name != SERVER:
                raise InputError(
                    "HF107",
                    f"the slices of the rollout are by {name!r}, and {version} has no such column; "
                    f"it has {', '.join(known)}",
                    state="nothing was written",
                    next_command="holdfast check, when slices name columns that both versions have",
                )


def slicer_of(store: Store, columns: Sequence[str]) -> Slicer:
    """Return a slicer by the values in `columns`. It ignores columns that the predicting version does not have.

    Logged inputs are in the order of that version's request columns. Rows of a version whose file cannot be read are in no
    slice: the log must be collected all the same.
    """

    def slices(version: str, inputs: Sequence[Any]) -> tuple[str, ...]:
        known = known_columns(store, version)
        places = [(name, known.index(name)) for name in columns if name in known]
        if not places:
            return ()
        contract = contract_of(store, version)
        return tuple(
            f"{name}={_value(contract.word(name, inputs[at]))}" for name, at in places if at < len(inputs)
        )

    return slices


def known_columns(store: Store, version: str) -> tuple[str, ...]:
    """Return the request columns of a version in order; none if its file cannot be read."""
    try:
        return request_columns(store, version)
    except (IntegrityError, NotFoundError):
        return ()


@lru_cache(maxsize=64)
def request_columns(store: Store, version: str) -> tuple[str, ...]:
    """Return the request columns of a version in order. Raises if its file cannot be read."""
    return tuple(column.name for column in contract_of(store, version).request_columns)


@lru_cache(maxsize=64)
def contract_of(store: Store, version: str) -> Contract:
    """Return the contract of a version, which its logged inputs are in. Raises if its file cannot be read."""
    # Cached without end: a version never changes.
    with store.ledger.read() as connection:
        about = read_metadata(blobs.get(store.root, versions.get(connection, version).digest))
    return Contract.from_json(about.contract_json)


def _value(value: object) -> str:
    """Return `value` as text, as the slices of a snapshot have it."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)[:_LONGEST]


NO_CONTEXT: Final = LogContext()
"""The context without slices and without a baking promotion."""
_to_json: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class PairWindow:
    """Pairs of one rollout within one minute."""

    rollout_id: int
    minute_start_us: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class LogSummary:
    """Contents of one part of a log; `numbers` are the smallest and the largest record number by segment.

    The segment is the one that the id names: a request that ended late is logged in a later one.
    """

    predictions: int
    usage: tuple[UsageRow, ...]
    requests: tuple[RequestGroup, ...]
    """Requests of rollouts, and of the promotion that is baking, by minute and share."""
    rows: pl.DataFrame
    """Predicted rows, in the schema of `PREDICTIONS`."""
    numbers: dict[int, tuple[int, int]]
    feedback: tuple[FeedbackRecord, ...]
    shadow_rows: pl.DataFrame
    pair_windows: tuple[PairWindow, ...]
    key_feedback: tuple[KeyFeedbackRecord, ...] = ()

    @property
    def number_range(self) -> tuple[int, int]:
        """Return the smallest and the largest record number of all segments; zeros without a prediction."""
        ranges = self.numbers.values()
        return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else (0, 0)


def summarise(records: Iterable[Record], context: LogContext = NO_CONTEXT) -> LogSummary:
    """Summarise one part of a log for the rollouts that `context` names."""
    predictions: list[PredictionRecord] = []
    feedback: list[FeedbackRecord] = []
    key_feedback: list[KeyFeedbackRecord] = []
    shadowed: list[ShadowRecord] = []
    for record in records:
        match record:
            case PredictionRecord():
                predictions.append(record)
            case FeedbackRecord():
                feedback.append(record)
            case KeyFeedbackRecord():
                key_feedback.append(record)
            case ShadowRecord():
                shadowed.append(record)
            case _:
                assert_never(record)
    return LogSummary(
        predictions=len(predictions),
        usage=_usage(predictions),
        requests=(*_of_rollouts(predictions, context), *_of_promotion(predictions, context)),
        rows=_rows(predictions),
        numbers=_numbers(predictions),
        feedback=tuple(feedback),
        shadow_rows=shadow_rows(shadowed),
        pair_windows=pair_windows(shadowed, predictions, context.slicer),
        key_feedback=tuple(key_feedback),
    )


@dataclass(slots=True)
class _Count:
    requests: int = 0
    rows: int = 0
    latency_sum_us: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    response: dict[int, int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


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
        if record.response_us is not None:
            bucket = bucket_of(record.response_us)
            count.response[bucket] = count.response.get(bucket, 0) + 1
        count.reasons.update(record.reasons)
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
            count.response,
            count.reasons,
        )
        for (version, arm, result, minute_start_us), count in sorted(counts.items())
    )


def _of_rollouts(predictions: Sequence[PredictionRecord], context: LogContext) -> tuple[RequestGroup, ...]:
    requests: dict[tuple[int, int, int], list[RequestOutcome]] = defaultdict(list)
    for record in predictions:
        if record.rollout is not None:
            share_ppm = UNKNOWN_SHARE if record.share_ppm is None else record.share_ppm
            requests[record.rollout, _minute(record), share_ppm].append(_request_outcome(record, context))
    return tuple(RequestGroup(*key, tuple(found)) for key, found in sorted(requests.items()))


def _of_promotion(predictions: Sequence[PredictionRecord], context: LogContext) -> tuple[RequestGroup, ...]:
    """Return the requests of the promotion that is baking: its champion is the rollout's challenger, alone.

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
            outcome = _request_outcome(record, context)
            requests[_minute(record)].append(replace(outcome, arm=Arm.CHALLENGER))
    return tuple(
        RequestGroup(baking.rollout_id, minute_start_us, EVERYTHING_PPM, tuple(found))
        for minute_start_us, found in sorted(requests.items())
    )


def _is_of_champion(record: PredictionRecord, champion: str) -> bool:
    """Return True if the request was routed to the champion. One that names a version itself is no evidence."""
    if record.challenger_failed or record.arm == Arm.CHALLENGER:
        return False
    return record.version == champion or record.result == "champion_failed"


def _request_outcome(record: PredictionRecord, context: LogContext) -> RequestOutcome:
    challenged = record.arm == Arm.CHALLENGER or record.challenger_failed != ""
    rows = record.inputs if context.slicer is not no_slices else ()
    slices = {name: None for row in rows for name in context.slicer(record.version, row)}
    if context.guards_servers:
        slices[f"{SERVER}={record.id.rsplit('-', 2)[0]}"] = None
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
            record.share_ppm,
        )
        for record in predictions
        for row, (probability, inputs) in enumerate(zip(record.probabilities, record.inputs, strict=False))
    ]
    return pl.DataFrame(rows, schema=PREDICTIONS.schema, orient="row")


def _numbers(predictions: Sequence[PredictionRecord]) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for record in predictions:
        _, segment_text, rest = record.id.rsplit("-", 2)
        segment, number = int(segment_text), int(rest.partition(".")[0])
        low, high = found.get(segment, (number, number))
        found[segment] = min(low, number), max(high, number)
    return found


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
