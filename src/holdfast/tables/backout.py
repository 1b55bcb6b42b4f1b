"""Backing out: what it is to remove a batch, as a list of steps that is shown and executed alike.

The same list is explained to a person (`explain`), kept in the ledger (`to_json`) and carried out step by step by
`holdfast.control.backout.backout`. So what is shown is what is done, and what was begun can be ended by whoever comes next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias, assert_never, get_args

import msgspec

from holdfast.records import canonical_json


class State(StrEnum):
    """Where a back-out is."""

    UNDER_WAY = "under_way"  # begun; whoever runs it next carries it on
    DONE = "done"  # every step is done


@dataclass(frozen=True, slots=True)
class TablePart:
    """What one load has in one table."""

    table: str
    rows: int
    files: int


@dataclass(frozen=True, slots=True)
class RemoveRows:
    """The rows of one load disappear from every table; snapshots that hold them stay readable, as evidence.

    `event_time` is the column of the feed's event times, empty where nobody knows it; `group` the feed's group, empty for
    one of its own.
    """

    feed: str
    batch: str
    epoch: int
    event_time: str
    parts: tuple[TablePart, ...]
    group: str = ""

    @property
    def rows(self) -> int:
        """Rows over all tables."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class ForgetOnline:
    """Values that servers read are computed again without the rows, or taken back where nothing else supports them.

    `low_us` and `high_us` bound the event times of the requests that such a value could answer, microseconds UTC;
    None when no value changes.
    """

    feed: str
    aggregates: tuple[str, ...]
    recomputed: int
    forgotten: int
    low_us: int | None = None
    high_us: int | None = None


@dataclass(frozen=True, slots=True)
class SuspectLoad:
    """Rows of a load that stays refer to rows that go: it is suspect, and nothing trains on it until it is backed out too or
    a person accepts it. `rows` have in `column` what then stands in no row of `to_feed`.
    """

    feed: str
    batch: str
    epoch: int
    column: str
    to_feed: str
    rows: int

    def words(self, batch: str) -> str:
        """What is wrong with it when `batch` of `to_feed` is gone."""
        return (
            f"{_count(self.rows, 'row')} of load {self.epoch} of {self.feed}/{self.batch} refer by {self.column!r} to rows of "
            f"{self.to_feed}/{batch} that were backed out"
        )


@dataclass(frozen=True, slots=True)
class TaintSnapshots:
    """Nothing is trained on these snapshots any more."""

    snapshots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaintVersions:
    """These versions are never given traffic again."""

    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CancelRollout:
    """A rollout that has no traffic yet ends, because its challenger, or what it would be compared with, is tainted."""

    model: str
    rollout_id: int
    challenger: str


@dataclass(frozen=True, slots=True)
class ReturnTraffic:
    """The traffic of tainted versions goes to `to`, which is clean. `rollout` is moved by it; None when none is."""

    model: str
    version: str
    to: str
    rollout_id: int | None


@dataclass(frozen=True, slots=True)
class HoldOn:
    """Nothing clean is there to answer: the last good version goes on, and it is said that it is tainted."""

    model: str
    version: str


@dataclass(frozen=True, slots=True)
class ReplaceStandIns:
    """Tainted versions that only stand by (previous, fallback) leave the traffic plan."""

    model: str
    versions: tuple[str, ...]
    fallback: str | None


@dataclass(frozen=True, slots=True)
class Answered:
    """What one version answered. `cause` is "version" when the version is tainted, "online" when it is clean but read
    values that the batch had made; then the counts are of all its answers in that time, and so at most so many.
    """

    model: str
    version: str
    cause: str
    requests: int
    rows: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class ListAnswers:
    """Answers that cannot be taken back, so that people can act on them (R10)."""

    answers: tuple[Answered, ...]

    @property
    def rows(self) -> int:
        """Answered rows over all versions."""
        return sum(each.rows for each in self.answers)


@dataclass(frozen=True, slots=True)
class Returned:
    """Feedback that was joined to answers of one tainted version."""

    model: str
    version: str
    labels: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True)
class ListFeedback:
    """Feedback that judges answers of tainted versions: true, and about versions that are gone."""

    feedback: tuple[Returned, ...]


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What must be trained again, from which feeds, because a version of it was live or was going to be."""

    model: str
    feeds: tuple[str, ...]
    replaces: tuple[str, ...]


Step: TypeAlias = (
    RemoveRows
    | ForgetOnline
    | SuspectLoad
    | TaintSnapshots
    | TaintVersions
    | CancelRollout
    | ReturnTraffic
    | HoldOn
    | ReplaceStandIns
    | ListAnswers
    | ListFeedback
    | Rebuild
)
"""One step. They stand in a plan in the order of this list."""

TrafficStep: TypeAlias = CancelRollout | ReturnTraffic | HoldOn | ReplaceStandIns
"""The steps that change, or on purpose do not change, who answers."""

_STEPS: Final[dict[str, type[Any]]] = {kind.__name__: kind for kind in get_args(Step)}
_AT_ONCE: Final = (RemoveRows, ForgetOnline, SuspectLoad, TaintSnapshots, TaintVersions)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that backing out `feed`/`batch` means, in the order in which it is done."""

    feed: str
    batch: str
    steps: tuple[Step, ...]

    @property
    def at_once(self) -> int:
        """How many steps, from the first, are one transaction."""
        return sum(isinstance(step, _AT_ONCE) for step in self.steps)

    @property
    def loads(self) -> tuple[tuple[str, str, int], ...]:
        """Feed, batch and epoch of every load that goes."""
        return tuple(
            (step.feed, step.batch, step.epoch) for step in self.steps if isinstance(step, RemoveRows)
        )

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that are tainted by it."""
        return tuple(name for step in self.steps if isinstance(step, TaintVersions) for name in step.versions)

    def to_json(self) -> str:
        """The plan as canonical JSON; `from_json` is its inverse."""
        return canonical_json({"feed": self.feed, "batch": self.batch, "steps": self.steps_as_dicts()})

    def steps_as_dicts(self) -> list[dict[str, Any]]:
        """The steps in plain JSON types, each with its name."""
        return [{"step": type(step).__name__, **asdict(step)} for step in self.steps]

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote."""
        found = json.loads(text)
        steps = tuple(msgspec.convert(each, _STEPS[each.pop("step")]) for each in found["steps"])
        return cls(found["feed"], found["batch"], steps)


