"""`holdfast ingest` and `check` take files, directories, JSON lines and the rows of a database (R1, R17, R18)."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.errors import ConflictError, InputError

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new user's project, whose feed may also be read from a database."""
    directory = tmp_path_factory.mktemp("parcels")
    _run("init", "--name", "parcels", "--project", str(directory))
    model = (directory / "model.py").read_text()
    query = 'source=PostgresQuery("${env:WAREHOUSE_URL}", "select * from parcels where handed_in::date = $1")'
    model = model.replace("    expects=", f"    {query},\n    expects=")
    (directory / "model.py").write_text("from holdfast import PostgresQuery\n" + model)
    return directory


@pytest.fixture
def ask(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a command in a copy of the project and returns its JSON."""
    (tmp_path / "model.py").write_text((template / "model.py").read_text())
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: json.loads(_run(*arguments, "--json"))


def _run(command: str, *arguments: str) -> str:
    load_commands(command)
    done = CliRunner().invoke(app, [command, *arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def rows(template: Path) -> pl.DataFrame:
    return pl.read_csv(template / "parcels.csv").head(300)


def _lines(frame: pl.DataFrame) -> str:
    return "".join(json.dumps(row) + "\n" for row in frame.rows(named=True))


def _batches(document: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    return [(b["batch"], b["state"], b["rows_loaded"], b["rows_quarantined"]) for b in document["batches"]]


def test_a_directory_is_one_batch_or_many(ask: Ask, tmp_path: Path, rows: pl.DataFrame) -> None:
    source = tmp_path / "in"
    (source / "b").mkdir(parents=True)
    (source / "b" / "second.jsonl.gz").write_bytes(gzip.compress(_lines(rows[100:200]).encode()))
    (source / "first.jsonl").write_text(_lines(rows[:100]) + '{"parcel": "x", "late": NaN}\n')
    (source / "_SUCCESS").touch()
    found = ask("check", "rows", "in")
    assert (found["rows"], found["valid"], found["reasons"]) == (201, 200, {"_line|json": 1})
    assert _batches(ask("ingest", "rows", "in", "--batch", "all")) == [("all", "loaded", 200, 1)]
    assert _batches(ask("ingest", "rows", "in", "--batch", "all")) == [("all", "already_loaded", 200, 1)]
    (source / "third.jsonl").write_text(_lines(rows[200:]))
    with pytest.raises(ConflictError, match="HF203"):
        ask("ingest", "rows", "in", "--batch", "all")
    assert _batches(ask("ingest", "rows", "in/third.jsonl")) == [("third", "loaded", 100, 0)]


def test_partitions_are_batches_of_their_own(ask: Ask, tmp_path: Path, rows: pl.DataFrame) -> None:
    for day in (1, 2, 3):
        for folder in (f"in/day={day}", f"plain/{day}"):
            (tmp_path / folder).mkdir(parents=True)
            part = rows[40 * day + (0 if folder.startswith("in") else 120) :][:40]
            (tmp_path / folder / "data.jsonl").write_text(_lines(part))
    ids = [batch[:2] for batch in _batches(ask("ingest", "rows", "in"))]
    assert ids == [(f"day-{day}-data", "loaded") for day in (1, 2, 3)]
    again = _batches(ask("ingest", "rows", "in/day=2/data.jsonl"))
    assert [batch[:2] for batch in again] == [("day-2-data", "already_loaded")]
    with pytest.raises(InputError, match=r"HF101.*plain/2/data.jsonl would both be batch data.*--batch"):
        ask("ingest", "rows", "plain/1/data.jsonl", "plain/2/data.jsonl")
    found = _batches(ask("ingest", "rows", "plain/*/data.jsonl"))
    assert [batch[0] for batch in found] == ["1-data", "2-data", "3-data"]


@pytest.mark.parametrize("bad", [b"", b"not,the,columns\n1,2,3\n", b'parcel\n"a"b"\n'])
def test_of_several_files_each_is_accounted_for(
    ask: Ask, tmp_path: Path, rows: pl.DataFrame, bad: bytes
) -> None:
    for number in (1, 3):
        rows[50 * number : 50 * number + 50].write_csv(tmp_path / f"{number}.csv")
    (tmp_path / "2.csv").write_bytes(bad)
    with pytest.raises(InputError, match=r"2\.csv.*loaded before it: 1; not tried: 3"):
        ask("ingest", "rows", "1.csv", "2.csv", "3.csv")
    assert [batch[:2] for batch in _batches(ask("ingest", "rows", "1.csv"))] == [("1", "already_loaded")]
    assert [batch[:2] for batch in _batches(ask("ingest", "rows", "3.csv"))] == [("3", "loaded")]


def test_the_rows_of_a_batch_come_from_the_feeds_database(
    ask: Ask, rows: pl.DataFrame, postgres_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"parcels_{os.getpid()}"
    postgres_server.execute(f"CREATE DATABASE {database}")
    url = postgres_server.url(database)
    monkeypatch.setenv("WAREHOUSE_URL", url)
    postgres_server.execute(
        "CREATE TABLE parcels (parcel text, handed_in timestamptz, town text, weight_kg numeric, express bool, late bool)",
        database,
    )
    values = ", ".join(
        f"('{r['parcel']}', '{r['handed_in']}', '{r['town']}', {r['weight_kg']}, {r['express']}, {r['late']})"
        for r in rows.rows(named=True)
    )
    postgres_server.execute(f"INSERT INTO parcels VALUES {values}", database)
    days = rows["handed_in"].str.slice(0, 10)
    first, count = "2026-01-01", (days == "2026-01-01").sum()
    assert _batches(ask("ingest", "rows", "--batch", first)) == [(first, "loaded", count, 0)]
    assert ask("ingest", "rows", "--batch", first)["batches"][0]["state"] == "already_loaded"
    select = "select * from parcels where handed_in::date = $1 order by parcel desc"
    again = ask("ingest", "rows", url, "--query", select, "--batch", first)
    assert again["batches"][0]["state"] == "already_loaded"
    postgres_server.execute("UPDATE parcels SET weight_kg = 1 WHERE parcel = 'p00003'", database)
    with pytest.raises(ConflictError, match="HF203"):
        ask("ingest", "rows", "--batch", first)
    assert ask("check", "rows", "--batch", "2026-01-02")["would_be"] == "loaded"
    monkeypatch.delenv("WAREHOUSE_URL")
    with pytest.raises(InputError, match=r"HF103.*WAREHOUSE_URL is not set"):
        ask("ingest", "rows", "--batch", "d2")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("rows",), "HF101.*read from a database: which one"),
        (("rows", "a.csv", "b.csv", "--batch", "x"), "HF101.*--batch names one delivery, but 2 files"),
        (("rows", "postgresql://db/x", "--batch", "x"), "HF101.*one --query for one --batch"),
        (("rows", "http://db/x"), "HF201.*of a kind that is not known"),
        (("rows", "no/*.csv"), "HF201.*does not exist"),
        (("rows", "."), "HF201.*several kinds"),
    ],
)
def test_words_that_do_not_fit_together_are_refused(
    ask: Ask, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    for name, content in (("a.csv", "a\n1\n"), ("b.jsonl", '{"a": 1}\n')):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_text(content)
    if arguments == ("rows", "."):
        arguments = ("rows", "d", "--batch", "x")
    with pytest.raises(InputError, match=why):
        ask("ingest", *arguments)
