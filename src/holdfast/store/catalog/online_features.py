"""Rows of `online_features`: point-in-time aggregates as servers read them.

They are named by the aggregate's key, which holds a hash of its definition: after a changed declaration an older
version goes on reading values of its own. They are written in the transaction that publishes the rows which they are
computed from, and carry its table version: a server reads what is newer than what it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select

from holdfast.store.db import schema
from holdfast.store.db.statements import Prepared, inserting, pieces

_ONLINE: Final = schema.online_features
_KEY: Final = ("aggregate", "entity", "known_at_us")
_VALUE: Final = (_ONLINE.c.aggregate, _ONLINE.c.entity, _ONLINE.c.known_at_us, _ONLINE.c.value)
_DEFINITIONS: Final = schema.online_definitions
_FEEDS: Final = Prepared(select(_DEFINITIONS.c.feed).distinct().order_by(_DEFINITIONS.c.feed))
_OF_FEED: Final = Prepared(
    select(_DEFINITIONS).where(_DEFINITIONS.c.feed == bindparam("of_feed")).order_by(_DEFINITIONS.c.aggregate)
)


@dataclass(frozen=True, slots=True)
class OnlineValue:
    """The value of `aggregate` (its key) for `entity`, known from `known_at_us` (microseconds since 1970 UTC) on.

    `value` is None where there was one and the rows behind it were backed out: a server that holds the old value must drop it.
    """

    aggregate: str
    entity: str
    known_at_us: int
    value: float | None


def upsert(connection: Connection, values: Sequence[OnlineValue], table_version: int) -> None:
    """Set `values` as of `table_version`; a value of the same aggregate, entity and timestamp is replaced."""
    if not values:
        return
    statement = inserting(connection, _ONLINE)
    statement = statement.on_conflict_do_update(
        index_elements=_KEY,
        set_={"value": statement.excluded.value, "table_version": statement.excluded.table_version},
    )
    connection.execute(
        statement,
        [
            {
                "aggregate": value.aggregate,
                "entity": value.entity,
                "known_at_us": value.known_at_us,
                "value": value.value,
                "table_version": table_version,
            }
            for value in values
        ],
    )


@dataclass(frozen=True, slots=True)
class Definition:
    """An aggregate over `feed` whose values are kept: its key, and its declaration as canonical JSON."""

    aggregate: str
    feed: str
    definition_json: str


def register(connection: Connection, definitions: Sequence[Definition], table_version: int) -> None:
    """Record that the values of `definitions` hold every row of their feeds up to `table_version`."""
    if not definitions:
        return
    statement = inserting(connection, _DEFINITIONS)
    statement = statement.on_conflict_do_update(
        index_elements=("aggregate",), set_={"table_version": statement.excluded.table_version}
    )
    connection.execute(statement, [asdict(each) | {"table_version": table_version} for each in definitions])


def feeds(connection: Connection) -> list[str]:
    """Return the feeds over which an aggregate is kept, by name."""
    return [row.feed for row in _FEEDS.rows(connection, {})]


def definitions(connection: Connection, feed: str) -> list[tuple[Definition, int]]:
    """Return the aggregates over `feed` whose values are kept, each with the table version it is complete up to."""
    found = _OF_FEED.rows(connection, {"of_feed": feed})
    return [(Definition(row.aggregate, row.feed, row.definition_json), row.table_version) for row in found]


def between(
    connection: Connection, aggregate: str, entities: Sequence[str] | None, low_us: int, high_us: int
) -> list[OnlineValue]:
    """Return the values of `aggregate` in a period, without those that were backed out.

    Parameters
    ----------
    entities
        The entities to read, None for all.
    low_us, high_us
        The values known at or after `low_us` and before `high_us`, microseconds UTC.
    """
    query = select(*_VALUE).where(
        _ONLINE.c.aggregate == aggregate,
        _ONLINE.c.known_at_us >= low_us,
        _ONLINE.c.known_at_us < high_us,
        _ONLINE.c.value.is_not(None),
    )
    queries = (
        [query]
        if entities is None
        else [query.where(_ONLINE.c.entity.in_(some)) for some in pieces(entities)]
    )
    return [OnlineValue(*row) for each in queries for row in connection.execute(each)]


def since(
    connection: Connection, aggregates: Sequence[str], table_version: int
) -> tuple[int, list[OnlineValue]]:
    """Return the table version to read from next time, and what changed in `aggregates` after `table_version`.

    The oldest value comes first; one whose rows were backed out is None.

    Parameters
    ----------
    table_version
        What the caller has; 0 for nothing.
    """
    query = select(*_VALUE, _ONLINE.c.table_version).where(
        _ONLINE.c.aggregate.in_(aggregates), _ONLINE.c.table_version > table_version
    )
    rows = connection.execute(query.order_by(_ONLINE.c.known_at_us)).all()
    newest = max((row.table_version for row in rows), default=table_version)
    return newest, [OnlineValue(*value) for *value, _ in rows]
