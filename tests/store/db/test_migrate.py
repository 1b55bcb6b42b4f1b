"""The ledger's revisions: they make the schema, they refuse what is not theirs, and openers may race."""

from __future__ import annotations

import functools
import multiprocessing
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

from holdfast.errors import IntegrityError, UnavailableError
from holdfast.rollout import Canary
from holdfast.store import Store
from holdfast.store.db import events, migrate
from holdfast.store.db.ledger import Ledger
from holdfast.store.db.schema import METADATA
from holdfast.store.rollout import rollouts, traffic_plans


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


def test_the_revisions_make_exactly_the_schema(tmp_path: Path) -> None:
    Ledger.open(f"sqlite:///{tmp_path / 'migrated.db'}").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    METADATA.create_all(engine)
    engine.dispose()
    assert _definitions(tmp_path / "migrated.db") == _definitions(tmp_path / "declared.db")


def test_alembic_finds_nothing_to_change(tmp_path: Path) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    with ledger.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, METADATA)
        assert migrate.revision(connection) == migrate.HEAD
    ledger.close()
    assert differences == []


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


def test_a_ledger_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(UnavailableError, match="HF302"):
        Store.open(tmp_path)


def _open(directory: str, start: multiprocessing.synchronize.Barrier) -> None:
    start.wait(60)
    store = Store.open(Path(directory))
    with store.ledger.read() as connection:
        assert migrate.revision(connection) == migrate.HEAD


@pytest.mark.process
def test_four_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    start = spawning.Barrier(4)
    openers = [spawning.Process(target=_open, args=(str(tmp_path), start)) for _ in range(4)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(120)
    assert [opener.exitcode for opener in openers] == [0] * 4


def test_postgresql_gets_the_same_schema(postgres_server: Any) -> None:
    postgres_server.execute("CREATE DATABASE migrated")
    ledger = Ledger.open(postgres_server.url("migrated"))
    with ledger.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, METADATA)
        assert migrate.revision(connection) == migrate.HEAD
    ledger.close()
    assert differences == []


def _open_url(url: str, directory: str, start: multiprocessing.synchronize.Barrier) -> None:
    start.wait(60)
    Store.open(Path(directory), url).ledger.close()


