"""Poll for a newer plan, cheaply enough to do so many times a second.

On SQLite `PRAGMA data_version` (https://www.sqlite.org/pragma.html#pragma_data_version) counts commits of other connections
in some microseconds, without reading a row. On PostgreSQL the newest plan's number is read, one descent of the primary key.
NOTIFY would be faster by some milliseconds. It needs a permanent connection, does not pass a transaction pooler, and a lost
connection is noticed only by polling.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import PoolProxiedConnection, bindparam, select

from holdfast.errors import UnavailableError
from holdfast.store.db import schema
from holdfast.store.db.ledger import Store

SQLITE_SECONDS: Final = 0.02
POSTGRES_SECONDS: Final = 0.05
"""Intended polling intervals."""

_NEWEST: Final = (
    select(schema.traffic_plans.c.plan_id)
    .where(schema.traffic_plans.c.model == bindparam("of_model"))
    .order_by(schema.traffic_plans.c.plan_id.desc())
    .limit(1)
)


class Changes:
    """Changes of one model's plans in one open store. It belongs to one thread; `close` it before the store's ledger."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._model = model
        self._seen: int | None = None
        self._held: PoolProxiedConnection | None = None
        self._file: tuple[Path, tuple[int, int]] | None = None
        engine = store.ledger.engine
        if engine.dialect.name == "sqlite" and engine.url.database:
            path = Path(engine.url.database)
            self._file = path, _identity(path)
            self._held = engine.raw_connection()
        self.pause_seconds = POSTGRES_SECONDS if self._held is None else SQLITE_SECONDS
        """Time between two polls."""

    def since_last(self) -> bool:
        """Return True if something was committed since the last call, and on the first call.

        Raises `UnavailableError` HF302 if the ledger cannot be read or its file was replaced; then open it again.
        """
        stamp = self._newest() if self._held is None else self._commits(self._held)
        changed, self._seen = stamp != self._seen, stamp
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

    def _newest(self) -> int:
        with self._store.ledger.read() as connection:
            found = connection.execute(_NEWEST, {"of_model": self._model}).scalar_one_or_none()
        return 0 if found is None else int(found)


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
