"""Rows of `backouts`: which batches are being taken out, how far it is, and the one transaction that takes them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, exists, func, insert, select, update

from holdfast.errors import ConflictError
from holdfast.records import MINUTE_US
from holdfast.store.catalog import batches, online_features
from holdfast.store.db import schema
from holdfast.store.db.predicates import BACKED_OUT, LIVE, PUBLISHED, not_removed, of_load, same_load
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


@dataclass(frozen=True, slots=True)
class LiveLoad:
    """A load that could be backed out, and when it was published.

    `group` (empty for a feed of its own) and `event_time` are what its feed was declared with then; None where nobody noted it.
    """

    feed: str
    batch: str
    epoch: int
    published_us: int
    group: str | None
    event_time: str | None

    @property
    def key(self) -> LoadKey:
        """Feed, batch and epoch."""
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
    """Write down that `plan` is begun, in the caller's transaction; its number. `loads` are those of the plan, unless given."""
    result = connection.execute(
        insert(_BACKOUTS).values(
            feed=plan.feed,
            batch=plan.batch,
            state=BackoutState.UNDER_WAY,
            plan_json=plan.to_json(),
            steps_done=0,
            reason=reason,
            actor=actor,
            requested_at_us=now_us,
            changed_at_us=now_us,
        )
    )
    key = result.inserted_primary_key
    assert key is not None, "the database numbers the rows"
    number = int(key[0])
    note(connection, number, plan.loads if loads is None else loads)
    return number


