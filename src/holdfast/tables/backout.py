"""The plan of a back-out: a list of steps that is printed, stored and executed alike.

The same list is explained (`explain`), stored in the ledger (`to_json`) and executed step by step by
`holdfast.control.backout.backout`. So a dry run shows what is done, and any process can resume an interrupted
back-out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias, assert_never, get_args

import msgspec

from holdfast.formatting import counted, timestamp
from holdfast.records import canonical_json


class BackoutState(StrEnum):
    """The state of a back-out."""

    UNDER_WAY = "under_way"  # begun; the next run resumes it
    DONE = "done"  # every step is done


@dataclass(frozen=True, slots=True)
class LoadPart:
    """Rows and files of one load in one table."""

    table: str
    rows: int
    files: int


@dataclass(frozen=True, slots=True)
class RemoveRows:
    """Remove the rows of one load from every table; snapshots that hold them stay readable, as evidence.

    `event_time` is the column of the feed's event times, empty if unknown; `group` is the feed's group, empty for
    none, with the length of its periods and their time zone.
    """

    feed: str
    batch: str
    epoch: int
    event_time: str
    parts: tuple[LoadPart, ...]
    group: str = ""
    period_us: int = 86_400_000_000
    zone: str = "UTC"

    @property
    def rows(self) -> int:
        """Return the number of rows over all tables."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class RecomputeOnline:
    """Recompute online values without the rows, or remove those that no other row supports.

    `low_us` and `high_us` bound the event times of requests that such a value could reach, microseconds UTC; None if
    no value changes.
    """

    feed: str
    aggregates: tuple[str, ...]
    recomputed: int
    removed: int
    low_us: int | None = None
    high_us: int | None = None


@dataclass(frozen=True, slots=True)
class SuspectLoad:
    """A remaining load that references backed-out rows.

    Excluded from training until it is backed out or accepted. `rows`: rows whose `column` matches no row of `to_feed`
    any more.
    """

    feed: str
    batch: str
    epoch: int
    column: str
    to_feed: str
    rows: int

    def message(self, batch: str) -> str:
        """Return the reason for suspicion after `batch` of `to_feed` is backed out."""
        return (
            f"{counted(self.rows, 'row')} of load {self.epoch} of {self.feed}/{self.batch} refer by {self.column!r} to rows of "
            f"{self.to_feed}/{batch} that were backed out"
        )


@dataclass(frozen=True, slots=True)
class TaintSnapshots:
    """Refuse any training on these snapshots."""

    snapshots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaintVersions:
    """Refuse traffic to these versions forever.

    `evaluated` are those of them that were trained on no removed row, but evaluated on some; the others were trained on removed
    rows, or that is not known.
    """

    versions: tuple[str, ...]
    evaluated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeepVersions:
    """Keep these versions: their snapshots hold removed rows, but none that they were trained or evaluated on."""

    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CancelRollout:
    """Cancel a rollout without traffic, because its challenger or champion is tainted."""

    model: str
    rollout_id: int
    challenger: str


@dataclass(frozen=True, slots=True)
class FailOver:
    """Move the traffic of tainted versions to `to`, which is clean.

    `rollout` is the rollout that ends; None if none does.
    """

    model: str
    version: str
    to: str
    rollout_id: int | None


@dataclass(frozen=True, slots=True)
class KeepLastResort:
    """Keep the last good version in traffic, marked as tainted, because no clean version exists."""

    model: str
    version: str


@dataclass(frozen=True, slots=True)
class ReplaceFallbacks:
    """Remove tainted versions that are `previous` or `fallback` from the traffic plan."""

    model: str
    versions: tuple[str, ...]
    fallback: str | None


