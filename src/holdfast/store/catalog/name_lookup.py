"""Resolve the beginning of a name to a version, snapshot or runtime; no other place decides this.

Only names that Holdfast made are shortened: they end in digits of a digest, which mean nothing. The sender names a batch,
and the beginning of one id, 2013-01, may be another id.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import ColumnElement, Connection, select

from holdfast.errors import NotFoundError
from holdfast.store.db import schema

_SHOWN: Final = 6
_VERSIONS: Final = schema.versions
_SNAPSHOTS: Final = schema.snapshots
_RUNTIMES: Final = schema.runtimes


def meant(text: str, names: Iterable[str]) -> str:
    """Return the one of `names` that `text` is or begins; `text` itself if it begins none.

    A number is never shortened: v1 begins v1-7be1a728, and never v12-03be77aa. Raises `NotFoundError` HF314 if several
    names begin so; it lists them.

    >>> meant("v3", ["v3-7be1a728", "v31-03be77aa"]), meant("v3-7b", ["v3-7be1a728"]), meant("v4", ["v3-7be1a728"])
    ('v3-7be1a728', 'v3-7be1a728', 'v4')
    """
    begun = text if "-" in text else f"{text}-"
    found = sorted({name for name in names if name == text or name.startswith(begun)})
    if text in found or not found:
        return text
    if len(found) > 1:
        more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        raise NotFoundError(
            "HF314",
            f"{text!r} may be {', '.join(found[:_SHOWN])}{more}",
            state="nothing was changed",
            next_command="the same command with more of the name",
        )
    return found[0]


def _beginning(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Select the names that begin with `text`: those that `meant` chooses from."""
    return column.startswith(text, autoescape=True)


def version(connection: Connection, text: str, model: str | None = None) -> str:
    """Return the version that `text` names or begins, the model's own before those of others; see `meant`."""
    query = select(_VERSIONS.c.version, _VERSIONS.c.model).where(_beginning(_VERSIONS.c.version, text))
    rows = connection.execute(query).all()
    own = [row.version for row in rows if row.model == model]
    found = meant(text, own)
    return found if found in own else meant(text, (row.version for row in rows))


def snapshot(connection: Connection, text: str) -> str:
    """Return the snapshot that `text` names or begins; see `meant`."""
    return _meant(connection, text, _SNAPSHOTS.c.snapshot)


def runtime(connection: Connection, text: str) -> str:
    """Return the runtime that `text` names or begins; see `meant`."""
    return _meant(connection, text, _RUNTIMES.c.runtime)


def _meant(connection: Connection, text: str, column: ColumnElement[str]) -> str:
    return meant(text, connection.execute(select(column).where(_beginning(column, text))).scalars())
