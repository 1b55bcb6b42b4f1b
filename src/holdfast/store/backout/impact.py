"""What a batch has reached: predictions, labels and models, read for a back-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, func, select

from holdfast.records import MINUTE_US
from holdfast.store.catalog.lineage import load_of
from holdfast.store.db import schema
from holdfast.tables.backout import AffectedLabels, AffectedPredictions
from holdfast.tables.lineage import Node, NodeKind

_BACKOUTS: Final = schema.backouts
_OF: Final = schema.backout_batches
_ADMISSIONS: Final = schema.admissions
_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_PARTS: Final = schema.file_row_groups
_VERSIONS: Final = schema.table_versions
_USAGE: Final = schema.request_counts
_OUTCOMES: Final = schema.outcomes


def predictions_of(
    connection: Connection, model: str, version: str, cause: str, *, since_us: int = 0
) -> AffectedPredictions | None:
    """Return the number and the minutes of the predictions of a version; None if there are none.

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
    return AffectedPredictions(model, version, cause, int(requests), int(predicted), first, last)


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
