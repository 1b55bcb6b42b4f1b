"""The store, a directory of files, and the ledger that catalogs them: one SQL database, opened the same way everywhere.

SQLite runs in WAL mode with synchronous=FULL, so that an acknowledged transaction survives a power failure, with
one writer at a time through BEGIN IMMEDIATE. PostgreSQL has one writer at a time through a lock (`postgres.py`)
and runs the same statements.

The first process that opens a ledger creates it with the tables of `schema`, or migrates it, in one transaction. Only an older
ledger runs revisions, those of Alembic in `migrations/versions`; otherwise Alembic is not loaded.
"""

from __future__ import annotations

import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import IntegrityError as ConstraintError
from sqlalchemy.exc import SQLAlchemyError as LedgerError
from sqlalchemy.schema import SetColumnComment, SetTableComment

from holdfast.errors import InputError, IntegrityError, UnavailableError
from holdfast.settings import Settings
from holdfast.store.db import postgres, sqlite_handles
from holdfast.store.db.commit_listener import CommitListener
from holdfast.store.db.schema import METADATA
from holdfast.store.durability import access
from holdfast.store.durability.fsync import make_directory
from holdfast.store.durability.nudges import nudge

__all__ = ["BUSY_SECONDS", "ConstraintError", "Ledger", "LedgerError", "Transaction", "sqlite_url"]

Transaction: TypeAlias = Connection
"""An open transaction, for callers above the store, which pass it on and use no SQL."""

BUSY_SECONDS: Final = 30.0
"""Timeout of a writer that waits for another writer of the same SQLite file."""

_PAUSE_SECONDS: Final = 0.02
_TURN_SECONDS: Final = 0.0002
_MOST_TURN_SECONDS: Final = 0.01
_BUSY_TIMEOUT: Final = f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}"
_SNAPSHOT_READ: Final[dict[str, Any]] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


