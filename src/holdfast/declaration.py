"""The declaration of one model: everything that Holdfast does with it follows from this object.

Each part checks itself when it is made; this module checks that the parts agree.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, get_args

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.row.aliases import map_row
from holdfast.contract.row.compiler import compile_row
from holdfast.contract.row.rules import compile_rule_for_row
from holdfast.contract.schema.missing import Reject, as_policy
from holdfast.contract.schema.units import is_same_unit
from holdfast.errors import InputError
from holdfast.features import Aggregate, Feature, Passthrough, columns_read
from holdfast.features.input_rules import problems as input_problems
from holdfast.feeds.feed import PREDICTION_ID
from holdfast.field_types import checked
from holdfast.qualify import Gates, GoldenQuery, Objective
from holdfast.records import Corrections, canonical_json, check_name, duration
from holdfast.rollout import Canary, Hook
from holdfast.rollout.decision import webhooks as rollout_hooks
from holdfast.rollout.model.drills import Drills
from holdfast.rollout.model.policy import SERVER
from holdfast.tables.selection import ALL_ROWS, Selection, selectable_columns

if TYPE_CHECKING:
    from holdfast.feeds import Feed
    from holdfast.train import GroupMean, Learner

_FEATURES: Final = get_args(Feature)


@dataclass(frozen=True)
@checked("features", "learner")
class Model:
    """A model: what it predicts, its training examples, the gates it must pass, and its rollout.

    Parameters
    ----------
    name
        1 to 63 of a-z, 0-9, '_' and '-'.
    examples
        The feed whose rows are the examples: its contract has every column of `contract`.
    feeds
        Every feed that the model reads, `examples` among them.
    contract
        The columns of a request, and the label that the model predicts.
    features
        The inputs of the learner, in order.
    learner
        The learning algorithm and its parameters.
    heuristic
        The baseline, and the fallback when no version can serve; it needs no training.
    aggregates
        Features of a row's entity from other rows, as known at the time of the row.
    holdout
        The newest span of labelled rows, which is never trained on and by which the gates evaluate.
    golden
        Requests whose predictions an owner vouches for: by the gate, and by servers after each new plan and every hour.
    gates
        The bounds of the gates.
    rollout
        The policy by which a qualified version takes over the traffic.
    objective
        The bound of a metric; a version that misses it on held-out days is not rolled out, and a champion that misses it
        is reported. None sets no bound.
    selection
        Which rows are trained on, and their weights; all rows with equal weight by default.
    hooks
        Webhooks that are called before a step of a rollout, or notified after it.
    drills
        The drills that the control loop runs, and how often; None leaves them to the command.
    recover_within
        How soon after the decision to back a batch out a clean version must serve again, such as "4h". A longer data
        incident is an event, and in the status. None sets no bound.
    silent_after
        After how long without a request the model counts as not used, such as "2h". None derives it: five minutes, or ten
        usual pauses where requests are rare; a week before 20 pauses within half an hour or more were measured.
    snapshot_quality
        The least quality, 0 to 1, of a snapshot to train on: the share of rows that came, times the share that was
        valid, times the share in loads that met every expectation. None sets no bound.

    Raises
    ------
    InputError
        HF107 when two parts contradict each other; the message names both.
    """

    name: str
    examples: Feed
    feeds: tuple[Feed, ...]
    contract: Contract
    features: tuple[Feature, ...]
    learner: Learner
    heuristic: GroupMean
    aggregates: tuple[Aggregate, ...] = ()
    holdout: timedelta | str = "14d"
    golden: tuple[GoldenQuery, ...] = ()
    gates: Gates = field(default_factory=Gates)
    rollout: Canary = field(default_factory=Canary)
    objective: Objective | None = None
    selection: Selection = ALL_ROWS
    hooks: tuple[Hook, ...] = ()
    drills: Drills | None = None
    recover_within: timedelta | str | None = None
    snapshot_quality: float | None = None
    silent_after: timedelta | str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "model")
        features: object = self.features
        if not isinstance(features, Iterable) or isinstance(features, str):
            raise InputError("HF107", f"model {self.name!r}: features are a tuple, not {features!r}")
        for part in ("feeds", "features", "aggregates", "golden", "hooks"):
            object.__setattr__(self, part, tuple(getattr(self, part)))
        object.__setattr__(self, "holdout", duration(self.holdout, "holdout"))
        for name in ("recover_within", "silent_after"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, duration(getattr(self, name), name))
        for problem in _problems(self):
            raise InputError("HF107", f"model {self.name!r}: {problem}", state="nothing was done")

    @property
    def label(self) -> str:
        """Return the name of the column that the model predicts."""
        assert self.contract.label is not None
        return self.contract.label.name

    @property
    def label_feeds(self) -> tuple[Feed, ...]:
        """Return the feeds that label the examples later; none if labels come with their rows."""
        return tuple(feed for feed in self.feeds if feed.labels_for == self.examples.name)

    @property
    def corrections(self) -> Corrections:
        """Return which of several labels of a row or prediction counts: as the label feeds declare it; else the first."""
        return self.label_feeds[0].corrections if self.label_feeds else "first"

    @property
    def selected_besides(self) -> tuple[str, ...]:
        """Return the columns that the selection reads and that only the feed of the examples has."""
        known = {*self.contract.names, *(aggregate.name for aggregate in self.aggregates)}
        return tuple(name for name in self.selection.columns if name not in known)

    @property
    def selection_columns(self) -> dict[str, Column]:
        """Return the columns that the selection may read."""
        names = [aggregate.name for aggregate in self.aggregates]
        return selectable_columns(
            self.contract.columns,
            self.examples.contract.columns,
            aggregates=names,
            sources=self.selection.sources,
        )

    @property
    def label_delay(self) -> timedelta:
        """Return the duration from a row's event until its label is known."""
        assert self.contract.label is not None
        return self.contract.label.delay_span

    @property
    def label_delays_us(self) -> dict[str, int]:
        """Return by table how much later than its rows their labels count, in microseconds."""
        # A label may be dated after it is loaded: it counts from the next microsecond after that time on.
        later = dict.fromkeys((feed.name for feed in self.label_feeds), 1)
        return {self.examples.name: self.label_delay // timedelta(microseconds=1)} | later

    @property
    def holdout_span(self) -> timedelta:
        """Return `holdout` as a `timedelta`."""
        return duration(self.holdout)

    @property
    def recovery_span(self) -> timedelta | None:
        """Return `recover_within` as a `timedelta`; None without one."""
        return None if self.recover_within is None else duration(self.recover_within)

    @property
    def silence_span(self) -> timedelta | None:
        """Return `silent_after` as a `timedelta`; None without one."""
        return None if self.silent_after is None else duration(self.silent_after)

    @property
    def heuristic_features(self) -> tuple[Feature, ...]:
        """Return the features that the heuristic groups by."""
        return tuple(feature for feature in self.heuristic.by if isinstance(feature, _FEATURES))

    def feed(self, name: str) -> Feed:
        """Return the feed of that name. Raises `InputError` HF107 if the model reads no such feed."""
        feeds = {feed.name: feed for feed in self.feeds}
        if name not in feeds:
            raise InputError(
                "HF107", f"model {self.name!r} reads no feed {name!r}; it reads {_listed(feeds)}"
            )
        return feeds[name]

    def aggregates_read_by(self, features: Iterable[Feature]) -> tuple[Aggregate, ...]:
        """Return the aggregates that any of `features` reads, in the declared order."""
        read = {column for feature in features for column in columns_read(feature)}
        return tuple(aggregate for aggregate in self.aggregates if aggregate.name in read)


def _problems(model: Model) -> Iterator[str]:
    """Yield what does not fit together, the most basic first: the next may follow from it."""
    yield from _feed_problems(model)
    yield from _row_problems(model)
    yield from _label_feed_problems(model)
    yield from _aggregate_problems(model)
    yield from _feature_problems(model)
    yield from _learner_problems(model)
    yield from _golden_problems(model)
    yield from _selection_problems(model)
    yield from _forbidden_golden_problems(model)
    yield from _slice_problems(model)
    yield from rollout_hooks.problems(model.hooks)
    if model.holdout_span <= timedelta(0):
        yield f"the holdout is {model.holdout_span}; it must be positive"
    if model.snapshot_quality is not None and not 0.0 <= model.snapshot_quality <= 1.0:
        yield f"snapshot_quality is {model.snapshot_quality}; it is a share, 0 to 1"
    if model.recovery_span is not None and model.recovery_span <= timedelta(0):
        yield f"recover_within is {model.recovery_span}; it must be positive"
    if model.silence_span is not None and model.silence_span < timedelta(minutes=1):
        yield f"silent_after is {model.silence_span}; requests are counted by minute"


def _selection_problems(model: Model) -> Iterator[str]:
    try:
        model.selection.check(model.selection_columns)
    except InputError as error:
        yield error.what


def _forbidden_golden_problems(model: Model) -> Iterator[str]:
    """Yield the golden queries that may not be trained on: no version may be evaluated by them either."""
    columns = model.selection_columns
    for rule in model.selection.forbidden:
        holds = compile_rule_for_row(rule, columns)
        for query in model.golden:
            row = map_row(model.contract, query.row)
            if holds({name: row.get(name) for name in rule.columns}) is True:
                yield f"the golden query {query.name!r} is {rule.name!r}, which the selection forbids"


def _slice_problems(model: Model) -> Iterator[str]:
    """Yield the slice columns that no request has: a guard by one of them would see nothing."""
    known = [column.name for column in model.contract.request_columns]
    for name in model.rollout.slices:
        if name not in known and name != SERVER:
            yield f"the slices of its rollout are by {name!r}, which a request does not bring; it brings {_listed(known)}"


def _feed_problems(model: Model) -> Iterator[str]:
    names = [feed.name for feed in model.feeds]
    for name in _duplicates(names):
        yield f"two feeds are named {name!r}"
    feeds = {feed.name: feed for feed in model.feeds}
    for feed in model.feeds:
        for each in feed.expects.references:  # to a feed of another model nothing is known
            if each.feed in feeds and each.key not in feeds[each.feed].contract.names:
                yield f"the feed {feed.name!r} refers by {each.column!r} to {each.key!r}, which {each.feed!r} does not have"
    if model.examples not in model.feeds:
        yield f"the feed of its examples, {model.examples.name!r}, is not among its feeds {_listed(names)}"


def _row_problems(model: Model) -> Iterator[str]:
    if model.contract.label is None:
        yield "its contract has no label, so there is nothing to predict"
    for column in model.contract.columns:
        later = isinstance(column, Label) and model.label_feeds
        if not (later and column.name not in model.examples.contract.names):
            yield from _same_column(column, model.examples)


def _label_feed_problems(model: Model) -> Iterator[str]:
    """Yield what keeps labels that come later from their rows."""
    key = model.examples.contract.key
    for feed in model.feeds:
        if feed.labels_for is None:
            continue
        subject = f"the feed {feed.name!r}"
        if feed.labels_for != model.examples.name:
            yield f"{subject} labels {feed.labels_for!r}, which is not the feed of its examples, {model.examples.name!r}"
            continue
        yield from _must_be(subject, "the label", model.label, feed, (Boolean, Label))
        if model.label in feed.contract.names and not isinstance(
            as_policy(feed.contract.column(model.label).missing), Reject
        ):
            yield f"{subject}: a row without the label {model.label!r} labels nothing; its missing policy must be Reject()"
        if feed.label_key == (PREDICTION_ID,):
            yield from _must_be(subject, "the key", PREDICTION_ID, feed, (Text,))
            requested = [column.name for column in model.contract.request_columns]
            for name in key:
                if name not in requested:
                    yield f"{subject} joins by {PREDICTION_ID!r}, and a request does not bring the key {name!r} of the rows"
        elif set(feed.label_key) != set(key):
            yield (
                f"{subject} joins by {_listed(feed.label_key)}; the key of {model.examples.name!r} is {_listed(key)} "
                f"(or join by {PREDICTION_ID!r})"
            )
        else:
            for name in key:
                yield from _must_be(
                    subject, "the key", name, feed, (type(model.examples.contract.column(name)),)
                )
    if len({feed.corrections for feed in model.label_feeds}) > 1:
        yield f"its label feeds {_listed(feed.name for feed in model.label_feeds)} declare different corrections"


def _same_column(column: Column, feed: Feed) -> Iterator[str]:
    if column.name not in feed.contract.names:
        yield f"the feed {feed.name!r} has no column {column.name!r}, which the contract requires"
        return
    delivered = feed.contract.column(column.name)
    same_kind = type(column) is type(delivered) or (
        isinstance(column, Label) and isinstance(delivered, Boolean)
    )
    if isinstance(column, Label) and isinstance(delivered, Label) and column.delay != delivered.delay:
        yield (
            f"the label {column.name!r} is known after {column.delay_span} in the contract and after "
            f"{delivered.delay_span} in the feed {feed.name!r}"
        )
    wanted, found = _describe(column), _describe(delivered)
    if not same_kind or (wanted != found and not _same_in_other_notation(column, delivered)):
        yield f"the column {column.name!r} is {wanted} in the contract and {found} in the feed {feed.name!r}"


def _aggregate_problems(model: Model) -> Iterator[str]:
    names = [aggregate.name for aggregate in model.aggregates]
    for name in _duplicates(names):
        yield f"two aggregates are named {name!r}"
    feeds = {feed.name: feed for feed in model.feeds}
    for aggregate in model.aggregates:
        subject = f"the aggregate {aggregate.name!r}"
        if aggregate.name in model.contract.names:
            yield f"{subject} has the name of a column of the contract"
        if aggregate.over not in feeds:
            yield f"{subject} is over {aggregate.over!r}, which is none of the feeds {_listed(feeds)}"
            continue
        over = feeds[aggregate.over]
        yield from _must_be(subject, "by", aggregate.by, over, (Category, Text, Integer))
        yield from _must_be(subject, "known_at", aggregate.known_at, over, (Timestamp,))
        yield from _must_be(subject, "value", aggregate.value, over, (Number, Integer, Boolean, Label))
        yield from _not_finer(subject, aggregate, over)
        yield from _label_in_time(subject, aggregate, over, model)
        if aggregate.by not in {column.name for column in model.contract.request_columns}:
            yield f"{subject} is by {aggregate.by!r}, which a request does not bring"


def _not_finer(subject: str, aggregate: Aggregate, over: Feed) -> Iterator[str]:
    """Yield the spans of an aggregate that are finer than its feed: they bring no new value (R44).

    The grid may be finer than the feed only where rows become available between its steps, and then as fine as that.
    """
    granularity = over.expects.granularity
    if granularity is None:
        return
    step = duration(granularity.step)
    useful = duration(aggregate.available_after) % step or step
    for name, least in (("window", step), ("every", useful)):
        span = duration(getattr(aggregate, name))
        if span < least:
            yield (
                f"{subject} has {name} {span}, and the events of the feed {over.name!r} are {step} apart (granularity) and "
                f"available {duration(aggregate.available_after)} after: nothing changes that often"
            )


def _label_in_time(subject: str, aggregate: Aggregate, over: Feed, model: Model) -> Iterator[str]:
    """Yield an aggregate of the label that is known before the label is due: the model would see what it predicts."""
    label = _label_of(over, aggregate.value, model)
    if label is None or aggregate.known_at != over.contract.event_time:
        return
    wait = duration(aggregate.available_after)
    if wait < label.delay_span or not wait:
        yield (
            f"{subject} is of the label {label.name!r}, which is known {label.delay_span} after {aggregate.known_at!r}, "
            f"and takes it {wait} after it (available_after); it must wait as long as the label's delay, and not 0, "
            f"or go by a column with the time at which the label became known"
        )


def _label_of(feed: Feed, name: str, model: Model) -> Label | None:
    if feed.name == model.examples.name and name == model.label:
        return model.contract.label
    label = feed.contract.label
    return label if label is not None and label.name == name else None


def _must_be(
    subject: str, role: str, name: str, feed: Feed, kinds: tuple[type[Column], ...]
) -> Iterator[str]:
    if name not in feed.contract.names:
        yield f"{subject}: {role} is {name!r}, and the feed {feed.name!r} has no such column"
    elif not isinstance(feed.contract.column(name), kinds):
        found, wanted = _describe(feed.contract.column(name)), " or ".join(kind.__name__ for kind in kinds)
        yield f"{subject}: {role} is {name!r}, which is {found} in the feed {feed.name!r}; it must be {wanted}"


def _feature_problems(model: Model) -> Iterator[str]:
    if not model.features:
        yield "it has no features"
    unknown = [
        feature for feature in (*model.features, *model.heuristic.by) if not isinstance(feature, _FEATURES)
    ]
    for feature in unknown:
        yield f"{feature!r} is no feature; write one such as Passthrough({feature!r})"
    aggregates = [aggregate.name for aggregate in model.aggregates]
    known = [feature for feature in model.features if isinstance(feature, _FEATURES)]
    # Training gives the candidate every aggregate; one that no feature reads becomes a feature.
    read = {column for feature in known for column in columns_read(feature)}
    known += [Passthrough(name) for name in aggregates if name not in read]
    for user, features in (("a feature", known), ("the heuristic", model.heuristic_features)):
        for problem in input_problems(features, aggregates, model.contract):
            yield f"{user}, {problem}"


def _learner_problems(model: Model) -> Iterator[str]:
    """Yield why training could not call the learner or the heuristic."""
    for role, learner in (("learner", model.learner), ("heuristic", model.heuristic)):
        shown = getattr(learner, "__name__", type(learner).__name__)
        if isinstance(learner, type) or not callable(getattr(learner, "fit", None)):
            yield f"{role}={shown} cannot be trained: it is an object with name, parameters and fit, such as LightGBM()"
            continue
        if not isinstance(getattr(learner, "name", None), str):
            yield f"{role}={shown} has no name, a text for the version's metadata"
        if not _is_json_object(getattr(learner, "parameters", None)):
            yield f"{role}={shown} has no parameters, a mapping of JSON values"
        weighted = {"weights": None} if model.selection.weights else {}
        try:
            inspect.signature(learner.fit).bind(None, None, (), seed=0, **weighted)
        except (TypeError, ValueError) as error:
            yield (
                f"{role}={shown} cannot be trained: its fit() takes other arguments ({error}); Holdfast calls "
                f"fit(x, y, names, seed=...{', weights=...' if weighted else ''}) and gets an ONNX graph"
            )


def _is_json_object(value: object) -> bool:
    try:
        return isinstance(value, Mapping) and bool(canonical_json(dict(value)))
    except (TypeError, ValueError):
        return False


def _golden_problems(model: Model) -> Iterator[str]:
    for name in _duplicates([query.name for query in model.golden]):
        yield f"two golden queries are named {name!r}"
    check = compile_row(model.contract, request=True)
    aggregates = {aggregate.name for aggregate in model.aggregates}
    for query in model.golden:
        given: Mapping[str, object] = {
            key: value for key, value in query.row.items() if key not in aggregates
        }
        if reasons := check(given):
            yield f"the golden query {query.name!r} breaks the contract: {_listed(reasons)}"
        for name in aggregates & query.row.keys():
            value = query.row[name]
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                yield f"the golden query {query.name!r} gives {name!r} as {value!r}, not as a number"


def _same_in_other_notation(column: Column, delivered: Column) -> bool:
    """Return True if two columns differ only in the notation of a unit, such as "mi" and "mile"."""
    return (
        isinstance(column, (Number, Integer))
        and isinstance(delivered, (Number, Integer))
        and (column.semantic, column.window) == (delivered.semantic, delivered.window)
        and is_same_unit(column.unit, delivered.unit)
    )


def _describe(column: Column) -> str:
    """Return what two contracts must declare alike of a column: its kind, unit, zone, semantic and window."""
    window = getattr(column, "window", None)
    parts = (_kind(column), column.semantic, None if window is None else f"over {window}")
    return ", ".join(part for part in parts if part is not None)


def _kind(column: Column) -> str:
    match column:
        case Number() | Integer():
            return f"{type(column).__name__} in {column.unit}"
        case Timestamp():
            return f"Timestamp in {column.tz}"
        case Label():
            return "Boolean"
        case _:
            return type(column).__name__


def _duplicates(names: Iterable[str]) -> list[str]:
    every = list(names)
    return sorted({name for name in every if every.count(name) > 1})


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
