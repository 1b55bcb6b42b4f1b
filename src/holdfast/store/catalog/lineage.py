"""The lineage in the ledger: the neighbours of one node, by indexed queries.

A query here costs what it finds. Nothing looks at batches, snapshots or versions that the node has nothing to do with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, assert_never

from sqlalchemy import ColumnElement, Connection, Select, and_, case, exists, func, select

from holdfast.errors import NotFoundError
from holdfast.store.catalog import name_lookup
from holdfast.store.db import schema
from holdfast.store.db.rows import are_there
from holdfast.store.db.statements import BACKED_OUT, load_columns, of_load, refers_to, same_load
from holdfast.tables.lineage import Lineage, Node, NodeKind, parse_node, walk
from holdfast.tables.snapshots import LoadKey

_BATCHES: Final = schema.batches
_PARTS: Final = schema.file_row_groups
_SNAPSHOTS: Final = schema.snapshots
_TABLES: Final = schema.snapshot_tables
_HELD_BACK: Final = schema.snapshot_incomplete_loads
_VERSIONS: Final = schema.versions
_ROLLOUTS: Final = schema.rollouts
_PLANS: Final = schema.traffic_plans
_USAGE: Final = schema.request_counts
_OUTCOMES: Final = schema.outcomes
_BACKOUT_BATCHES: Final = schema.backout_batches
_REFERENCES: Final = schema.batch_references

_LISTED_BY: Final[dict[NodeKind, str]] = {
    NodeKind.BATCH: "holdfast feeds --batches",
    NodeKind.SNAPSHOT: "holdfast snapshot list",
    NodeKind.VERSION: "holdfast status",
    NodeKind.ROLLOUT: "holdfast rollout history",
    NodeKind.PLAN: "holdfast events",
    NodeKind.PREDICTIONS: "holdfast status",
    NodeKind.LABELS: "holdfast status",
}
"""The command that shows what there is of each kind."""

_NAMES: Final[dict[NodeKind, tuple[ColumnElement[Any], ColumnElement[Any]]]] = {
    NodeKind.SNAPSHOT: (_SNAPSHOTS.c.snapshot, _SNAPSHOTS.c.table_version),
    NodeKind.VERSION: (_VERSIONS.c.version, _VERSIONS.c.number),
    NodeKind.ROLLOUT: (_ROLLOUTS.c.rollout_id, _ROLLOUTS.c.rollout_id),
    NodeKind.PLAN: (_PLANS.c.plan_id, _PLANS.c.plan_id),
}
"""The column that names the nodes of a kind, and the one that orders them."""


@dataclass(frozen=True, slots=True)
class LoadRow:
    """One load: its place in the versions of the tables. `removed_version` is None while it is loaded."""

    feed: str
    batch: str
    epoch: int
    added_version: int
    removed_version: int | None

    @property
    def key(self) -> LoadKey:
        """Feed, batch and epoch."""
        return self.feed, self.batch, self.epoch

    @property
    def node(self) -> Node:
        """Its node."""
        return Node.load(self.feed, self.batch, self.epoch)


def down(connection: Connection, *start: Node) -> Lineage:
    """Return everything made from `start`, and from the loads that were admitted by keys of its rows."""
    return walk(start, lambda node: children(connection, node))


def made_from(connection: Connection, *start: Node) -> Lineage:
    """Return everything that has rows of `start` in it; loads that only refer to them have rows of their own."""
    return walk(
        start, lambda node: [each for each in children(connection, node) if each.kind is not NodeKind.BATCH]
    )


def up(connection: Connection, *start: Node) -> Lineage:
    """Return everything that `start` was made from."""
    return walk(start, lambda node: parents(connection, node), up=True)


def find(connection: Connection, text: str) -> Node:
    """Return the node that `text` names; `NotFoundError` HF303 if the ledger has none of that name.

    A batch without an epoch is its newest load. Names that Holdfast made may be shortened; see `name_lookup.meant`.
    """
    node = _in_full(connection, parse_node(text))
    if node.kind is NodeKind.BATCH and "@" not in node.name:
        feed, _, batch = node.name.partition("/")
        newest = select(func.max(_BATCHES.c.epoch)).where(_BATCHES.c.feed == feed, _BATCHES.c.batch == batch)
        epoch = connection.execute(newest).scalar_one()
        if epoch is not None:
            return Node.load(feed, batch, epoch)
    elif _is_there(connection, node):
        return node
    raise NotFoundError("HF303", f"there is no {node.kind} {node.name!r}", next_command=_LISTED_BY[node.kind])


def _in_full(connection: Connection, node: Node) -> Node:
    """Return the node under its full name, if it was shortened."""
    match node.kind:
        case NodeKind.SNAPSHOT:
            return Node(node.kind, name_lookup.snapshot(connection, node.name))
        case NodeKind.VERSION | NodeKind.PREDICTIONS | NodeKind.LABELS:
            return Node(node.kind, name_lookup.version(connection, node.name))
        case NodeKind.BATCH | NodeKind.ROLLOUT | NodeKind.PLAN:
            return node
        case _:
            assert_never(node.kind)


def children(connection: Connection, node: Node) -> list[Node]:
    """Return what was made directly from `node`, the oldest first."""
    match node.kind:
        case NodeKind.BATCH:
            load = load_of(connection, node.name)
            if load is None:
                return []
            there = load_columns(_REFERENCES)
            referring = select(*there).distinct().where(refers_to(load.key)).order_by(*there)
            return [
                *_loads_by(connection, referring),
                *_nodes(connection, NodeKind.SNAPSHOT, _snapshots_with(load)),
            ]
        case NodeKind.SNAPSHOT:
            return _named(connection, NodeKind.VERSION, _VERSIONS.c.snapshot == node.name)
        case NodeKind.VERSION:
            return [
                *_named(connection, NodeKind.ROLLOUT, _ROLLOUTS.c.challenger == node.name),
                *_named(connection, NodeKind.PLAN, _PLANS.c.champion == node.name),
                *([Node(NodeKind.PREDICTIONS, node.name)] if _has_predicted(connection, node.name) else []),
            ]
        case NodeKind.ROLLOUT:
            return _named(connection, NodeKind.PLAN, _PLANS.c.rollout_id == _number(node))
        case NodeKind.PREDICTIONS:
            return [Node(NodeKind.LABELS, node.name)] if _has_labels(connection, node.name) else []
        case NodeKind.PLAN | NodeKind.LABELS:
            return []
        case _:
            assert_never(node.kind)


def parents(connection: Connection, node: Node) -> list[Node]:
    """Return what `node` was made from directly, the oldest first."""
    match node.kind:
        case NodeKind.BATCH:
            load = load_of(connection, node.name)
            if load is None:
                return []
            to = (_REFERENCES.c.to_feed, _REFERENCES.c.to_batch, _REFERENCES.c.to_epoch)
            referred_to = select(*to).distinct().where(of_load(_REFERENCES, load.key)).order_by(*to)
            return _loads_by(connection, referred_to)
        case NodeKind.SNAPSHOT:
            return [load.node for load in loads_in(connection, node.name)]
        case NodeKind.VERSION:
            query = select(_VERSIONS.c.snapshot).where(_VERSIONS.c.version == node.name)
            return _nodes(connection, NodeKind.SNAPSHOT, query)
        case NodeKind.ROLLOUT:
            query = select(_ROLLOUTS.c.challenger).where(_ROLLOUTS.c.rollout_id == _number(node))
            return _nodes(connection, NodeKind.VERSION, query)
        case NodeKind.PLAN:
            here = _PLANS.c.plan_id == _number(node)
            by = select(_PLANS.c.rollout_id).where(here, _PLANS.c.rollout_id.is_not(None))
            return [
                *_nodes(connection, NodeKind.VERSION, select(_PLANS.c.champion).where(here)),
                *_nodes(connection, NodeKind.ROLLOUT, by),
            ]
        case NodeKind.PREDICTIONS:
            return [Node(NodeKind.VERSION, node.name)]
        case NodeKind.LABELS:
            return [Node(NodeKind.PREDICTIONS, node.name)]
        case _:
            assert_never(node.kind)


def load_of(connection: Connection, name: str) -> LoadRow | None:
    """Return the load that is called `feed/batch@epoch`; None if there is none."""
    batch_name, _, epoch = name.rpartition("@")
    feed, _, batch = batch_name.partition("/")
    if not epoch.isdigit():
        return None
    query = _loads().where(of_load(_BATCHES, (feed, batch, int(epoch))))
    row = connection.execute(query).one_or_none()
    return None if row is None else LoadRow(*row)


def loads_in(connection: Connection, snapshot: str) -> list[LoadRow]:
    """Return the loads whose rows `snapshot` holds, in the order of loading."""
    held_back = exists().where(_HELD_BACK.c.snapshot == snapshot, same_load(_HELD_BACK, _BATCHES))
    at = select(_SNAPSHOTS.c.table_version).where(_SNAPSHOTS.c.snapshot == snapshot).scalar_subquery()
    query = (
        _loads()
        .join(_TABLES, and_(_TABLES.c.table_name == _BATCHES.c.feed, _TABLES.c.snapshot == snapshot))
        .where(_BATCHES.c.table_version <= at, ~held_back)
        .order_by(_BATCHES.c.table_version)
    )
    taken_at = int(connection.execute(select(func.coalesce(at, 0))).scalar_one())
    found = (LoadRow(*row) for row in connection.execute(query))
    return [load for load in found if load.removed_version is None or load.removed_version > taken_at]


def _loads() -> Select[Any]:
    # Rows of a backed-out load have the version from which on readers skip them; compaction replaces files, not loads. A vacuum
    # removes such rows; what the back-out recorded stays.
    skipped, noted = (
        select(func.max(table.c.removed_version)).where(same_load(table, _BATCHES)).scalar_subquery()
        for table in (_PARTS, _BACKOUT_BATCHES)
    )
    removed = case(
        (_BATCHES.c.state == BACKED_OUT, func.coalesce(skipped, noted, _BATCHES.c.table_version)), else_=None
    )
    return select(*load_columns(_BATCHES), _BATCHES.c.table_version, removed.label("removed"))


def _snapshots_with(load: LoadRow) -> Select[Any]:
    held_back = exists().where(_HELD_BACK.c.snapshot == _SNAPSHOTS.c.snapshot, of_load(_HELD_BACK, load.key))
    query = (
        select(_SNAPSHOTS.c.snapshot)
        .join(_TABLES, and_(_TABLES.c.snapshot == _SNAPSHOTS.c.snapshot, _TABLES.c.table_name == load.feed))
        .where(_SNAPSHOTS.c.table_version >= load.added_version, ~held_back)
        .order_by(_SNAPSHOTS.c.table_version, _SNAPSHOTS.c.snapshot)
    )
    if load.removed_version is not None:
        query = query.where(_SNAPSHOTS.c.table_version < load.removed_version)
    return query


def _loads_by(connection: Connection, query: Select[Any]) -> list[Node]:
    return [Node.load(*row) for row in connection.execute(query)]


def _nodes(connection: Connection, kind: NodeKind, query: Select[Any]) -> list[Node]:
    return [Node(kind, str(name)) for name in connection.execute(query).scalars()]


def _named(connection: Connection, kind: NodeKind, which: ColumnElement[bool]) -> list[Node]:
    name, order = _NAMES[kind]
    return _nodes(connection, kind, select(name).where(which).order_by(order))


def _number(node: Node) -> int:
    return int(node.name) if node.name.isdigit() else -1


def _model_of(version: str) -> Any:
    return select(_VERSIONS.c.model).where(_VERSIONS.c.version == version).scalar_subquery()


def _has_predicted(connection: Connection, version: str) -> bool:
    usage = select(_USAGE.c.version).where(_USAGE.c.model == _model_of(version), _USAGE.c.version == version)
    return are_there(connection, usage)


def _has_labels(connection: Connection, version: str) -> bool:
    here = (_OUTCOMES.c.model == _model_of(version)) & (_OUTCOMES.c.version == version)
    return are_there(connection, select(_OUTCOMES.c.outcome_id).where(here))


def _is_there(connection: Connection, node: Node) -> bool:
    match node.kind:
        case NodeKind.BATCH:
            return load_of(connection, node.name) is not None
        case NodeKind.SNAPSHOT | NodeKind.VERSION:
            return bool(_named(connection, node.kind, _NAMES[node.kind][0] == node.name))
        case NodeKind.ROLLOUT | NodeKind.PLAN:
            return bool(_named(connection, node.kind, _NAMES[node.kind][0] == _number(node)))
        case NodeKind.PREDICTIONS:
            return _has_predicted(connection, node.name)
        case NodeKind.LABELS:
            return _has_labels(connection, node.name)
        case _:
            assert_never(node.kind)