HEAD: Final = "0019"
"""The revision of `schema.METADATA`: the newest file in `migrations/versions`."""
_SCRIPTS: Final = Path(__file__).parent / "migrations"
_REVISION: Final = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """An open ledger. Threads may share it; forked processes may not."""

    engine: Engine

    @classmethod
    def open(cls, url: str, *, may_be_new: bool = True) -> Ledger:
        """Open the ledger at SQLAlchemy URL `url`, and create or migrate it if needed.

        Parameters
        ----------
        may_be_new
            If False, the ledger must exist: rows are there, so that a missing one is lost.

        Raises
        ------
        InputError
            HF103 if `url` is no URL of a supported database.
        UnavailableError
            HF302 if the database cannot be reached.
        IntegrityError
            HF309 if it is damaged or lost, HF310 if it is no ledger or a newer Holdfast made it.
        """
        target = _target(url)
        # A connection that broke while idle is replaced before a transaction begins on it.
        on_sqlite = target.get_backend_name() == "sqlite"
        given = {"factory": sqlite_handles.TrackedConnection} if on_sqlite else {}
        engine = create_engine(target, pool_pre_ping=not on_sqlite, connect_args=given)
        # An unreferenced ledger closes its files without a call of `close`; on SQLite its connections do so themselves, and
        # the end of the process closes the rest.
        if on_sqlite:
            weakref.finalize(engine, _dispose, weakref.ref(engine))
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            weakref.finalize(engine, engine.pool.dispose)
            postgres.prepare(engine)
        name = target.render_as_string()
        try:
            if not may_be_new and _is_new(engine):
                raise IntegrityError(
                    "HF309",
                    f"the ledger {name} is lost: the store has rows, and the ledger is missing or empty",
                    state="nothing was changed",
                    next_command="holdfast restore BACKUP, or holdfast rebuild-ledger",
                )
            _upgrade(engine)
            if on_sqlite:
                _mark_as_ledger(engine)
        except OperationalError as error:
            raise UnavailableError(
                "HF302", f"the ledger {name} cannot be opened: {error.orig}", state="nothing was changed"
            ) from error
        except (DatabaseError, sqlite3.DatabaseError) as error:
            reason = error.orig if isinstance(error, DatabaseError) else error
            raise IntegrityError(
                "HF309",
                f"the ledger {name} is damaged or no database: {reason}",
                state="nothing was changed",
                next_command="restore it from a copy of the store, or name another in HOLDFAST_LEDGER",
            ) from error
        return cls(engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a consistent view of the ledger. `UnavailableError` HF302 if the ledger does not respond."""
        try:
            with self.engine.connect().execution_options(**self._reading) as connection:
                yield connection
        except (OperationalError, InterfaceError) as error:
            raise _unresponsive(error, "nothing was changed") from error

    @contextmanager
    def write(self, *, quiet: bool = False) -> Iterator[Connection]:
        """Open a transaction: everything in the block is committed, or nothing. Then nudge the processes that `listen`.

        `quiet` nudges none of them: for a write that nothing follows from, such as the renewal of a lease.

        Raises `UnavailableError` HF302 if the ledger does not respond, and HF205 if the connection was lost during the
        commit: only the ledger shows whether it was committed.
        """
        written = False
        try:
            with (
                self.engine.connect().execution_options(
                    holdfast_writes=True, holdfast_nudges=not quiet
                ) as connection,
                connection.begin(),
            ):
                yield connection
                written = True
        except (OperationalError, InterfaceError) as error:
            if written and self.engine.dialect.name != "sqlite":
                raise _unknown(error) from error
            raise _unresponsive(error, "nothing was changed") from error
        if not quiet and (directory := self._nudges) is not None:
            nudge(directory)

    def listen(self) -> CommitListener:
        """Return a listener that waits for commits; close it before the ledger."""
        on_sqlite = self.engine.dialect.name == "sqlite"
        return CommitListener(self._nudges, None if on_sqlite else partial(postgres.subscribe, self.engine))

    @property
    def _nudges(self) -> Path | None:
        """The directory of nudges, which no pattern for the files of the ledger matches; None on PostgreSQL, which notifies."""
        file = self.engine.url.database if self.engine.dialect.name == "sqlite" else None
        return Path(file).with_name(f"nudges-{Path(file).name}") if file else None

    @property
    def _reading(self) -> dict[str, Any]:
        # SQLite's readers see one snapshot of the ledger; PostgreSQL's need the isolation level.
        return {} if self.engine.dialect.name == "sqlite" else _SNAPSHOT_READ

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def sqlite_url(path: Path) -> str:
    """Return the URL of the SQLite file at `path`, whatever characters the path has.

    >>> sqlite_url(Path("/a?b/ledger.db"))
    'sqlite:////a%3Fb/ledger.db'
    """
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _unresponsive(error: DBAPIError, state: str) -> UnavailableError:
    return UnavailableError(
        "HF302",
        f"the ledger did not respond: {_message(error)}",
        state=state,
        next_command="the same command again, when the ledger can be reached",
    )


def _unknown(error: DBAPIError) -> UnavailableError:
    return UnavailableError(
        "HF205",
        f"the connection to the ledger was lost during a commit: {_message(error)}",
        state="the transaction was committed or rolled back",
        next_command="the same command again, when the ledger can be reached",
    )


def _message(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())


def _with_driver(url: URL) -> URL:
    """Return `url` with psycopg as its driver if it names none; "postgres" means "postgresql".

    >>> from sqlalchemy.engine import make_url
    >>> _with_driver(make_url("postgresql://db.example/ledger")).drivername
    'postgresql+psycopg'
    """
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _target(url: str) -> URL:
    try:
        target = _with_driver(make_url(url))
        target.get_dialect().import_dbapi()
    except (ArgumentError, ImportError) as error:
        raise InputError(
            "HF103",
            f"the ledger's URL cannot be used: {error}",
            state="nothing was changed",
            next_command=(
                "set HOLDFAST_LEDGER to a URL such as sqlite:////var/lib/holdfast/ledger.db or postgresql://db.example/ledger "
                "(for which pip install 'holdfast[postgres]'), or leave it out"
            ),
        ) from error
    if target.get_backend_name() == "sqlite" and target.database:
        try:
            Path(target.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(
                "HF302",
                f"the ledger {target.database} cannot be created: {error.strerror}",
                state="nothing was changed",
            ) from error
    return target


def _prepare_sqlite(connection: sqlite_handles.TrackedConnection, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions itself, in `_begin_sqlite`
    try:
        connection.track()
        _configure(connection)
    except BaseException:
        connection.close()
        raise


def _configure(connection: sqlite3.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute(_BUSY_TIMEOUT)
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    # A small load writes some fifteen pages; moving them out of the log after every sixtieth costs two syncs more.
    cursor.execute("PRAGMA wal_autocheckpoint = 4000")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Switch to WAL. Processes that open a new file race for it, and SQLite does not wait here as it does elsewhere."""
    patience = round(BUSY_SECONDS / _PAUSE_SECONDS)
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            patience -= 1
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or patience <= 0:
                raise
            time.sleep(_PAUSE_SECONDS)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that will write takes the write lock at once: upgrading a read lock later can only fail.
    writes = connection.get_execution_options().get("holdfast_writes", False)
    handle = sqlite_handles.handle_of(connection)
    if writes and handle is not None:
        sqlite_handles.before_change(handle)
    if writes:
        _wait_for_turn(connection)
    else:
        connection.exec_driver_sql("BEGIN")


def _wait_for_turn(connection: Connection) -> None:
    """Begin to write as soon as no other process does.

    SQLite's own wait sleeps at least one millisecond, then two, five, ten. A small load holds the lock for less than one,
    and two loaders spent a third of their time asleep.
    """
    sqlite = connection.connection.driver_connection
    assert isinstance(sqlite, sqlite3.Connection)
    pause, deadline = _TURN_SECONDS, time.monotonic() + BUSY_SECONDS
    sqlite.execute("PRAGMA busy_timeout = 0")
    try:
        while time.monotonic() < deadline:
            try:
                sqlite.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
            time.sleep(pause)
            pause = min(pause * 1.5, _MOST_TURN_SECONDS)
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # raises SQLAlchemy's error
    finally:
        sqlite.execute(_BUSY_TIMEOUT)


def _mark_as_ledger(engine: Engine) -> None:
    """Let this file get page checksums: it is a ledger."""
    with engine.connect() as connection:
        handle = sqlite_handles.handle_of(connection)
        if handle is not None:
            handle.is_ledger = True


def _dispose(reference: weakref.ref[Engine]) -> None:
    engine = reference()
    if engine is not None:
        engine.dispose()


@dataclass(frozen=True, slots=True)
class Store:
    """A directory of files and the ledger that catalogs them."""

    root: Path
    ledger: Ledger

    @classmethod
    def open(cls, root: Path, ledger_url: str | None = None, *, recovering: bool = False) -> Store:
        """Open the store in directory `root`, created if missing. Without a URL the ledger is a SQLite file in it.

        If rows are there and the ledger is new, it was lost: an empty one would make every row an orphan. `recovering`
        allows that to a rebuild. Raises `UnavailableError` HF307 if the directory cannot be created, and as `Ledger.open`.
        """
        is_new = not root.exists()
        try:
            make_directory(root)
            if is_new:
                access.restrict_root(root)
        except OSError as error:
            raise UnavailableError(
                "HF307",
                f"the store's directory {root} cannot be made: {error.strerror}",
                state="nothing was changed",
                next_command="name another directory in HOLDFAST_ROOT",
            ) from error
        holds_rows = any((root / "rows").glob("*.parquet"))
        url = ledger_url or sqlite_url(root / "ledger.db")
        ledger = root / "ledger.db"
        is_first = not ledger.exists()
        opened = Ledger.open(url, may_be_new=recovering or not holds_rows)
        if is_first:
            for path in (ledger, *(ledger.with_name(f"{ledger.name}-{end}") for end in ("wal", "shm"))):
                access.restrict_file(path)
        return cls(root, opened)

    @classmethod
    def of(cls, settings: Settings) -> Store:
        """Open the store that `settings` name."""
        return cls.open(settings.root, settings.ledger_url)


def _upgrade(engine: Engine) -> None:
    """Create the ledger if the database is empty, else run every revision that it lacks.

    Raises `IntegrityError` HF310 if the database belongs to another program or was made by a newer Holdfast; nothing is
    changed.
    """
    with engine.connect() as connection:
        if revision_of(connection) == HEAD:
            return
    with engine.connect().execution_options(holdfast_writes=True) as connection, connection.begin():
        found = revision_of(connection)  # another process may have created or migrated it meanwhile
        if found is None:
            _create(connection)
        elif found != HEAD:
            _migrate(connection, found)


def _is_new(engine: Engine) -> bool:
    """Return True if the database is empty."""
    with engine.connect() as connection:
        return revision_of(connection) is None


def revision_of(connection: Connection) -> str | None:
    """Return the ledger's revision, None for an empty database; `IntegrityError` HF310 if it is no ledger."""
    inspector = inspect(connection)
    if inspector.has_table(_REVISION.name):
        found: str | None = connection.execute(select(_REVISION.c.version_num)).scalar_one_or_none()
        return found
    tables = inspector.get_table_names()
    if tables:
        raise IntegrityError(
            "HF310",
            f"the database is not a ledger of Holdfast: it has a table {tables[0]!r} and no revision",
            state="nothing was changed",
            next_command="name another database in HOLDFAST_LEDGER",
        )
    return None


def _create(connection: Connection) -> None:
    METADATA.create_all(connection, checkfirst=False)
    _REVISION.create(connection, checkfirst=True)
    connection.execute(insert(_REVISION).values(version_num=HEAD))


def _migrate(connection: Connection, found: str) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(_SCRIPTS))
    line = list(reversed(list(scripts.walk_revisions("base", HEAD))))
    known = [script.revision for script in line]
    if found not in known:
        raise IntegrityError(
            "HF310",
            f"the ledger is at revision {found} and this release ends at {known[-1]}: a newer Holdfast created it",
            state="nothing was changed",
            next_command="pip install --upgrade holdfast",
        )
    context = MigrationContext.configure(connection)
    for script in line[known.index(found) + 1 :]:
        with Operations.context(context):
            script.module.upgrade()
        context.stamp(scripts, script.revision)
    _write_comments(connection)


def _write_comments(connection: Connection) -> None:
    if connection.dialect.supports_comments:
        for each in METADATA.sorted_tables:
            connection.execute(SetTableComment(each))
            for part in each.columns:
                connection.execute(SetColumnComment(part))
