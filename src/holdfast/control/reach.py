"""What a batch reached: its rows, the values of servers, snapshots, versions, traffic, answers, feedback; as a plan.

Everything is found from the batch on, through indexes, so that the plan costs what the batch touched. The ledger is only
read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.control.forgetting import Forgotten, forget
from holdfast.control.retreat import retreat
from holdfast.errors import IntegrityError, NotFoundError
from holdfast.features import aggregates_from_json
from holdfast.feeds import Feed
from holdfast.records import BatchId
from holdfast.store import Store, backouts, blobs, lineage, plans, taints, versions
from holdfast.store.backouts import LiveLoad
from holdfast.store.ledger import Transaction
from holdfast.tables.backout import (
    Answered,
    ForgetOnline,
    ListAnswers,
    ListFeedback,
    Plan,
    Rebuild,
    RemoveRows,
    Step,
    TaintSnapshots,
    TaintVersions,
)
from holdfast.tables.lineage import Kind, Node
from holdfast.train.artifact import read_metadata


@dataclass(frozen=True, slots=True)
class Leaving:
    """A load that goes, and the column of its feed's event times."""

    load: LiveLoad
    event_time: str


def leaving(connection: Transaction, feeds: Sequence[Feed], batch: BatchId) -> list[Leaving]:
    """The loads that go with `batch`: its own, and those of the same id in the feeds of its group.

    Raises `NotFoundError` HF211 when `batch` itself is not loaded.
    """
    named = next((feed for feed in feeds if feed.name == batch.feed), None)
    together = [
        feed
        for feed in feeds
        if feed is named or (named is not None and named.group is not None and feed.group == named.group)
    ]
    times = {feed.name: feed.contract.event_time for feed in together}
    ordered = sorted(times, key=lambda name: name != batch.feed)
    found = backouts.live(connection, ordered, batch.batch)
    if not found or found[0].feed != batch.feed:
        raise NotFoundError(
            "HF211",
            f"batch {batch} is not loaded, so there is nothing to back out",
            state="nothing was changed",
            next_command=f"holdfast lineage {batch}, or holdfast status for what is loaded",
        )
    return [Leaving(load, times[load.feed]) for load in found]


def forget_all(store: Store, going: Sequence[Leaving]) -> tuple[Forgotten, ...]:
    """What becomes of the values of servers without `going`, feed by feed; the part of a plan that reads rows."""
    return tuple(forget(store, each.load.feed, [each.load.key], each.event_time) for each in going)


def plan_of(
    connection: Transaction,
    store: Store,
    batch: BatchId,
    going: Sequence[Leaving],
    forgotten: Sequence[Forgotten],
) -> Plan:
    """The plan of backing `batch` out, as `connection` sees the ledger."""
    found = lineage.down(connection, *(Node.load(*each.load.key) for each in going))
    snapshots, reached = found.names(Kind.SNAPSHOT), found.names(Kind.VERSION)
    models = backouts.models_of(connection, reached)
    steps: list[Step] = [
        RemoveRows(*each.load.key, each.event_time, backouts.parts_of(connection, each.load.key))
        for each in going
    ]
    steps += [
        ForgetOnline(each.feed, each.aggregates, each.recomputed, each.forgotten, each.low_us, each.high_us)
        for each in forgotten
        if each.values
    ]
    steps += [TaintSnapshots(snapshots)] if snapshots else []
    steps += [TaintVersions(reached)] if reached else []
    for model in dict.fromkeys(models.values()):
        steps += retreat(connection, store, model, taints.versions_of(connection, model) | set(reached))
    steps.append(ListAnswers(tuple(_answers(connection, store, models, going, forgotten))))
    feedback = [backouts.feedback_of(connection, model, version) for version, model in models.items()]
    if any(feedback):
        steps.append(ListFeedback(tuple(each for each in feedback if each is not None)))
    steps += _rebuilds(connection, store, models)
    return Plan(batch.feed, batch.batch, tuple(steps))


def _answers(
    connection: Transaction,
    store: Store,
    models: dict[str, str],
    going: Sequence[Leaving],
    forgotten: Sequence[Forgotten],
) -> Iterator[Answered]:
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
        about = read_metadata(blobs.get(store, versions.get(store, version).digest))
    except IntegrityError:
        return True
    return any(each.key in aggregates for each in aggregates_from_json(about.aggregates_json))


def _rebuilds(connection: Transaction, store: Store, models: dict[str, str]) -> Iterator[Rebuild]:
    """The models of which a tainted version has traffic, or is the newest that was trained."""
    for model in dict.fromkeys(models.values()):
        committed = plans.newest_in(connection, model)
        known = versions.of_model(store, model)
        newest = next((row.version for row in known if row.role == "candidate"), None)
        wanted = {newest}
        if committed is not None:
            wanted |= {committed.plan.champion, committed.plan.challenger}
        replaced = [row for row in known if row.version in models and row.version in wanted]
        if replaced:
            yield Rebuild(
                model,
                backouts.tables_of(connection, [row.snapshot for row in replaced]),
                tuple(row.version for row in replaced),
            )