def note(
    connection: Connection, backout: int, loads: Sequence[LoadKey], *, removed_version: int | None = None
) -> None:
    """Keep that `backout` takes `loads` out, and from which version on they are out, in the caller's transaction."""
    mine = _OF.c.backout_id == backout
    of = select(_OF.c.feed, _OF.c.batch, _OF.c.epoch).where(mine)
    noted = {tuple(row) for row in connection.execute(of)}
    new = [load for load in loads if load not in noted]
    if new:
        connection.execute(
            insert(_OF),
            [
                {"backout_id": backout, "feed": feed, "batch": batch, "epoch": epoch}
                for feed, batch, epoch in new
            ],
        )
    for load in loads if removed_version is not None else ():
        connection.execute(
            update(_OF).where(mine, of_load(_OF, load)).values(removed_version=removed_version)
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
    """Compare and set: `steps_done` steps are done, in the caller's transaction.

    `ConflictError` HF304 when another process has done steps since `before` was read; then nothing is written.
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
            f"back-out {before.backout_id} was carried on by another process",
            state="this process wrote nothing",
            next_command="the same command again",
        )


def get(connection: Connection, backout: int) -> BackoutRow:
    """Back-out number `backout`."""
    return _row(connection.execute(select(_BACKOUTS).where(_BACKOUTS.c.backout_id == backout)).one())


def under_way(connection: Connection) -> list[BackoutRow]:
    """Every back-out that has steps left, the oldest first."""
    query = (
        select(_BACKOUTS).where(_BACKOUTS.c.state == BackoutState.UNDER_WAY).order_by(_BACKOUTS.c.backout_id)
    )
    return [_row(row) for row in connection.execute(query)]


def newest_of(connection: Connection, feed: str, batch: str) -> BackoutRow | None:
    """The newest back-out that took a load of `feed`/`batch` out or is about to; None when there was none."""
    query = (
        select(_BACKOUTS)
        .join(_OF, _OF.c.backout_id == _BACKOUTS.c.backout_id)
        .where(_OF.c.feed == feed, _OF.c.batch == batch)
        .order_by(_BACKOUTS.c.backout_id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _row(row)


def newest(connection: Connection, limit: int) -> list[BackoutRow]:
    """The newest back-outs, the newest first."""
    query = select(_BACKOUTS).order_by(_BACKOUTS.c.backout_id.desc()).limit(limit)
    return [_row(row) for row in connection.execute(query)]


def live(connection: Connection, feeds: Sequence[str], batch: str, *, lock: bool = False) -> list[LiveLoad]:
    """The loads of `batch` that are there now in any of `feeds`, in the order of `feeds`.

    With `lock`, in a transaction that writes, nobody else takes them out before it ends.
    """
    query = (
        select(
            _BATCHES.c.feed,
            _BATCHES.c.batch,
            _BATCHES.c.epoch,
            _VERSIONS.c.committed_at_us,
            _ADMISSIONS.c.group_name,
            _ADMISSIONS.c.event_time,
        )
        .join(_VERSIONS, _VERSIONS.c.table_version == _BATCHES.c.table_version)
        .outerjoin(_ADMISSIONS, same_load(_ADMISSIONS, _BATCHES))
        .where(_BATCHES.c.feed.in_(feeds), _BATCHES.c.batch == batch, LIVE)
    )
    if lock:
        query = query.with_for_update(of=_BATCHES)
    found = [LiveLoad(*row) for row in connection.execute(query)]
    return sorted(found, key=lambda load: list(feeds).index(load.feed))


def feeds_known(connection: Connection) -> list[str]:
    """Every feed that ever delivered, also one that is no longer declared, by name."""
    return list(connection.execute(select(schema.feeds.c.feed).order_by(schema.feeds.c.feed)).scalars())


def parts_of(connection: Connection, load: LoadKey) -> tuple[LoadPart, ...]:
    """What `load` has in each table now, by the table's name. Copies that compaction has replaced do not count."""
    query = (
        select(_FILES.c.table_name, func.sum(_PARTS.c.rows), func.count(_FILES.c.path.distinct()))
        .join(_FILES, _FILES.c.path == _PARTS.c.path)
        .where(of_load(_PARTS, load), not_removed(_FILES, _PARTS))
        .group_by(_FILES.c.table_name)
        .order_by(_FILES.c.table_name)
    )
    return tuple(LoadPart(table, int(rows), int(files)) for table, rows, files in connection.execute(query))


def files_of(connection: Connection, table: str, loads: Sequence[LoadKey]) -> list[FileFacts]:
    """The files of `table` that hold rows of `loads` now, each with the row groups of these loads alone."""
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
            alone = row.of_load == row.rows
            groups = None if alone else (row.row_group,)
            found.append(FileFacts(row.path, table, row.of_load, row.bytes, row.sha256, groups))
    return found


def remove(connection: Connection, loads: Sequence[LoadKey], *, reason: str, now_us: int) -> int:
    """Take the rows of `loads` out of every table from a new table version on, in the caller's transaction; that version.

    `ConflictError` HF304 when one of them is not loaded any more. A file that holds rows of other loads stays.
    """
    made = (
        insert(_VERSIONS)
        .values(committed_at_us=now_us, reason=reason[:64])
        .returning(_VERSIONS.c.table_version)
    )
    version = int(connection.execute(made).scalar_one())
    for load in loads:
        changed = connection.execute(
            update(_BATCHES).where(of_load(_BATCHES, load), LIVE).values(state=BACKED_OUT)
        )
        if changed.rowcount != 1:
            feed, batch, epoch = load
            raise ConflictError(
                "HF304",
                f"load {epoch} of {feed}/{batch} is not there any more",
                state="nothing was written",
                next_command="the same command again",
            )
        paths = (
            connection.execute(select(_PARTS.c.path).where(of_load(_PARTS, load)).distinct()).scalars().all()
        )
        gone = update(_PARTS).where(of_load(_PARTS, load), not_removed(_PARTS))
        connection.execute(gone.values(removed_version=version))
        others = exists().where(_PARTS.c.path == _FILES.c.path, not_removed(_PARTS))
        connection.execute(
            update(_FILES)
            .where(_FILES.c.path.in_(paths), not_removed(_FILES), ~others)
            .values(removed_version=version)
        )
    return version


def moved_on(connection: Connection, feed: str, basis: int) -> bool:
    """Whether rows of `feed`, or what is kept of them for servers, changed after table version `basis`."""
    kept = online_features.definitions(connection, feed)
    return batches.rows_since(connection, feed, basis) or any(reached > basis for _, reached in kept)


def answers_of(
    connection: Connection, model: str, version: str, cause: str, *, since_us: int = 0
) -> AffectedPredictions | None:
    """What `version` of `model` answered from `since_us` on, listed for `cause`; None when that is nothing."""
    query = select(
        func.sum(_USAGE.c.requests),
        func.sum(_USAGE.c.rows),
        func.min(_USAGE.c.minute_start_us),
        func.max(_USAGE.c.minute_start_us),
    ).where(
        _USAGE.c.model == model,
        _USAGE.c.version == version,
        _USAGE.c.result == "ok",
        _USAGE.c.minute_start_us > since_us - MINUTE_US,  # the minute in which that moment lies counts
    )
    requests, rows, first, last = connection.execute(query).one()
    if not rows:
        return None
    return AffectedPredictions(model, version, cause, int(requests), int(rows), first, last + MINUTE_US)


def answering_since(connection: Connection, since_us: int) -> list[tuple[str, str]]:
    """Model and version of everything that any traffic plan let answer from `since_us` on."""
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
    """The labels that were joined to answers of `version`; None when there are none."""
    query = select(
        func.count(), func.min(_OUTCOMES.c.joined_at_us), func.max(_OUTCOMES.c.joined_at_us)
    ).where(_OUTCOMES.c.model == model, _OUTCOMES.c.version == version)
    labels, first, last = connection.execute(query).one()
    return AffectedLabels(model, version, int(labels), first, last) if labels else None


def models_of(connection: Connection, versions: Sequence[str]) -> dict[str, str]:
    """The model of each of `versions`, in their order."""
    known = schema.versions
    query = select(known.c.version, known.c.model).where(known.c.version.in_(versions))
    found = {row.version: row.model for row in connection.execute(query)}
    return {version: found[version] for version in versions}


def told(connection: Connection, nodes: Sequence[Node]) -> dict[Node, str]:
    """Of those of `nodes` that were backed out or are tainted: that they are."""
    tainted = schema.taints
    found: dict[Node, str] = {}
    for kind in (NodeKind.SNAPSHOT, NodeKind.VERSION):
        names = [node.name for node in nodes if node.kind is kind]
        query = select(tainted.c.subject).where(tainted.c.kind == kind, tainted.c.subject.in_(names))
        found |= {Node(kind, name): "tainted" for name in connection.execute(query).scalars()}
    for node in nodes:
        if node.kind is NodeKind.BATCH and not _is_live(connection, node):
            found[node] = "backed out"
    return found


def _is_live(connection: Connection, node: Node) -> bool:
    name, _, epoch = node.name.rpartition("@")
    feed, _, batch = name.partition("/")
    query = select(_BATCHES.c.state).where(of_load(_BATCHES, (feed, batch, int(epoch))))
    return bool(connection.execute(query).scalar_one() == PUBLISHED)


def tables_of(connection: Connection, snapshots: Sequence[str]) -> tuple[str, ...]:
    """The tables that any of `snapshots` cuts, by name."""
    cuts = schema.snapshot_tables
    query = select(cuts.c.table_name).where(cuts.c.snapshot.in_(snapshots)).distinct()
    return tuple(sorted(connection.execute(query).scalars()))


def _row(row: Row[Any]) -> BackoutRow:
    return BackoutRow(
        backout_id=row.backout_id,
        feed=row.feed,
        batch=row.batch,
        state=BackoutState(row.state),
        plan=BackoutPlan.from_json(row.plan_json),
        steps_done=row.steps_done,
        reason=row.reason,
        actor=row.actor,
        requested_at_us=row.requested_at_us,
        changed_at_us=row.changed_at_us,
    )
