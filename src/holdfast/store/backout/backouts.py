"""Rows of `backouts`: back-outs, their plans and finished steps; and the removal of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Select, exists, func, select, update

from holdfast.errors import ConflictError
from holdfast.records import MINUTE_US
from holdfast.store.catalog import batches
from holdfast.store.catalog.lineage import load_of
from holdfast.store.db import rows, schema
from holdfast.store.db.statements import (
    BACKED_OUT,
    LIVE,
    inserting,
    load_columns,
    not_removed,
    of_load,
    same_load,
    total,
)
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.backout import AffectedLabels, AffectedPredictions, BackoutPlan, BackoutState, LoadPart
from holdfast.tables.lineage import Node, NodeKind
from holdfast.tables.snapshots import LoadKey

_BACKOUTS: Final = schema.backouts
_OF: Final = schema.backout_batches
_ADMISSIONS: Final = schema.admissions
_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_PARTS: Final = schema.file_row_groups
_VERSIONS: Final = schema.table_versions
_USAGE: Final = schema.request_counts
_OUTCOMES: Final = schema.outcomes


@dataclass(frozen=True, slots=True)
class BackoutRow:
    """One back-out. `steps_done` counts the steps of `plan` that are done; times are microseconds since 1970 UTC."""

    backout_id: int
    feed: str
    batch: str
    state: BackoutState
    plan: BackoutPlan
    steps_done: int
    reason: str
    actor: str
    requested_at_us: int
    changed_at_us: int


_LIVE_LOADS: Final = (
    select(
        *load_columns(_BATCHES),
        _VERSIONS.c.committed_at_us.label("published_us"),
        _ADMISSIONS.c.group_name.label("group"),
        _ADMISSIONS.c.event_time,
        _ADMISSIONS.c.group_period_us,
        _ADMISSIONS.c.group_zone,
        func.coalesce(_BATCHES.c.event_time_min_us, 0).label("low_us"),
        func.coalesce(_BATCHES.c.event_time_max_us, 0).label("high_us"),
        _BATCHES.c.table_version.label("order"),
    )
    .join(_VERSIONS, _VERSIONS.c.table_version == _BATCHES.c.table_version)
    .outerjoin(_ADMISSIONS, same_load(_ADMISSIONS, _BATCHES))
    .where(LIVE)
)


@dataclass(frozen=True, slots=True)
class LiveLoad:
    """A load that could be backed out, when it was published, and the bounds of its event times (microseconds UTC).

    `group` (empty for none), its periods and `event_time` are the declaration of its feed at load time; None if not
    recorded. Of two loads, the later one has the greater `order`.
    """

    feed: str
    batch: str
    epoch: int
    published_us: int
    group: str | None
    event_time: str | None
    group_period_us: int | None
    group_zone: str | None
    low_us: int
    high_us: int
    order: int

    @property
    def key(self) -> LoadKey:
        """Return feed, batch and epoch."""
        return self.feed, self.batch, self.epoch


def begin(
    connection: Connection,
    plan: BackoutPlan,
    *,
    reason: str,
    actor: str,
    now_us: int,
    loads: Sequence[LoadKey] | None = None,
) -> int:
    """Store `plan` as begun, in the caller's transaction, and return its number.

    Parameters
    ----------
    connection
        The caller's transaction.
    plan
        The plan.
    reason, actor
        The reason and the operator.
    now_us
        The current time, microseconds since 1970 UTC.
    loads
        The loads to record as removed; None means those of the plan.
    """
    number = rows.add(
        connection,
        _BACKOUTS,
        {
            "feed": plan.feed,
            "batch": plan.batch,
            "state": BackoutState.UNDER_WAY,
            "plan_json": plan.to_json(),
            "steps_done": 0,
            "reason": reason,
            "actor": actor,
            "requested_at_us": now_us,
            "changed_at_us": now_us,
        },
    )
    record_loads(connection, number, plan.loads if loads is None else loads)
    return number


def record_loads(
    connection: Connection, backout: int, loads: Sequence[LoadKey], *, removed_version: int | None = None
) -> None:
    """Record the loads that `backout` removes, in the caller's transaction.

    Parameters
    ----------
    connection
        The caller's transaction.
    backout
        The number of the back-out.
    loads
        The loads; known ones are not added twice.
    removed_version
        The table version from which on they are removed; None while it is unknown.
    """
    for feed, batch, epoch in loads:
        statement = inserting(connection, _OF).values(
            backout_id=backout, feed=feed, batch=batch, epoch=epoch, removed_version=removed_version
        )
        removed = func.coalesce(statement.excluded.removed_version, _OF.c.removed_version)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=_OF.primary_key.columns, set_={"removed_version": removed}
            )
        )


def advance(
    connection: Connection,
    before: BackoutRow,
    *,
    steps_done: int,
    now_us: int,
    plan: BackoutPlan | None = None,
    state: BackoutState = BackoutState.UNDER_WAY,
) -> None:
    """Compare and set the number of finished steps, in the caller's transaction.

    Parameters
    ----------
    connection
        The caller's transaction.
    before
        The row that is expected.
    steps_done
        The new number of finished steps.
    now_us
        The current time, microseconds since 1970 UTC.
    plan
        A new plan; None keeps the stored one.
    state
        The new state.

    Raises
    ------
    ConflictError
        HF304 if another process has finished steps since `before` was read; then nothing is written.
    """
    values: dict[str, Any] = {"steps_done": steps_done, "state": state, "changed_at_us": now_us}
    if plan is not None:
        values["plan_json"] = plan.to_json()
    changed = connection.execute(
        update(_BACKOUTS)
        .where(
            _BACKOUTS.c.backout_id == before.backout_id,
            _BACKOUTS.c.steps_done == before.steps_done,
            _BACKOUTS.c.state == before.state,
        )
        .values(values)
    )
    if changed.rowcount != 1:
        raise ConflictError(
            "HF304",
            f"back-out {before.backout_id} failed: another process executes it",
            state="this process wrote nothing",
            next_command="the same command again",
        )


def price(connection: Connection, row: BackoutRow, cost_per_prediction: float) -> None:
    """Keep what one wrong prediction costs with the plan of `row`, a back-out that is done."""
    plan = replace(row.plan, cost_per_prediction=cost_per_prediction)
    of = _BACKOUTS.c.backout_id == row.backout_id
    connection.execute(update(_BACKOUTS).where(of).values(plan_json=plan.to_json()))


def get(connection: Connection, backout: int) -> BackoutRow:
    """Return back-out number `backout`."""
    (found,) = _read(connection, select(_BACKOUTS).where(_BACKOUTS.c.backout_id == backout))
    return found


def under_way(connection: Connection) -> list[BackoutRow]:
    """Return every back-out with remaining steps, the oldest first."""
    under_way = select(_BACKOUTS).where(_BACKOUTS.c.state == BackoutState.UNDER_WAY)
    return _read(connection, under_way.order_by(_BACKOUTS.c.backout_id))


def tainting(connection: Connection, model: str) -> list[BackoutRow]:
    """Return every back-out that tainted a version of `model`, the oldest first."""
    tainted, known = schema.taints, schema.versions
    of_model = (
        select(tainted.c.backout_id)
        .join(known, known.c.version == tainted.c.subject)
        .where(tainted.c.kind == "version", known.c.model == model)
    )
    query = select(_BACKOUTS).where(_BACKOUTS.c.backout_id.in_(of_model))
    return _read(connection, query.order_by(_BACKOUTS.c.backout_id))


def newest_of(connection: Connection, feed: str, batch: str) -> BackoutRow | None:
    """Return the newest back-out of a load of `feed`/`batch`; None if there is none."""
    query = (
        select(_BACKOUTS)
        .join(_OF, _OF.c.backout_id == _BACKOUTS.c.backout_id)
        .where(_OF.c.feed == feed, _OF.c.batch == batch)
        .order_by(_BACKOUTS.c.backout_id.desc())
        .limit(1)
    )
    return next(iter(_read(connection, query)), None)


def live(connection: Connection, feeds: Sequence[str], batch: str, *, lock: bool = False) -> list[LiveLoad]:
    """Return the current loads of `batch` in any of `feeds`, in the order of `feeds`.

    Parameters
    ----------
    connection
        The caller's transaction.
    feeds
        The names of the feeds.
    batch
        The id of the batch.
    lock
        Lock the rows until a writing transaction ends, so that no other process removes them.
    """
    query = _LIVE_LOADS.where(_BATCHES.c.feed.in_(feeds), _BATCHES.c.batch == batch)
    if lock:
        query = query.with_for_update(of=_BATCHES)
    found = rows.read(connection, query, LiveLoad)
    return sorted(found, key=lambda load: list(feeds).index(load.feed))


def live_between(connection: Connection, feeds: Sequence[str], low_us: int, high_us: int) -> list[LiveLoad]:
    """Return the current loads of `feeds` with event times from `low_us` to `high_us`, in the order of their loading."""
    query = _LIVE_LOADS.where(
        _BATCHES.c.feed.in_(feeds),
        _BATCHES.c.event_time_min_us <= high_us,
        _BATCHES.c.event_time_max_us >= low_us,
    )
    return rows.read(connection, query.order_by(_BATCHES.c.table_version), LiveLoad)


def longest_period_us(connection: Connection, group: str) -> int | None:
    """Return the length of the longest period that a load of `group` was loaded with; None if none is recorded."""
    query = select(func.max(_ADMISSIONS.c.group_period_us)).where(_ADMISSIONS.c.group_name == group)
    found: int | None = connection.execute(query).scalar()
    return found


def feeds_known(connection: Connection) -> list[str]:
    """Return the names of all feeds that ever delivered, also of those that are no longer declared."""
    return list(connection.execute(select(schema.feeds.c.feed).order_by(schema.feeds.c.feed)).scalars())


def parts_of(connection: Connection, load: LoadKey) -> tuple[LoadPart, ...]:
    """Return the current rows and files of `load` by table, without copies that a compaction replaced."""
    query = (
        select(_FILES.c.table_name, total(_PARTS.c.rows), func.count(_FILES.c.path.distinct()))
        .join(_FILES, _FILES.c.path == _PARTS.c.path)
        .where(of_load(_PARTS, load), not_removed(_FILES, _PARTS))
        .group_by(_FILES.c.table_name)
        .order_by(_FILES.c.table_name)
    )
    return tuple(LoadPart(*row) for row in connection.execute(query))


def files_of(connection: Connection, table: str, loads: Sequence[LoadKey]) -> list[FileFacts]:
    """Return the current files of `table` with rows of `loads`, each limited to the row groups of these loads."""
    found: list[FileFacts] = []
    for load in loads:
        query = (
            select(_FILES, _PARTS.c.row_group, _PARTS.c.rows.label("of_load"))
            .join(_PARTS, _FILES.c.path == _PARTS.c.path)
            .where(of_load(_PARTS, load), _FILES.c.table_name == table)
            .where(not_removed(_FILES, _PARTS))
            .order_by(_FILES.c.path, _PARTS.c.row_group)
        )
        for row in connection.execute(query):
            groups = None if row.of_load == row.rows else (row.row_group,)
            found.append(FileFacts(row.path, table, row.of_load, row.bytes, row.sha256, groups))
    return found


def remove(connection: Connection, loads: Sequence[LoadKey], *, reason: str, now_us: int) -> int:
    """Remove the rows of `loads` from every table, in the caller's transaction; return the new table version.

    A file that has rows of other loads stays.

    Parameters
    ----------
    connection
        The caller's transaction.
    loads
        The loads to remove.
    reason
        The reason of the table version; at most 64 characters are kept.
    now_us
        The current time, microseconds since 1970 UTC.

    Raises
    ------
    ConflictError
        HF304 if one of the loads is no longer live.
    """
    version = batches.new_version(connection, reason, now_us)
    for load in loads:
        changed = connection.execute(
            update(_BATCHES).where(of_load(_BATCHES, load), LIVE).values(state=BACKED_OUT)
        )
        if changed.rowcount != 1:
            feed, batch, epoch = load
            raise ConflictError(
                "HF304",
                f"removal of load {epoch} of {feed}/{batch} failed: it is no longer loaded",
                state="nothing was written",
                next_command="the same command again",
            )
        paths = select(_PARTS.c.path).where(of_load(_PARTS, load))
        gone = update(_PARTS).where(of_load(_PARTS, load), not_removed(_PARTS))
        connection.execute(gone.values(removed_version=version))
        others = exists().where(_PARTS.c.path == _FILES.c.path, not_removed(_PARTS))
        connection.execute(
            update(_FILES)
            .where(_FILES.c.path.in_(paths), not_removed(_FILES), ~others)
            .values(removed_version=version)
        )
    return version


def predictions_of(
    connection: Connection, model: str, version: str, cause: str, *, since_us: int = 0
) -> AffectedPredictions | None:
    """Return the number and time of the predictions of a version; None if there are none.

    Parameters
    ----------
    connection
        The ledger.
    model, version
        The model and its version.
    cause
        Why they are listed: "version" or "online".
    since_us
        The time from which on they count, microseconds since 1970 UTC.
    """
    query = select(
        func.sum(_USAGE.c.requests),
        func.sum(_USAGE.c.rows),
        func.min(_USAGE.c.minute_start_us),
        func.max(_USAGE.c.minute_start_us),
    ).where(
        _USAGE.c.model == model,
        _USAGE.c.version == version,
        _USAGE.c.result == "ok",
        _USAGE.c.minute_start_us > since_us - MINUTE_US,  # the minute that contains it counts
    )
    requests, predicted, first, last = connection.execute(query).one()
    if not predicted:
        return None
    return AffectedPredictions(model, version, cause, int(requests), int(predicted), first, last + MINUTE_US)


def serving_since(connection: Connection, since_us: int) -> list[tuple[str, str]]:
    """Return model and version of all that any traffic plan named from `since_us` on."""
    plans = schema.traffic_plans
    before = (
        select(func.max(plans.c.plan_id)).where(plans.c.committed_at_us < since_us).group_by(plans.c.model)
    )
    query = select(
        plans.c.model, plans.c.champion, plans.c.challenger, plans.c.previous, plans.c.fallback
    ).where((plans.c.committed_at_us >= since_us) | plans.c.plan_id.in_(before))
    named = {
        (row.model, version)
        for row in connection.execute(query)
        for version in (row.champion, row.challenger, row.previous, row.fallback)
        if version is not None
    }
    return sorted(named)


def feedback_of(connection: Connection, model: str, version: str) -> AffectedLabels | None:
    """Return the labels that were joined to predictions of `version`; None if there are none."""
    query = select(
        func.count(), func.min(_OUTCOMES.c.joined_at_us), func.max(_OUTCOMES.c.joined_at_us)
    ).where(_OUTCOMES.c.model == model, _OUTCOMES.c.version == version)
    labels, first, last = connection.execute(query).one()
    return AffectedLabels(model, version, int(labels), first, last) if labels else None


def models_of(connection: Connection, versions: Sequence[str]) -> dict[str, str]:
    """Return the model of each of `versions`, in their order."""
    known = schema.versions
    query = select(known.c.version, known.c.model).where(known.c.version.in_(versions))
    found = {row.version: row.model for row in connection.execute(query)}
    return {version: found[version] for version in versions}


def state_of(connection: Connection, nodes: Sequence[Node]) -> dict[Node, str]:
    """Return the state of the nodes that are backed out or tainted, as text."""
    tainted = schema.taints
    found: dict[Node, str] = {}
    for kind in (NodeKind.SNAPSHOT, NodeKind.VERSION):
        names = [node.name for node in nodes if node.kind is kind]
        query = select(tainted.c.subject).where(tainted.c.kind == kind, tainted.c.subject.in_(names))
        found |= {Node(kind, name): "tainted" for name in connection.execute(query).scalars()}
    for node in nodes:
        load = load_of(connection, node.name) if node.kind is NodeKind.BATCH else None
        if load is not None and load.removed_version is not None:
            found[node] = "backed out"
    return found


def tables_of(connection: Connection, snapshots: Sequence[str]) -> tuple[str, ...]:
    """Return the tables of any of `snapshots`, by name."""
    tables = schema.snapshot_tables
    query = select(tables.c.table_name).where(tables.c.snapshot.in_(snapshots)).distinct()
    return tuple(sorted(connection.execute(query).scalars()))


def _read(connection: Connection, query: Select[Any]) -> list[BackoutRow]:
    found = [dict(row) for row in connection.execute(query).mappings()]
    return [
        BackoutRow(
            plan=BackoutPlan.from_json(row.pop("plan_json")), state=BackoutState(row.pop("state")), **row
        )
        for row in found
    ]
