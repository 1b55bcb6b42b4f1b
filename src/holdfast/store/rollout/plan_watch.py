"""Whether a newer plan may be there, asked so cheaply that it can be asked many times a second.

SQLite counts the commits of others (`PRAGMA data_version`, https://www.sqlite.org/pragma.html#pragma_data_version): some
microseconds, and no row is read. PostgreSQL is asked for the newest plan's number, one descent of the primary key. Its NOTIFY
would be quicker by some milliseconds, but it needs a connection of its own for ever, does not pass through a pooler of
transactions, and one that is lost is found only by asking.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import PoolProxiedConnection, bindparam, select

from holdfast.errors import UnavailableError
from holdfast.store.db import schema
from holdfast.store.db.store import Store

SQLITE_SECONDS: Final = 0.02
POSTGRES_SECONDS: Final = 0.05
"""How often it is meant to be asked."""

_NEWEST: Final = (
    select(schema.traffic_plans.c.plan_id)
    .where(schema.traffic_plans.c.model == bindparam("of_model"))
    .order_by(schema.traffic_plans.c.plan_id.desc())
    .limit(1)
)


class Changes:
    """Of one model's plans in one open store. It belongs to one thread; `close` it before the store's ledger."""

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
        """How long to wait between two questions."""

    def since_last(self) -> bool:
        """Whether something was committed since this was last asked; True the first time.

        `UnavailableError` HF302 when the ledger does not answer, or another file lies in its place: then open it anew.
        """
        stamp = self._newest() if self._held is None else self._commits(self._held)
        changed, self._seen = stamp != self._seen, stamp
        return changed

    def close(self) -> None:
        """Give the connection back."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def _commits(self, held: PoolProxiedConnection) -> int:
        assert self._file is not None, "a file is held"
        path, opened = self._file
        if _identity(path) != opened:
            raise UnavailableError(
                "HF302",
                f"another file lies at {path} than the one that was opened",
                state="what was read before holds until it is opened anew",
                next_command="holdfast verify",
            )
        driver: Any = held.driver_connection
        try:
            return int(driver.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise UnavailableError(
                "HF302",
                f"the ledger did not answer: {error}",
                state="what was read before holds until it answers",
                next_command="holdfast verify",
            ) from error

    def _newest(self) -> int:
        with self._store.ledger.read() as connection:
            found = connection.execute(_NEWEST, {"of_model": self._model}).scalar_one_or_none()
        return 0 if found is None else int(found)


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise UnavailableError(
            "HF302",
            f"the ledger {path} is not there",
            state="what was read before holds until it is back",
            next_command="holdfast restore BACKUP, or holdfast repair-ledger",
        ) from error
    return found.st_dev, found.st_ino