@pytest.mark.process
def test_four_processes_may_open_a_new_ledger_on_postgresql(tmp_path: Path, postgres_server: Any) -> None:
    postgres_server.execute("CREATE DATABASE opened")
    url = postgres_server.url("opened")
    spawning = multiprocessing.get_context("spawn")
    start = spawning.Barrier(4)
    openers = [spawning.Process(target=_open_url, args=(url, str(tmp_path), start)) for _ in range(4)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(120)
    assert [opener.exitcode for opener in openers] == [0] * 4


@pytest.mark.parametrize("url", ["postgresql://postgres@127.0.0.1:1/x", "postgres://nobody@127.0.0.1:1/x"])
def test_a_postgresql_that_cannot_be_reached_says_so(tmp_path: Path, url: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UnavailableError, match=r"HF302.*cannot be opened"):
        Store.open(tmp_path, url)


_POLICY = Canary(alpha=0.02).to_json()
_TOLD = [f'told {number}: ünïcode, "quotes" and a\0nul' for number in range(2500)]


def _old_rows(connection: Connection) -> None:
    """Rows in every table that revision 0003 makes anew, and in those that they refer to, as revision 0001 has them."""

    def put(table: str, **values: object) -> None:
        names = ", ".join(values)
        given = ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({given})"), values)

    put("table_versions", committed_us=1, reason="ingest")
    put("snapshots", snapshot="s1", table_version=1, contract_hash="c" * 64, created_us=1)
    for number in (1, 2, 3):
        put(
            "versions",
            version=f"v{number}",
            model="m",
            number=number,
            digest=f"{number:064d}",
            bytes=1,
            snapshot="s1",
            contract_hash="c" * 64,
            features_hash="f" * 64,
            learner="l",
            role="candidate",
            state="qualified",
            created_us=1,
        )
    for challenger, champion, state in (
        ("v1", None, "promoted"),
        ("v2", "v1", "promoted"),
        ("v3", "v2", "canary"),
    ):
        put(
            "rollouts",
            model="m",
            challenger=challenger,
            champion=champion,
            state=state,
            step=1,
            policy=_POLICY,
            started_us=10,
            step_started_us=20,
            changed_us=30,
            reason=_TOLD[0],
            actor="ada",
        )
    for metric in ("errors", "quality"):
        put(
            "rollout_evidence",
            rollout=3,
            metric=metric,
            challenger_units=5,
            challenger_total=1.5,
            champion_units=50,
            champion_total=2.25,
            log_e=0.5,
            log_bound=4.5,
            state="{}",
            updated_us=40,
        )
    for rollout, champion, challenger, share_ppm in ((1, "v1", None, 0), (3, "v2", "v3", 50_000)):
        put(
            "traffic_plans",
            model="m",
            champion=champion,
            challenger=challenger,
            share_ppm=share_ppm,
            previous="v1",
            fallback=None,
            rollout=rollout,
            committed_us=50,
        )
    put("servers", server="a", model="m", address="http://x", log_directory="/x", started_us=1)
    put(
        "probes",
        server="a",
        model="m",
        plan=2,
        intended="v2",
        answered="v2",
        verdict="pass",
        explanation="seen",
        probed_us=60,
    )
    for number, words in enumerate(_TOLD):
        put("events", at_us=number, kind="batch.published", subject="m", actor="holdfast", explanation=words)
    connection.execute(text("DELETE FROM events WHERE event = 7"))  # as a roll-back leaves gaps in a sequence


_REBUILT = ("rollouts", "rollout_evidence", "traffic_plans", "probes", "events")


def _rows(connection: Connection) -> dict[str, list[dict[str, object]]]:
    found = {}
    for name in _REBUILT:
        read = connection.execute(text(f"SELECT * FROM {name}")).mappings()
        found[name] = sorted((dict(row) for row in read), key=lambda row: repr(list(row.values())[:2]))
    return found


@pytest.mark.parametrize("of", ["0001", "0002"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_old_ledger_comes_through_with_its_rows(
    of: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Rows are kept, numbers go on, foreign keys are whole, the story is a chain, the schema is the declared one (R12)."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if kind == "postgresql":
        server = request.getfixturevalue("postgres_server")
        server.execute(f"CREATE DATABASE came_from_{of}")
        url = server.url(f"came_from_{of}")
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "upgrade", functools.partial(migrate.upgrade, to=of))
        old = Ledger.open(url)
    with old.write() as connection:
        _old_rows(connection)
    with old.read() as connection:
        assert migrate.revision(connection) == of
        before = _rows(connection)
    old.close()

    ledger = Ledger.open(url)
    with ledger.read() as connection:
        after = _rows(connection)
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        if kind == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall() == []
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    for name in _REBUILT:
        assert len(after[name]) == len(before[name])
        for was, now in zip(before[name], after[name], strict=True):
            assert now.items() >= was.items()
            added = {column: now[column] for column in now.keys() - was.keys() - {"digest"}}
            assert set(added.values()) <= {None, 0}, name

    with ledger.write() as connection:
        event = events.append(connection, at_us=9, kind="a.b", subject="m", explanation="after")
        connection.execute(text("UPDATE rollouts SET state = 'promoted' WHERE rollout = 3"))
        number = rollouts.insert_pending(
            connection,
            model="m",
            challenger="v1",
            champion="v3",
            policy=_POLICY,
            reason="",
            actor="ada",
            now_us=9,
        )
        plan = traffic_plans.append(connection, model="m", champion="v1", rollout=number, now_us=9)
    assert (event, number, plan) == (len(_TOLD) + 1, 4, 3)
    with ledger.read() as connection:
        told = events.since(connection, 0, limit=len(_TOLD) + 1)
    ledger.close()
    digest = events.FIRST
    for row in told:
        digest = events.chained(digest, row.at_us, row.kind, row.subject, row.actor, row.explanation)
        assert row.digest == digest
    assert [row.explanation for row in told] == [*_TOLD[:6], *_TOLD[7:], "after"]
