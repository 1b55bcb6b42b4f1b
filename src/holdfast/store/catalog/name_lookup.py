"""Which version, snapshot or binary a person means by the beginning of its name; no other place decides this.

Only names that Holdfast made are shortened: they end in digits of a digest, which say nothing. A batch is named by who sent
it, and there the beginning of one id, 2013-01, is very well another id.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import ColumnElement, Connection, select

from holdfast.errors import NotFoundError
from holdfast.store.db import schema
from holdfast.store.db.store import Store

_SHOWN: Final = 6
_VERSIONS: Final = schema.versions
_SNAPSHOTS: Final = schema.snapshots
_BINARIES: Final = schema.runtimes


def meant(text: str, names: Iterable[str]) -> str:
    """The one of `names` that `text` is or begins; `text` itself when it begins none, so that its reader says what is missing.

    A number counts whole: v1 begins v1-7be1a728, and never v12-03be77aa. Raises `NotFoundError` HF314, which names them, when
    several begin so.

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
    """Whether `column` begins as `text` does: what `meant` may choose from."""
    return column.startswith(text, autoescape=True)


def version(store: Store, text: str, model: str | None = None) -> str:
    """The version that `text` names or begins, the model's own before those of others; as `meant`."""
    with store.ledger.read() as connection:
        return version_in(connection, text, model)


def version_in(connection: Connection, text: str, model: str | None = None) -> str:
    """As `version`, in a transaction."""
    query = select(_VERSIONS.c.version, _VERSIONS.c.model).where(_beginning(_VERSIONS.c.version, text))
    rows = connection.execute(query).all()
    own = [row.version for row in rows if row.model == model]
    found = meant(text, own)
    return found if found in own else meant(text, (row.version for row in rows))


def snapshot(store: Store, text: str) -> str:
    """The snapshot that `text` names or begins; as `meant`."""
    with store.ledger.read() as connection:
        return snapshot_in(connection, text)


def snapshot_in(connection: Connection, text: str) -> str:
    """As `snapshot`, in a transaction."""
    query = select(_SNAPSHOTS.c.snapshot).where(_beginning(_SNAPSHOTS.c.snapshot, text))
    return meant(text, connection.execute(query).scalars())


def binary(store: Store, text: str) -> str:
    """The binary that `text` names or begins; as `meant`."""
    query = select(_BINARIES.c.runtime).where(_beginning(_BINARIES.c.runtime, text))
    with store.ledger.read() as connection:
        return meant(text, connection.execute(query).scalars())
