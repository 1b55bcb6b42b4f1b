"""Find the impact of a batch, as a plan: rows, online values, snapshots, versions, traffic, predictions, labels.

The search starts at the batch and uses indexes, so its cost depends on the impact only. It only reads the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast.control.backout.dangling_references import Dangling
from holdfast.control.ingest.online_recompute import Recomputation, recompute
from holdfast.control.rollout.failover import plan_failover
from holdfast.errors import IntegrityError, NotFoundError
from holdfast.features import aggregates_from_json
from holdfast.feeds import Feed, FeedGroup
from holdfast.feeds.groups import GroupLoad, find_siblings
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.backout import backout_loads, impact, taints
from holdfast.store.backout.backout_loads import LiveLoad
from holdfast.store.catalog import delta, lineage
from holdfast.store.db.ledger import Transaction
from holdfast.store.files import blobs
from holdfast.store.models import untrained_loads, versions
from holdfast.store.rollout import traffic_plans
from holdfast.tables.backout import (
    AffectedPredictions,
    BackoutPlan,
    KeepVersions,
    ListFeedback,
    ListPredictions,
    RecomputeOnline,
    RemoveRows,
    Retrain,
    Step,
    TaintSnapshots,
    TaintVersions,
    WithdrawPublished,
)
from holdfast.tables.lineage import Lineage, Node, NodeKind
from holdfast.tables.row_use import RowUse, use_of_loads
from holdfast.tables.snapshots import LoadKey
from holdfast.train.artifact import read_metadata


@dataclass(frozen=True, slots=True)
class LoadToRemove:
    """A load to remove, the column of its feed's event times (empty if unknown), and the feed's group, None for none."""

    load: LiveLoad
    event_time: str
    group: FeedGroup | None

    @property
    def periods(self) -> range:
        """Return the periods of its rows."""
        return (self.group or FeedGroup("")).periods(self.load.low_us, self.load.high_us)

    @property
    def in_group(self) -> GroupLoad:
        """Return the load as one of its group."""
        return GroupLoad(self.load.batch, self.load.epoch, self.periods, self.load.order)


def loads_of_batch(connection: Transaction, feeds: Sequence[Feed], batch: BatchId) -> list[LoadToRemove]:
    """Return the loads to remove with `batch`: its own, and its siblings in the feeds of its group.

    Group and periods are those recorded at load time; for loads without them, the declared ones. See
    `feeds.groups.find_siblings`. Raises `NotFoundError` HF211 if `batch` itself is not loaded.
    """
    found = backout_loads.live(connection, [batch.feed], batch.batch)
    if not found:
        raise NotFoundError(
            "HF211",
            f"back-out of {batch} failed: the batch is not loaded",
            state="nothing was changed",
            next_command=f"holdfast feeds {batch.feed} --batches, which lists what is loaded",
        )
    declared = {feed.name: feed for feed in feeds}
    mine = _load_to_remove(found[0], declared)
    if mine.group is not None:
        period_us = backout_loads.longest_period_us(connection, mine.group.name) or mine.group.period_us
        mine = replace(mine, group=replace(mine.group, period_us=period_us))
    return [mine, *_siblings(connection, declared, mine)]


def loads_of_plan(connection: Transaction, plan: BackoutPlan) -> list[LoadToRemove]:
    """Return the live loads of `plan`, and those of their periods and groups that were loaded after it was made."""
    removed: dict[LoadKey, LoadToRemove] = {}
    for step in plan.steps:
        if isinstance(step, RemoveRows):
            group = FeedGroup(step.group, step.period_us, step.zone) if step.group else None
            for load in backout_loads.live(connection, [step.feed], step.batch):
                if load.epoch == step.epoch:
                    removed[load.key] = LoadToRemove(load, step.event_time, group)
    named = [
        each for each in removed.values() if (each.load.feed, each.load.batch) == (plan.feed, plan.batch)
    ]
    for mine in named:
        for each in _siblings(connection, {}, mine):
            removed.setdefault(each.load.key, each)
    return list(removed.values())


def _siblings(
    connection: Transaction, declared: Mapping[str, Feed], mine: LoadToRemove
) -> list[LoadToRemove]:
    """Return the loads of other feeds of the group that are removed with `mine`, feed by feed."""
    if mine.group is None:
        return []
    group = mine.group
    names = list(dict.fromkeys([*declared, *backout_loads.feeds_known(connection)]))
    low_us, high_us = mine.load.low_us - group.period_us, mine.load.high_us + group.period_us
    near = {load.key: load for load in backout_loads.live_between(connection, names, low_us, high_us)}
    near |= {load.key: load for load in backout_loads.live(connection, names, mine.load.batch)}
    of_group = [
        replace(each, group=replace(each.group, period_us=group.period_us))
        for each in (_load_to_remove(load, declared) for load in near.values())
        if each.group is not None and each.group.name == group.name
    ]
    known = [each.in_group for each in of_group if each.load.feed == mine.load.feed]
    found: list[LoadToRemove] = []
    for feed in names:
        theirs = {each.load.key: each for each in of_group if each.load.feed == feed != mine.load.feed}
        others = [each.in_group for each in theirs.values()]
        chosen = find_siblings(mine.load.batch, mine.periods, known, others)
        found += [theirs[feed, each.batch, each.epoch] for each in chosen]
    return found


def _load_to_remove(load: LiveLoad, declared: Mapping[str, Feed]) -> LoadToRemove:
    """Return a load with its group, as recorded or else as declared."""
    feed = declared.get(load.feed)
    event_time, name = load.event_time, load.group
    if feed is not None:
        event_time = feed.contract.event_time if event_time is None else event_time
        name = (feed.group or "") if name is None else name
    if not name:
        return LoadToRemove(load, event_time or "", None)
    membership = feed.membership if feed is not None and feed.membership is not None else FeedGroup(name)
    period_us = load.group_period_us or membership.period_us
    return LoadToRemove(
        load, event_time or "", FeedGroup(name, period_us, load.group_zone or membership.zone)
    )


def recompute_all(store: Store, removed: Sequence[LoadToRemove]) -> tuple[Recomputation, ...]:
    """Return the online values without `removed`, feed by feed. This part of a plan reads rows."""
    of_feed: dict[str, list[LoadToRemove]] = {}
    for each in removed:
        of_feed.setdefault(each.load.feed, []).append(each)
    return tuple(
        recompute(store, feed, [each.load.key for each in loads], loads[0].event_time)
        for feed, loads in of_feed.items()
    )


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
    snapshots = found.names(NodeKind.SNAPSHOT)
    uses = _uses_of_versions(connection, found, [each.load.key for each in removed])
    reached = tuple(version for version, use in uses.items() if use is not RowUse.UNUSED)
    evaluated = tuple(version for version, use in uses.items() if use is RowUse.EVALUATED)
    unused = tuple(version for version, use in uses.items() if use is RowUse.UNUSED)
    models = impact.models_of(connection, reached)
    steps: list[Step] = [_remove_rows(connection, each) for each in removed]
    steps += [
        RecomputeOnline(each.feed, each.aggregates, each.changed, each.removed, each.low_us, each.high_us)
        for each in recomputed
        if each.values
    ]
    steps += left.loads
    steps += [TaintSnapshots(snapshots)] if snapshots else []
    steps += [TaintVersions(reached, evaluated)] if reached else []
    steps += [KeepVersions(unused)] if unused else []
    for model in dict.fromkeys(models.values()):
        steps += plan_failover(connection, store, model, taints.versions_of(connection, model) | set(reached))
    exported = delta.holding(store.root, snapshots, [each.load.feed for each in removed])
    steps += [WithdrawPublished(exported)] if exported else []
    steps.append(ListPredictions(tuple(_predictions(connection, store, models, removed, recomputed))))
    feedback = [impact.feedback_of(connection, model, version) for version, model in models.items()]
    if any(feedback):
        steps.append(ListFeedback(tuple(each for each in feedback if each is not None)))
    steps += _rebuilds(connection, models, evaluated)
    return BackoutPlan(batch.feed, batch.batch, tuple(steps))


def _uses_of_versions(
    connection: Transaction, found: Lineage, removed: Sequence[LoadKey]
) -> dict[str, RowUse]:
    """Return by version what it did with the `removed` loads that its snapshot holds, the oldest version first."""
    keys = {Node.load(*key): key for key in removed}
    held: dict[Node, list[LoadKey]] = {}
    for edge in found.edges:
        if edge.parent in keys:
            held.setdefault(edge.child, []).append(keys[edge.parent])
    snapshots = {edge.child.name: edge.parent for edge in found.edges if edge.child.kind is NodeKind.VERSION}
    versions = found.names(NodeKind.VERSION)
    untrained = untrained_loads.of_versions(connection, versions, {feed for feed, _, _ in removed})
    return {version: use_of_loads(held[snapshots[version]], untrained[version]) for version in versions}


def _remove_rows(connection: Transaction, each: LoadToRemove) -> RemoveRows:
    parts = backout_loads.parts_of(connection, each.load.key)
    if each.group is None:
        return RemoveRows(*each.load.key, each.event_time, parts)
    name, period_us, zone = each.group.name, each.group.period_us, each.group.zone
    return RemoveRows(*each.load.key, each.event_time, parts, name, period_us, zone)


def _predictions(
    connection: Transaction,
    store: Store,
    models: dict[str, str],
    removed: Sequence[LoadToRemove],
    recomputed: Sequence[Recomputation],
) -> Iterator[AffectedPredictions]:
    for version, model in models.items():
        found = impact.predictions_of(connection, model, version, "version")
        if found is not None:
            yield found
    touched = {key for each in recomputed for key in each.aggregates}
    if not touched:
        return
    since_us = min(each.load.published_us for each in removed)
    for model, version in impact.serving_since(connection, since_us):
        if version not in models and _reads(store, version, touched):
            found = impact.predictions_of(connection, model, version, "online", since_us=since_us)
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


def _rebuilds(connection: Transaction, models: dict[str, str], evaluated: Sequence[str]) -> Iterator[Retrain]:
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
                impact.tables_of(connection, [row.snapshot for row in replaced]),
                tuple(row.version for row in replaced),
                tuple(row.version for row in replaced if row.version in evaluated),
            )
