"""New ledgers have the schema, older ones get it, what is no ledger is refused, and openers may race."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from holdfast.errors import IntegrityError, UnavailableError
from holdfast.store import Store
from holdfast.store.db import ledger as ledgers
from holdfast.store.db.ledger import Ledger
from holdfast.store.db.schema import METADATA
from tests.support import forking

REVISIONS = Path(__file__).parent / "revisions"
KEPT = sorted(path.stem for path in REVISIONS.glob("*.sql"))
TYPES = {
    "sqlite": {"serial": "INTEGER", "number": "INTEGER", "double": "DOUBLE"},
    "postgresql": {"serial": "BIGSERIAL", "number": "BIGINT", "double": "DOUBLE PRECISION"},
}

pytestmark = pytest.mark.usefixtures("created_in_full")


def _definitions(path: Path) -> dict[str, list[str]]:
    """What SQLite keeps of every table and index: the whole definition, its constraints in the order of
    their names.
    """
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    database.close()
    return {name: _ordered(sql) for name, sql in rows if name != "alembic_version"}


def _ordered(sql: str) -> list[str]:
    columns, *constraints = re.split(r",? CONSTRAINT ", " ".join(sql.split()).removesuffix(" )"))
    return [columns, *sorted(constraints)]


def _declared(path: Path) -> dict[str, list[str]]:
    engine = create_engine(f"sqlite:///{path}")
    METADATA.create_all(engine)
    engine.dispose()
    return _definitions(path)


def _differences(url: str) -> list[Any]:
    """What Alembic would change in the ledger, which is opened first."""
    ledger = Ledger.open(url)
    with ledger.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences: list[Any] = compare_metadata(context, METADATA)
        assert ledgers.revision_of(connection) == ledgers.HEAD
    ledger.close()
    return differences


_DESCRIBED = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'alembic_version'""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass""",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
    "comments": """
        SELECT c.relname, a.attname, d.description
        FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
        WHERE c.relnamespace = 'public'::regnamespace""",
}


def _description(url: str) -> dict[str, set[tuple[Any, ...]]]:
    """What PostgreSQL keeps of every table, whatever the order of its columns: definitions and comments."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            what: {tuple(row) for row in connection.exec_driver_sql(query)}
            for what, query in _DESCRIBED.items()
        }
    engine.dispose()
    return found


def _statements(revision: str, database: str) -> list[str]:
    """The ledger as the release of that revision made it: `revisions/` keeps it, and nothing in there ever changes."""
    written = (REVISIONS / f"{revision}.sql").read_text()
    for name, kind in TYPES[database].items():
        written = written.replace(f"{{{name}}}", kind)
    tables = [each for each in written.split(";\n") if each.strip()]
    if database == "sqlite":
        tables = [each for each in tables if not each.strip().startswith("COMMENT ON")]
    of_alembic = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, PRIMARY KEY (version_num))"
    return [*tables, of_alembic, f"INSERT INTO alembic_version VALUES ('{revision}')"]


def _make_old(path: Path, revision: str) -> str:
    with sqlite3.connect(path) as database:
        database.executescript(";".join(_statements(revision, "sqlite")))
    database.close()
    return f"sqlite:///{path}"


def test_a_new_ledger_has_exactly_the_schema(tmp_path: Path) -> None:
    assert _differences(f"sqlite:///{tmp_path / 'ledger.db'}") == []
    assert _definitions(tmp_path / "ledger.db") == _declared(tmp_path / "declared.db")


@pytest.mark.parametrize("revision", KEPT)
def test_an_old_ledger_gets_exactly_the_schema(tmp_path: Path, revision: str) -> None:
    assert _differences(_make_old(tmp_path / "old.db", revision)) == []
    assert _definitions(tmp_path / "old.db") == _declared(tmp_path / "declared.db")


def test_the_newest_revision_is_kept() -> None:
    assert KEPT[-1] == ledgers.HEAD


def test_a_ledger_runs_the_revisions_that_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tmp_path / "migrations"
    shutil.copytree(ledgers._SCRIPTS, scripts)
    following = f"{int(ledgers.HEAD) + 1:04}"
    (scripts / "versions" / f"r{following}_add_column.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision = '{following}', '{ledgers.HEAD}'\n"
        "def upgrade() -> None:\n"
        "    op.add_column('leases', sa.Column('note', sa.Text()))\n"
    )
    monkeypatch.setattr(ledgers, "_SCRIPTS", scripts)
    monkeypatch.setattr(ledgers, "HEAD", following)
    ledger = Ledger.open(_make_old(tmp_path / "old.db", "0001"))
    with ledger.read() as connection:
        assert ledgers.revision_of(connection) == following
        assert connection.execute(text("SELECT note FROM leases")).all() == []
    ledger.close()


def test_a_ledger_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger.open(url)
    with ledger.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ledger.close()
    with pytest.raises(IntegrityError, match=r"HF310.*9999.*newer Holdfast"):
        Ledger.open(url)


@pytest.mark.parametrize("content", [b"this is no database, it is a letter to a friend " * 40, b"\0" * 5000])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.db").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"HF3(09|10)"):
        Store.open(tmp_path)
    assert (tmp_path / "ledger.db").read_bytes() == content


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("CREATE TABLE addresses (name TEXT)")
    database.close()
    with pytest.raises(IntegrityError, match=r"HF310.*addresses"):
        Store.open(tmp_path)
    assert set(_definitions(tmp_path / "ledger.db")) == {"addresses"}


def test_a_ledger_that_cannot_be_reached_reports_it(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(UnavailableError, match="HF302"):
        Store.open(tmp_path)


OPEN = """
import sys
from pathlib import Path
from holdfast.store import Store
from holdfast.store.db import ledger as ledgers
store = Store.open(Path(sys.argv[1]), *sys.argv[2:])
with store.ledger.read() as connection:
    assert ledgers.revision_of(connection) == ledgers.HEAD
