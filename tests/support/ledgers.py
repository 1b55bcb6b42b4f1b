"""A PostgreSQL that is started once, and the ledger of a test on either database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.elements import ClauseElement

from holdfast.store.db import ledger
from holdfast.store.db.ledger import Ledger
from tests.support import postgres


def start_postgres(*settings: str) -> postgres.Server:
    """A new PostgreSQL; the test is skipped, with the reason, where none can run."""
    try:
        return postgres.Server.start_new(*settings)
    except postgres.UnavailableHereError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A running PostgreSQL for the whole session. Only its process is ever killed, never the machine: it need not sync."""
    server = start_postgres("fsync=off", "max_connections=200")
    yield server
    server.stop()


@pytest.fixture
def own_postgres() -> Iterator[postgres.Server]:
    """A PostgreSQL that a test may kill; it syncs what it commits."""
    server = start_postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: postgres.Server) -> str:
    """The name of a database that holds an empty ledger: a copy of it is made sooner than a new one is migrated."""
    postgres_server.execute("CREATE DATABASE ledger_template")
    Ledger.open(postgres_server.url("ledger_template", "postgresql+psycopg")).close()
    return "ledger_template"


class PostgresLedgers:
    """The ledgers of one test: for each SQLite file that it would have, a database."""

    def __init__(self, server: postgres.Server, template: str) -> None:
        self._server = server
        self._template = template
        self._made: dict[str, str] = {}

    def url(self, path: Path) -> str:
        """What stands in for `sqlite_url`."""
        name = "ledger_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
        if name not in self._made:
            self._server.execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")
            self._made[name] = self._server.url(name, "postgresql+psycopg")
        return self._made[name]

    def disconnect(self) -> None:
        """End what the test left connected. The databases go with the server: removing one takes longer than making it."""
        for name in self._made:
            self._server.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )


@pytest.fixture
def postgres_ledgers(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PostgresLedgers]:
    """From here on a store that names no ledger has it on PostgreSQL."""
    server = request.getfixturevalue("postgres_server")
    ledgers = PostgresLedgers(server, request.getfixturevalue("postgres_template"))
    monkeypatch.setattr("holdfast.store.db.ledger.sqlite_url", ledgers.url)
    yield ledgers
    ledgers.disconnect()


@pytest.fixture(params=["sqlite", "postgresql"])
def each_ledger(request: pytest.FixtureRequest) -> str:
    """Runs a test once on each database: `pytestmark = pytest.mark.usefixtures("each_ledger")`."""
    if request.param == "postgresql":
        if request.node.get_closest_marker("sqlite"):
            pytest.skip("it is about SQLite's file")
        request.getfixturevalue("postgres_ledgers")
    return str(request.param)


_CREATE = ledger._create
_STATEMENTS: list[str] = []


def _create(connection: Connection) -> None:
    """Make a new SQLite ledger from the statements of the first one: SQLAlchemy takes five times as long to write them."""
    if connection.dialect.name != "sqlite":
        _CREATE(connection)
        return
    if _STATEMENTS:
        for statement in _STATEMENTS:
            connection.exec_driver_sql(statement)
        return
    _CREATE(connection)
    dump = connection.connection.driver_connection.iterdump()  # type: ignore[union-attr]
    _STATEMENTS.extend(each for each in dump if each not in ("BEGIN TRANSACTION;", "COMMIT;"))


@pytest.fixture(scope="session", autouse=True)
def _created_once() -> Iterator[None]:
    """Within this process the first SQLite ledger is made as ever; `created_in_full` is there to test just that."""
    ledger._create = _create
    yield
    ledger._create = _CREATE


_COMPILE = ClauseElement._compile_w_cache
_COMPILED: dict[object, Any] = {}
_DIALECTS: dict[str, Dialect] = {}


def _compile_once(self: ClauseElement, dialect: Dialect, *, compiled_cache: Any, **named: Any) -> Any:
    """Compile a statement for the first ledger of its kind only: each engine would keep a cache of its own."""
    if compiled_cache is None:
        return _COMPILE(self, dialect, compiled_cache=None, **named)
    return _COMPILE(self, _DIALECTS.setdefault(dialect.name, dialect), compiled_cache=_COMPILED, **named)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    """Within this process a statement is compiled once, and not for the ledger of every test anew."""
    ClauseElement._compile_w_cache = _compile_once  # type: ignore[method-assign,assignment]
    yield
    ClauseElement._compile_w_cache = _COMPILE  # type: ignore[method-assign]


@pytest.fixture
def created_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on every new ledger is made as outside of tests."""
    monkeypatch.setattr(ledger, "_create", _CREATE)