@dataclass(frozen=True, slots=True)
class Blast:
    """What a batch reached, in totals. `cost` is answers times the cost of one, None when nobody said what one costs."""

    rows: int
    snapshots: int
    versions: int
    live: int
    answers: int
    answers_at_most: int
    first_us: int | None
    last_us: int | None
    labels: int
    cost: float | None

    def as_dict(self) -> dict[str, Any]:
        """The totals in plain JSON types."""
        return asdict(self)


def blast(plan: Plan, *, cost_per_answer: float | None = None) -> Blast:
    """The totals of `plan` (R10). Answers are answered rows: those of tainted versions, and apart from them at most how
    many clean versions gave while they could read values of the batch.
    """
    answers = [each for step in plan.steps if isinstance(step, ListAnswers) for each in step.answers]
    tainted = sum(each.rows for each in answers if each.cause == "version")
    return Blast(
        rows=sum(step.rows for step in plan.steps if isinstance(step, RemoveRows)),
        snapshots=sum(len(step.snapshots) for step in plan.steps if isinstance(step, TaintSnapshots)),
        versions=len(plan.versions),
        live=sum(isinstance(step, ReturnTraffic | HoldOn) for step in plan.steps),
        answers=tainted,
        answers_at_most=sum(each.rows for each in answers if each.cause != "version"),
        first_us=min((each.first_us for each in answers), default=None),
        last_us=max((each.last_us for each in answers), default=None),
        labels=sum(
            each.labels for step in plan.steps if isinstance(step, ListFeedback) for each in step.feedback
        ),
        cost=None if cost_per_answer is None else tainted * cost_per_answer,
    )


def explain(steps: Iterable[Step]) -> list[str]:
    """Each step in words and numbers, as `--apply` does it.

    >>> explain([TaintVersions(("v3-1f2e3d4c",))])
    ['taint 1 version: v3-1f2e3d4c; none of them is given traffic again']
    """
    return [line for step in steps for line in _words(step)]


def _words(step: Step) -> Iterator[str]:
    match step:
        case RemoveRows():
            parts = ", ".join(
                f"{part.rows:,} rows of {part.table} in {_count(part.files, 'file')}" for part in step.parts
            )
            yield f"remove {step.feed}/{step.batch} (load {step.epoch}): {parts or 'no rows'}"
        case ForgetOnline():
            yield (
                f"online values over {step.feed}: compute {step.recomputed:,} again and forget {step.forgotten:,} "
                f"of {_count(len(step.aggregates), 'aggregate')}" + _listed(_names(step.aggregates))
            )
        case SuspectLoad():
            yield (
                f"{step.feed}/{step.batch} (load {step.epoch}) is suspect: {_count(step.rows, 'row')} of it refer by "
                f"{step.column!r} to rows of {step.to_feed} that go"
            )
        case TaintSnapshots():
            held = _count(len(step.snapshots), "snapshot")
            yield f"taint {held}{_listed(step.snapshots)}; nothing is trained on them any more"
        case TaintVersions():
            held = _count(len(step.versions), "version")
            yield f"taint {held}{_listed(step.versions)}; none of them is given traffic again"
        case CancelRollout():
            yield f"{step.model}: cancel rollout {step.rollout_id} of {step.challenger}, which has no traffic yet"
        case ReturnTraffic():
            yield f"{step.model}: traffic returns from {step.version} to {step.to}, the newest that is clean"
        case HoldOn():
            yield f"{step.model}: nothing clean can answer; {step.version} goes on, although it is tainted"
        case ReplaceStandIns():
            instead = "nothing" if step.fallback is None else step.fallback
            stand = "stands" if len(step.versions) == 1 else "stand"
            yield f"{step.model}: {', '.join(step.versions)} no longer {stand} by; the fallback is {instead}"
        case ListAnswers():
            yield from _answers(step)
        case ListFeedback():
            for each in step.feedback:
                yield f"{each.labels:,} labels came back for answers of {each.version}"
        case Rebuild():
            yield (
                f"{step.model}: train again from {', '.join(step.feeds)}, "
                f"because {', '.join(step.replaces)} learnt from what goes"
            )
        case _:
            assert_never(step)


def _answers(step: ListAnswers) -> Iterator[str]:
    if not step.answers:
        yield "no answer was given by a tainted version or from values of the batch"
    for each in step.answers:
        span = f"from {_moment(each.first_us)} to {_moment(each.last_us)}"
        if each.cause == "version":
            yield f"{each.rows:,} answers in {each.requests:,} requests were given by {each.version}, {span}"
        else:
            yield f"at most {each.rows:,} answers of {each.version} read values of the batch, {span}"


def _moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _names(aggregates: Sequence[str]) -> tuple[str, ...]:
    """Names without the hash of their definition, each once."""
    return tuple(dict.fromkeys(each.partition(".")[0] for each in aggregates))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _listed(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""