store.ledger.close()
"""


@pytest.mark.process
def test_four_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    assert forking.run_at_once(OPEN, [[tmp_path / "store"]] * 4, tmp_path / "go") == [0] * 4


def test_postgresql_gets_the_same_schema(postgres_server: Any) -> None:
    postgres_server.execute("CREATE DATABASE created")
    assert _differences(postgres_server.url("created")) == []


@pytest.fixture(scope="module")
def fresh_on_postgresql(postgres_server: Any) -> dict[str, set[tuple[Any, ...]]]:
    postgres_server.execute("CREATE DATABASE fresh")
    Ledger.open(postgres_server.url("fresh")).close()
    return _description(postgres_server.url("fresh", "postgresql+psycopg"))


@pytest.mark.parametrize("revision", KEPT)
def test_an_old_ledger_on_postgresql_gets_exactly_the_schema(
    postgres_server: Any, revision: str, fresh_on_postgresql: dict[str, set[tuple[Any, ...]]]
) -> None:
    postgres_server.execute(f"CREATE DATABASE old_{revision}")
    url = postgres_server.url(f"old_{revision}", "postgresql+psycopg")
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in _statements(revision, "postgresql"):
            connection.exec_driver_sql(statement)
    engine.dispose()
    assert _differences(postgres_server.url(f"old_{revision}")) == []
    found = _description(url)
    for what, expected in fresh_on_postgresql.items():
        assert found[what] == expected, what


@pytest.mark.process
def test_four_processes_may_open_a_new_ledger_on_postgresql(tmp_path: Path, postgres_server: Any) -> None:
    postgres_server.execute("CREATE DATABASE opened")
    url = postgres_server.url("opened")
    assert forking.run_at_once(OPEN, [[tmp_path / "store", url]] * 4, tmp_path / "go") == [0] * 4


@pytest.mark.parametrize("url", ["postgresql://postgres@127.0.0.1:1/x", "postgres://nobody@127.0.0.1:1/x"])
def test_a_postgresql_that_cannot_be_reached_reports_it(tmp_path: Path, url: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UnavailableError, match=r"HF302.*cannot be opened"):
        Store.open(tmp_path, url)
