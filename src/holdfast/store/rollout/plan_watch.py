"""Poll for what a server follows, cheaply enough to do so once a second for ever.

The revision of a model is its newest plan, with the newest event and the newest table version of the ledger: one statement,
three descents of primary keys. Renewing a lease leaves it as it is. On SQLite `PRAGMA data_version`
(https://www.sqlite.org/pragma.html#pragma_data_version), which counts commits of other connections in some microseconds, shows
whether the revision need be read at all. `Ledger.listen` shows a commit earlier.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy import PoolProxiedConnection, bindparam, func, select

from holdfast.errors import UnavailableError
from holdfast.store.db import schema
from holdfast.store.db.ledger import Store
from holdfast.store.db.statements import Prepared

POLL_SECONDS: Final = 1.0
"""How often the revision is read when no nudge comes."""
SQLITE_SECONDS: Final = 0.02
POSTGRES_SECONDS: Final = 0.05
"""The shortest time between two readings, however many nudges come."""

Revision: TypeAlias = tuple[int | None, int | None, int | None]
"""The newest plan of the model, and the newest event and table version of the ledger."""

_REVISION: Final = Prepared(
    select(
        select(schema.traffic_plans.c.plan_id)
        .where(schema.traffic_plans.c.model == bindparam("of_model"))
        .order_by(schema.traffic_plans.c.plan_id.desc())
        .limit(1)
        .scalar_subquery()
        .label("plan"),
        select(func.max(schema.events.c.event_id)).scalar_subquery().label("event"),
        select(func.max(schema.table_versions.c.table_version)).scalar_subquery().label("table_version"),
    )
)


class Changes:
    """Changes of one model's revision in one open store. It belongs to one thread; `close` it before the store's ledger."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._model = model
        self._seen: Revision | None = None
        self._commits_seen: int | None = None
        self._held: PoolProxiedConnection | None = None
        self._file: tuple[Path, tuple[int, int]] | None = None
        engine = store.ledger.engine
        if engine.dialect.name == "sqlite" and engine.url.database:
            path = Path(engine.url.database)
            self._file = path, _identity(path)
            self._held = engine.raw_connection()
        self.pause_seconds = POSTGRES_SECONDS if self._held is None else SQLITE_SECONDS
        """The shortest time between two calls of `since_last`."""

    def since_last(self) -> bool:
        """Return True if the revision is another than at the last call, and on the first call.

        Raises `UnavailableError` HF302 if the ledger cannot be read or its file was replaced; then open it again.
        """
        if self._held is not None:
            commits = self._commits(self._held)
            if commits == self._commits_seen:
                return False
            self._commits_seen = commits
        revision = self._revision()
        changed, self._seen = revision != self._seen, revision
        return changed

    def close(self) -> None:
        """Release the connection."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def _commits(self, held: PoolProxiedConnection) -> int:
        assert self._file is not None, "a file is held"
        path, opened = self._file
        if _identity(path) != opened:
            raise _lost(
                f"the ledger was replaced: {path} is not the file that was opened", "it is opened again"
            )
        driver: Any = held.driver_connection
        try:
            return int(driver.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise _lost(f"reading the ledger failed: {error}", "the ledger can be read") from error

    def _revision(self) -> Revision:
        with self._store.ledger.read() as connection:
            [found] = _REVISION.rows(connection, {"of_model": self._model})
        return found.plan, found.event, found.table_version


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        cure = "holdfast restore BACKUP, or holdfast rebuild-ledger"
        raise _lost(f"the ledger is missing: {path}", "it is back", cure) from error
    return found.st_dev, found.st_ino


def _lost(what: str, until: str, cure: str = "holdfast verify") -> UnavailableError:
    return UnavailableError(
        "HF302", what, state=f"the last plan stays in force until {until}", next_command=cure
    )
