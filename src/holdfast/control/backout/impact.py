"""Find the impact of a batch, as a plan: rows, online values, snapshots, versions, traffic, predictions, labels.

The search starts at the batch and uses indexes, so its cost depends on the impact only. It only reads the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.control.backout.dangling_references import Dangling
from holdfast.control.backout.online_recompute import Recomputation, recompute
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
class LoadToRemove:
    """A load to remove, the column of its feed's event times (empty if unknown), and the feed's group."""

    load: LiveLoad
    event_time: str
    group: str


def loads_of_batch(connection: Transaction, feeds: Sequence[Feed], batch: BatchId) -> list[LoadToRemove]:
    """Return the loads to remove with `batch`: its own, and those of the same id in the feeds of its group.

    The group is the one recorded at load time; for loads without one, the declared one. Raises `NotFoundError` HF211
    if `batch` itself is not loaded.
    """
    found = _live_loads(connection, feeds, batch)
    mine = next((each for each in found if each.load.feed == batch.feed), None)
    if mine is None:
        raise NotFoundError(
            "HF211",
            f"back-out of {batch} failed: the batch is not loaded",
            state="nothing was changed",
            next_command=f"holdfast feeds {batch.feed} --batches, which lists what is loaded",
        )
    return [each for each in found if each is mine or (mine.group and each.group == mine.group)]


def loads_of_plan(connection: Transaction, plan: BackoutPlan) -> list[LoadToRemove]:
    """Return the live loads of `plan`, and those of their groups that were loaded after it was made."""
    planned = {
        (step.feed, step.batch, step.epoch): step for step in plan.steps if isinstance(step, RemoveRows)
    }
    removed = []
    others = []
    for each in _live_loads(connection, (), BatchId(plan.feed, plan.batch)):
        step = planned.get(each.load.key)
        if step is None:
            others.append(each)
        else:
            removed.append(LoadToRemove(each.load, step.event_time, step.group))
    groups = {each.group for each in removed if each.group}
    return removed + [each for each in others if each.group in groups]


def _live_loads(connection: Transaction, feeds: Sequence[Feed], batch: BatchId) -> list[LoadToRemove]:
    """Return every live load with the id of `batch`, over all feeds, that of `batch` first."""
    declared = {feed.name: feed for feed in feeds}
    names = list(dict.fromkeys([batch.feed, *declared, *backouts.feeds_known(connection)]))
    return [
        _load_to_remove(load, declared.get(load.feed))
        for load in backouts.live(connection, names, batch.batch)
    ]


def _load_to_remove(load: LiveLoad, feed: Feed | None) -> LoadToRemove:
    event_time, group = load.event_time, load.group
    if feed is not None:
        event_time = feed.contract.event_time if event_time is None else event_time
        group = (feed.group or "") if group is None else group
    return LoadToRemove(load, event_time or "", group or "")


def recompute_all(store: Store, removed: Sequence[LoadToRemove]) -> tuple[Recomputation, ...]:
    """Return the online values without `removed`, feed by feed. This part of a plan reads rows."""
    return tuple(recompute(store, each.load.feed, [each.load.key], each.event_time) for each in removed)


def make_plan(
    connection: Transaction,
    store: Store,
    batch: BatchId,
    removed: Sequence[LoadToRemove],
    recomputed: Sequence[Recomputation],
    left: Dangling,
) -> BackoutPlan:
    """Return the plan to back `batch` out.

    Parameters
    ----------
    connection, store
        The ledger as it is read, and its store.
    batch
        The batch.
    removed
        The loads to remove.
    recomputed
        The online values without them, by feed.
    left
        The remaining loads that reference removed rows.
    """
    found = lineage.made_from(connection, *(Node.load(*each.load.key) for each in removed))
    snapshots, reached = found.names(NodeKind.SNAPSHOT), found.names(NodeKind.VERSION)
    models = backouts.models_of(connection, reached)
    steps: list[Step] = [
        RemoveRows(*each.load.key, each.event_time, backouts.parts_of(connection, each.load.key), each.group)
        for each in removed
    ]
    steps += [
        RecomputeOnline(each.feed, each.aggregates, each.changed, each.removed, each.low_us, each.high_us)
        for each in recomputed
        if each.values
    ]
    steps += left.loads
    steps += [TaintSnapshots(snapshots)] if snapshots else []
    steps += [TaintVersions(reached)] if reached else []
    for model in dict.fromkeys(models.values()):
        steps += plan_failover(connection, store, model, taints.versions_of(connection, model) | set(reached))
    steps.append(ListPredictions(tuple(_predictions(connection, store, models, removed, recomputed))))
    feedback = [backouts.feedback_of(connection, model, version) for version, model in models.items()]
    if any(feedback):
        steps.append(ListFeedback(tuple(each for each in feedback if each is not None)))
    steps += _rebuilds(connection, store, models)
    return BackoutPlan(batch.feed, batch.batch, tuple(steps))


def _predictions(
    connection: Transaction,
    store: Store,
    models: dict[str, str],
    removed: Sequence[LoadToRemove],
    recomputed: Sequence[Recomputation],
) -> Iterator[AffectedPredictions]:
    for version, model in models.items():
        found = backouts.predictions_of(connection, model, version, "version")
        if found is not None:
            yield found
    touched = {key for each in recomputed for key in each.aggregates}
    if not touched:
        return
    since_us = min(each.load.published_us for each in removed)
    for model, version in backouts.serving_since(connection, since_us):
        if version not in models and _reads(store, version, touched):
            found = backouts.predictions_of(connection, model, version, "online", since_us=since_us)
            if found is not None:
                yield found


def _reads(store: Store, version: str, aggregates: set[str]) -> bool:
    """Return True if `version` reads any of `aggregates`, or if its file is damaged, so that it may have."""
    try:
        with store.ledger.read() as connection:
            about = read_metadata(blobs.get(store.root, versions.get(connection, version).digest))
    except IntegrityError:
        return True
    return any(each.key in aggregates for each in aggregates_from_json(about.aggregates_json))


def _rebuilds(connection: Transaction, store: Store, models: dict[str, str]) -> Iterator[Retrain]:
    """Yield the models of which a tainted version has traffic or is the newest candidate."""
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
