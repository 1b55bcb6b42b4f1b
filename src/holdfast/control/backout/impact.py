"""What a batch reached: its rows, the values of servers, snapshots, versions, traffic, answers, feedback; as a plan.

Everything is found from the batch on, through indexes, so that the plan costs what the batch touched. The ledger is only
read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.control.backout.dangling_references import Dangling
from holdfast.control.backout.online_recompute import Forgotten, forget
from holdfast.control.rollout.failover import plan_failover
from holdfast.errors import IntegrityError, NotFoundError
from holdfast.features import aggregates_from_json
from holdfast.feeds import Feed
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.backout import backouts, taints
from holdfast.store.backout.backouts import LiveLoad
from holdfast.store.catalog import lineage
from holdfast.store.db.ledger import Transaction
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from holdfast.tables.backout import (
    AffectedPredictions,
    BackoutPlan,
    ListFeedback,
    ListPredictions,
    RecomputeOnline,
    RemoveRows,
    Retrain,
    Step,
    TaintSnapshots,
    TaintVersions,
)
from holdfast.tables.lineage import Node, NodeKind
from holdfast.train.artifact import read_metadata


@dataclass(frozen=True, slots=True)
class Leaving:
    """A load that goes, the column of its feed's event times (empty where nobody knows it), and the feed's group."""

    load: LiveLoad
    event_time: str
    group: str


def leaving(connection: Transaction, feeds: Sequence[Feed], batch: BatchId) -> list[Leaving]:
    """The loads that go with `batch`: its own, and those of the same id in the feeds of its group.

    The group is the one that a load was loaded with, whatever is declared by now; what is declared counts for a load of which
    it was not noted. Raises `NotFoundError` HF211 when `batch` itself is not loaded.
    """
    found = _there(connection, feeds, batch)
    mine = next((each for each in found if each.load.feed == batch.feed), None)
    if mine is None:
        raise NotFoundError(
            "HF211",
            f"batch {batch} is not loaded, so there is nothing to back out",
            state="nothing was changed",
            next_command=f"holdfast feeds {batch.feed} --batches, which lists what is loaded",
        )
    return [each for each in found if each is mine or (mine.group and each.group == mine.group)]


def still_leaving(connection: Transaction, plan: BackoutPlan) -> list[Leaving]:
    """The loads of `plan` that are there, and with them those of their groups that came after it was made."""
    planned = {
        (step.feed, step.batch, step.epoch): step for step in plan.steps if isinstance(step, RemoveRows)
    }
    going = []
    others = []
    for each in _there(connection, (), BatchId(plan.feed, plan.batch)):
        step = planned.get(each.load.key)
        if step is None:
            others.append(each)
        else:
            going.append(Leaving(each.load, step.event_time, step.group))
    groups = {each.group for each in going if each.group}
    return going + [each for each in others if each.group in groups]


def _there(connection: Transaction, feeds: Sequence[Feed], batch: BatchId) -> list[Leaving]:
    """Every load that is there under the id of `batch`, in whichever feed, that of `batch` first."""
    declared = {feed.name: feed for feed in feeds}
    names = list(dict.fromkeys([batch.feed, *declared, *backouts.feeds_known(connection)]))
    return [_leaving(load, declared.get(load.feed)) for load in backouts.live(connection, names, batch.batch)]


def _leaving(load: LiveLoad, feed: Feed | None) -> Leaving:
    event_time, group = load.event_time, load.group
    if feed is not None:
        event_time = feed.contract.event_time if event_time is None else event_time
        group = (feed.group or "") if group is None else group
    return Leaving(load, event_time or "", group or "")


def forget_all(store: Store, going: Sequence[Leaving]) -> tuple[Forgotten, ...]:
    """What becomes of the values of servers without `going`, feed by feed; the part of a plan that reads rows."""
    return tuple(forget(store, each.load.feed, [each.load.key], each.event_time) for each in going)


def plan_of(
    connection: Transaction,
    store: Store,
    batch: BatchId,
    going: Sequence[Leaving],
    forgotten: Sequence[Forgotten],
    left: Dangling,
) -> BackoutPlan:
    """The plan of backing `batch` out, as `connection` sees the ledger."""
    found = lineage.made_from(connection, *(Node.load(*each.load.key) for each in going))
    snapshots, reached = found.names(NodeKind.SNAPSHOT), found.names(NodeKind.VERSION)
    models = backouts.models_of(connection, reached)
    steps: list[Step] = [
        RemoveRows(*each.load.key, each.event_time, backouts.parts_of(connection, each.load.key), each.group)
        for each in going
    ]
    steps += [
        RecomputeOnline(
            each.feed, each.aggregates, each.recomputed, each.forgotten, each.low_us, each.high_us
        )
        for each in forgotten
        if each.values
    ]
    steps += left.loads
    steps += [TaintSnapshots(snapshots)] if snapshots else []
    steps += [TaintVersions(reached)] if reached else []
    for model in dict.fromkeys(models.values()):
        steps += plan_failover(connection, store, model, taints.versions_of(connection, model) | set(reached))
    steps.append(ListPredictions(tuple(_answers(connection, store, models, going, forgotten))))
    feedback = [backouts.feedback_of(connection, model, version) for version, model in models.items()]
    if any(feedback):
        steps.append(ListFeedback(tuple(each for each in feedback if each is not None)))
    steps += _rebuilds(connection, store, models)
    return BackoutPlan(batch.feed, batch.batch, tuple(steps))


def _answers(
    connection: Transaction,
    store: Store,
    models: dict[str, str],
    going: Sequence[Leaving],
    forgotten: Sequence[Forgotten],
) -> Iterator[AffectedPredictions]:
    for version, model in models.items():
        answered = backouts.answers_of(connection, model, version, "version")
        if answered is not None:
            yield answered
    touched = {key for each in forgotten for key in each.aggregates}
    if not touched:
        return
    since_us = min(each.load.published_us for each in going)
    for model, version in backouts.answering_since(connection, since_us):
        if version not in models and _reads(store, version, touched):
            answered = backouts.answers_of(connection, model, version, "online", since_us=since_us)
            if answered is not None:
                yield answered


def _reads(store: Store, version: str, aggregates: set[str]) -> bool:
    """Whether `version` reads any of `aggregates`; one whose file is damaged may have read all of them."""
    try:
        with store.ledger.read() as connection:
            about = read_metadata(blobs.get(store, versions.get(connection, version).digest))
    except IntegrityError:
        return True
    return any(each.key in aggregates for each in aggregates_from_json(about.aggregates_json))


def _rebuilds(connection: Transaction, store: Store, models: dict[str, str]) -> Iterator[Retrain]:
    """The models of which a tainted version has traffic, or is the newest that was trained."""
    for model in dict.fromkeys(models.values()):
        committed = traffic_plans.newest_committed(connection, model)
        known = versions.of_model(connection, model)
        newest = next((row.version for row in known if row.role == "candidate"), None)
        wanted = {newest}
        if committed is not None:
            wanted |= {committed.plan.champion, committed.plan.challenger}
        replaced = [row for row in known if row.version in models and row.version in wanted]
        if replaced:
            yield Retrain(
                model,
                backouts.tables_of(connection, [row.snapshot for row in replaced]),
                tuple(row.version for row in replaced),
            )
