"""Rows of `declarations`: what each feed and model declared, from which load on, and the source files of it."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy import insert as insert_into

from holdfast.errors import NotFoundError
from holdfast.records import DeclarationKind, canonical_json, sha256_hex
from holdfast.store.catalog import batches
from holdfast.store.db import rows, schema
from holdfast.store.db.statements import Prepared

_DECLARATIONS: Final = schema.declarations
_BATCHES: Final = schema.batches
_INSERT: Final = Prepared(
    insert_into(_DECLARATIONS),
    [column.name for column in _DECLARATIONS.columns if column.name != "declaration_id"],
)
_NEWEST: Final = Prepared(
    select(_DECLARATIONS.c.digest)
    .where(_DECLARATIONS.c.kind == bindparam("of_kind"), _DECLARATIONS.c.name == bindparam("of_name"))
    .order_by(_DECLARATIONS.c.declaration_id.desc())
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class DeclarationRow:
    """A declaration that was in force from `recorded_at_us` (microseconds since 1970 UTC) until the next one of its name.

    For a feed, `table_version` is that of the first load that it judged.
    """

    declaration_id: int
    kind: DeclarationKind
    name: str
    digest: str
    fields_json: str
    sources_json: str | None
    actor: str
    recorded_at_us: int
    table_version: int

    @property
    def fields(self) -> dict[str, str]:
        """Return each declared field by its path."""
        found: dict[str, str] = json.loads(self.fields_json)
        return found

    @property
    def sources(self) -> dict[str, str]:
        """Return the text of each source file by its path; empty for a feed."""
        found: dict[str, str] = json.loads(self.sources_json) if self.sources_json else {}
        return found


def digest_of(fields: Mapping[str, str], sources: Mapping[str, str] | None = None) -> str:
    """Return the digest of a declaration."""
    return sha256_hex(canonical_json({"fields": dict(fields), "sources": dict(sources or {})}))


def newest_digest(connection: Connection, kind: DeclarationKind, name: str) -> str | None:
    """Return the digest of the declaration that is in force; None if none was recorded."""
    found: str | None = _NEWEST.value(connection, {"of_kind": str(kind), "of_name": name})
    return found


def add(
    connection: Connection,
    kind: DeclarationKind,
    name: str,
    fields: Mapping[str, str],
    *,
    sources: Mapping[str, str] | None = None,
    actor: str,
    now_us: int,
    table_version: int | None = None,
) -> None:
    """Record a declaration as in force, in the caller's transaction.

    Parameters
    ----------
    kind, name
        The feed or the model.
    fields
        Each declared field by its path.
    sources
        The text of each source file by its path; None for a feed.
    actor
        The user whose command runs with it.
    now_us
        Microseconds since 1970 UTC.
    table_version
        The version of the first load that it judges; None takes the newest.
    """
    version = batches.current_version(connection) if table_version is None else table_version
    values = {
        "kind": str(kind),
        "name": name,
        "digest": digest_of(fields, sources),
        "fields_json": canonical_json(dict(fields)),
        "sources_json": None if sources is None else canonical_json(dict(sources)),
        "actor": actor,
        "recorded_at_us": now_us,
        "table_version": version,
    }
    _INSERT.put(connection, values)


def newest(connection: Connection, kind: DeclarationKind, name: str) -> DeclarationRow | None:
    """Return the declaration that is in force; None if none was recorded."""
    found = select(_DECLARATIONS).where(_DECLARATIONS.c.kind == kind, _DECLARATIONS.c.name == name)
    return rows.first(connection, found.order_by(_DECLARATIONS.c.declaration_id.desc()), DeclarationRow)


def get(connection: Connection, declaration_id: int) -> DeclarationRow:
    """Return the declaration of that number. Raises `NotFoundError` HF303 if there is none."""
    query = select(_DECLARATIONS).where(_DECLARATIONS.c.declaration_id == declaration_id)
    found = rows.first(connection, query, DeclarationRow)
    if found is None:
        raise NotFoundError(
            "HF303",
            f"there is no declaration {declaration_id}",
            state="nothing was changed",
            next_command="holdfast declaration history",
        )
    return found


def history(connection: Connection, name: str | None = None) -> list[DeclarationRow]:
    """Return every recorded declaration, the oldest first, of feeds and models of one name if one is given."""
    query = select(_DECLARATIONS).order_by(_DECLARATIONS.c.declaration_id)
    if name is not None:
        query = query.where(_DECLARATIONS.c.name == name)
    return rows.read(connection, query, DeclarationRow)


def loads_judged(connection: Connection, found: Sequence[DeclarationRow]) -> dict[int, int]:
    """Return by number how many loads, also backed-out ones, each declaration of a feed in `found` judged."""
    counts: dict[int, int] = {}
    for name in {row.name for row in found if row.kind is DeclarationKind.FEED}:
        mine = [row for row in found if row.kind is DeclarationKind.FEED and row.name == name]
        since = [row.table_version for row in mine]
        query = (
            select(_BATCHES.c.table_version, func.count())
            .where(_BATCHES.c.feed == name, _BATCHES.c.table_version >= since[0])
            .group_by(_BATCHES.c.table_version)
        )
        for version, loads in connection.execute(query):
            number = mine[bisect_right(since, version) - 1].declaration_id
            counts[number] = counts.get(number, 0) + loads
    return counts