@dataclass(frozen=True, slots=True)
class WithdrawPublished:
    """Withdraw the rows from exported Delta tables, by a new Delta version at the same path.

    `tables` are their paths below the store's root.
    """

    tables: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths; a plan of an older release has `<snapshot>/<feed>`, below `published/`.

        >>> WithdrawPublished(("s7-0a1b2c3d/weather", "exported/weather")).paths
        ('published/s7-0a1b2c3d/weather', 'exported/weather')
        """
        known = ("exported/", "published/")
        return tuple(each if each.startswith(known) else f"published/{each}" for each in self.tables)


@dataclass(frozen=True, slots=True)
class AffectedPredictions:
    """Predictions of one version.

    `cause` is "version" if the version is tainted, "online" if it is clean but read values of the batch. Then the
    counts are of all its predictions in that time, and so an upper bound. `first_us` and `last_us` are when the first and
    the last minute with a prediction began.
    """

    model: str
    version: str
    cause: str
    requests: int
    rows: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class ListPredictions:
    """List predictions that cannot be undone, so that users can act on them (R10)."""

    predictions: tuple[AffectedPredictions, ...]

    @property
    def rows(self) -> int:
        """Return the number of predicted rows over all versions."""
        return sum(each.rows for each in self.predictions)


@dataclass(frozen=True, slots=True)
class AffectedLabels:
    """Labels joined to predictions of one tainted version."""

    model: str
    version: str
    labels: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class ListFeedback:
    """List labels of predictions of tainted versions: correct labels, of versions that no longer serve."""

    labels: tuple[AffectedLabels, ...]


@dataclass(frozen=True, slots=True)
class Retrain:
    """Train a model again from `feeds`, because a version of it was live or about to be.

    `evaluated` are those of `replaces` that were trained on no removed row, but evaluated on some.
    """

    model: str
    feeds: tuple[str, ...]
    replaces: tuple[str, ...]
    evaluated: tuple[str, ...] = ()


Step: TypeAlias = (
    RemoveRows
    | RecomputeOnline
    | SuspectLoad
    | TaintSnapshots
    | TaintVersions
    | KeepVersions
    | CancelRollout
    | FailOver
    | KeepLastResort
    | ReplaceFallbacks
    | WithdrawPublished
    | ListPredictions
    | ListFeedback
    | Retrain
)
"""One step. A plan has its steps in the order of this list."""

TrafficStep: TypeAlias = CancelRollout | FailOver | KeepLastResort | ReplaceFallbacks
"""The steps that decide which version serves."""

_STEPS: Final[dict[str, type[Any]]] = {kind.__name__: kind for kind in get_args(Step)}
_TRANSACTIONAL: Final = (
    RemoveRows,
    RecomputeOnline,
    SuspectLoad,
    TaintSnapshots,
    TaintVersions,
    KeepVersions,
)


@dataclass(frozen=True, slots=True)
class BackoutPlan:
    """All steps to back out `feed`/`batch`, in order of execution.

    `cost_per_prediction` is what one wrong prediction costs, as an operator stated it; None if none did.
    """

    feed: str
    batch: str
    steps: tuple[Step, ...]
    cost_per_prediction: float | None = None

    @property
    def transactional_steps(self) -> int:
        """Return the number of leading steps that form one transaction."""
        return sum(isinstance(step, _TRANSACTIONAL) for step in self.steps)

    @property
    def loads(self) -> tuple[tuple[str, str, int], ...]:
        """Return feed, batch and epoch of every load that is removed."""
        return tuple(
            (step.feed, step.batch, step.epoch) for step in self.steps if isinstance(step, RemoveRows)
        )

    @property
    def versions(self) -> tuple[str, ...]:
        """Return the versions that it taints."""
        return tuple(name for step in self.steps if isinstance(step, TaintVersions) for name in step.versions)

    def to_json(self) -> str:
        """Return the plan as canonical JSON."""
        cost = {} if self.cost_per_prediction is None else {"cost_per_prediction": self.cost_per_prediction}
        return canonical_json(
            {"feed": self.feed, "batch": self.batch, "steps": self.steps_as_dicts(), **cost}
        )

    def steps_as_dicts(self) -> list[dict[str, Any]]:
        """Return the steps in plain JSON types, each with its name."""
        return [{"step": type(step).__name__, **asdict(step)} for step in self.steps]

    @classmethod
    def from_json(cls, text: str) -> BackoutPlan:
        """Return the plan that `to_json` wrote."""
        found = json.loads(text)
        steps = tuple(msgspec.convert(each, _STEPS[each.pop("step")]) for each in found["steps"])
        return cls(found["feed"], found["batch"], steps, found.get("cost_per_prediction"))


@dataclass(frozen=True, slots=True)
class Impact:
    """The impact of a batch in totals. `cost` is predictions times the cost of one, None if that is unknown.

    `versions` are tainted; `versions_kept` are not, because they used none of the removed rows of their snapshots.
    """

    rows: int
    snapshots: int
    versions: int
    versions_kept: int
    live: int
    predictions: int
    predictions_at_most: int
    first_us: int | None
    last_us: int | None
    labels: int
    cost: float | None


def total_impact(plan: BackoutPlan) -> Impact:
    """Return the totals of `plan` (R10).

    `predictions` are rows predicted by tainted versions; `predictions_at_most` bounds those of clean versions while
    they could read values of the batch.
    """
    predictions = [
        each for step in plan.steps if isinstance(step, ListPredictions) for each in step.predictions
    ]
    tainted = sum(each.rows for each in predictions if each.cause == "version")
    return Impact(
        rows=sum(step.rows for step in plan.steps if isinstance(step, RemoveRows)),
        snapshots=sum(len(step.snapshots) for step in plan.steps if isinstance(step, TaintSnapshots)),
        versions=len(plan.versions),
        versions_kept=sum(len(step.versions) for step in plan.steps if isinstance(step, KeepVersions)),
        live=sum(isinstance(step, FailOver | KeepLastResort) for step in plan.steps),
        predictions=tainted,
        predictions_at_most=sum(each.rows for each in predictions if each.cause != "version"),
        first_us=min((each.first_us for each in predictions), default=None),
        last_us=max((each.last_us for each in predictions), default=None),
        labels=sum(
            each.labels for step in plan.steps if isinstance(step, ListFeedback) for each in step.labels
        ),
        cost=None if plan.cost_per_prediction is None else tainted * plan.cost_per_prediction,
    )


def explain(steps: Iterable[Step]) -> list[str]:
    """Return each step as text with its numbers.

    >>> explain([TaintVersions(("v3-1f2e3d4c",))])
    ['taint 1 version: v3-1f2e3d4c; none of them gets traffic again']
    """
    return [line for step in steps for line in _explain_step(step)]


def _explain_step(step: Step) -> Iterator[str]:
    match step:
        case RemoveRows():
            parts = ", ".join(
                f"{counted(part.rows, 'row')} of {part.table} in {counted(part.files, 'file')}"
                for part in step.parts
            )
            yield f"remove {step.feed}/{step.batch} (load {step.epoch}): {parts or 'no rows'}"
        case RecomputeOnline():
            yield (
                f"online values over {step.feed}: recompute {step.recomputed:,} and remove {step.removed:,} "
                f"of {counted(len(step.aggregates), 'aggregate')}" + _listed(_names(step.aggregates))
            )
        case SuspectLoad():
            yield (
                f"{step.feed}/{step.batch} (load {step.epoch}) is suspect: {counted(step.rows, 'row')} of it refer by "
                f"{step.column!r} to removed rows of {step.to_feed}"
            )
        case TaintSnapshots():
            tainted = counted(len(step.snapshots), "snapshot")
            yield f"taint {tainted}{_listed(step.snapshots)}; no training may use them"
        case TaintVersions():
            tainted = counted(len(step.versions), "version")
            only = f"; trained on no removed row, only evaluated on some: {', '.join(step.evaluated)}"
            yield (
                f"taint {tainted}{_listed(step.versions)}; none of them gets traffic again"
                f"{only if step.evaluated else ''}"
            )
        case KeepVersions():
            kept = counted(len(step.versions), "version")
            yield f"keep {kept}{_listed(step.versions)}; no removed row is among their training or held-out rows"
        case CancelRollout():
            yield f"{step.model}: cancel rollout {step.rollout_id} of {step.challenger}, which has no traffic yet"
        case FailOver():
            yield f"{step.model}: traffic moves from {step.version} to {step.to}, the newest clean version"
        case KeepLastResort():
            yield f"{step.model}: no clean version exists; {step.version} serves as last resort, although it is tainted"
        case ReplaceFallbacks():
            instead = "nothing" if step.fallback is None else step.fallback
            yield f"{step.model}: remove {', '.join(step.versions)} from the traffic plan; the fallback is {instead}"
        case WithdrawPublished():
            yield (
                f"withdraw the rows from {counted(len(step.tables), 'exported table')}"
                f"{_listed(step.paths)}; readers of an older Delta "
                "version, or of a copy, have these rows still"
            )
        case ListPredictions():
            yield from _explain_predictions(step)
        case ListFeedback():
            for each in step.labels:
                yield f"{counted(each.labels, 'label', 'was', 'were')} received for predictions of {each.version}"
        case Retrain():
            trained = ", ".join(each for each in step.replaces if each not in step.evaluated)
            # Not "trained on": of versions of earlier releases and of aggregates that is not known.
            uses = (("made from", trained), ("evaluated on", ", ".join(step.evaluated)))
            why = " and ".join(f"{names} was {use} removed rows" for use, names in uses if names)
            yield f"{step.model}: train again from {', '.join(step.feeds)}, because {why}"
        case _:
            assert_never(step)


def _explain_predictions(step: ListPredictions) -> Iterator[str]:
    if not step.predictions:
        yield "no prediction came from a tainted version or from values of the batch"
    for each in step.predictions:
        span = minutes(each.first_us, each.last_us)
        if each.cause == "version":
            yield f"{counted(each.rows, 'prediction')} in {counted(each.requests, 'request')} came from {each.version}, {span}"
        else:
            yield f"at most {counted(each.rows, 'prediction')} of {each.version} read values of the batch, {span}"


def minutes(first_us: int, last_us: int) -> str:
    """Return the minutes that began at two times, microseconds since 1970 UTC.

    >>> minutes(0, 0), minutes(0, 120_000_000)
    ('in the minute of 1970-01-01 00:00Z', 'in the minutes from 1970-01-01 00:00Z to 1970-01-01 00:02Z')
    """
    first, last = (f"{timestamp(each)[:16]}Z" for each in (first_us, last_us))
    return f"in the minute of {first}" if first == last else f"in the minutes from {first} to {last}"


def _names(aggregates: Sequence[str]) -> tuple[str, ...]:
    """Return the names without the hash of their definition, each once."""
    return tuple(dict.fromkeys(each.partition(".")[0] for each in aggregates))


def _listed(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""
