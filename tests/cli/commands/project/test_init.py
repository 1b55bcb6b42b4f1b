"""`holdfast init` reads what people have, asks everything it must know at once, and declares what a load then accepts."""

from __future__ import annotations

import io
import json
import random
import shlex
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tests.support.project import Finished, Project, run_here

Form = Callable[[datetime], str]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def run(project: Project, *words: str) -> Finished:
    return run_here(words, project.directory, project.environment)


def export(*, when: Form, label: tuple[str, str], decimal: str = ".", rows: int = 600) -> pl.DataFrame:
    """Rows as a person exports them: text, with headers that are no names."""
    rng = random.Random(3)
    found: dict[str, list[Any]] = {
        each: [] for each in ("Record No", "When", "Damage?", "Speed", "Cost", "Kind")
    }
    for number in range(rows):
        hit = rng.random() < 0.3
        speed = "" if rng.random() < 0.28 else f"{rng.random() * 200:.1f}".replace(".", decimal)
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=5 * number)
        cost = str(rng.randint(1, 900)) if hit and rng.random() < 0.6 else "0"
        values = (str(number), when(at), label[0] if hit else label[1], speed, cost, rng.choice("ab"))
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    return pl.DataFrame(found)


def written(frame: pl.DataFrame, path: Path, separator: str) -> None:
    text = io.StringIO()
    frame.write_csv(text, separator=separator)
    path.write_text(text.getvalue(), encoding="utf-8-sig")


@pytest.mark.parametrize(
    ("when", "label", "separator", "decimal"),
    [
        (lambda at: f"{at:%d.%m.%Y}", ("yes", "no"), ";", ","),
        (lambda at: f"{at:%Y-%m-%d %H:%M}", ("1", "0"), ",", "."),
        (lambda at: f"{at:%m/%d/%Y %H:%M:%S}", ("1.0", "0.0"), "\t", "."),
        (lambda at: f"{at:%Y-%m-%d}", ("Ja", "Nein"), "|", ","),
        (lambda at: f"{at:%Y-%m-%dT%H:%M:%SZ}", ("TRUE", "FALSE"), ",", "."),
    ],
)
def test_what_init_reads_is_what_a_load_accepts(
    project: Project, when: Form, label: tuple[str, str], separator: str, decimal: str
) -> None:
    frame = export(when=when, label=label, decimal=decimal)
    written(frame, project.directory / "my data.csv", separator)
    made = project.document("init", "my data.csv", "--label", "Damage?")
    assert (made["label"], made["key"], made["event_time"]) == ("damage", ["record_no"], "when")
    assert list(made["known_later"]) == ["cost"]
    checked = project.document("check", "rows", "my data.csv")
    assert (checked["rows"], checked["quarantined"]) == (600, 0)
    source = (project.directory / "model.py").read_text()
    assert 'Passthrough("cost")' not in source
    assert "drift=True" in source


@pytest.mark.parametrize("kind", [pl.Datetime("us"), pl.Date()])
def test_parquet_is_read_alike(project: Project, kind: pl.DataType) -> None:
    frame = export(when=lambda at: f"{at:%Y-%m-%dT%H:%M:%S}", label=("1", "0"))
    frame = frame.with_columns(
        pl.col("When").str.to_datetime().cast(kind),
        pl.col("Damage?", "Cost").cast(pl.Int64),
        pl.col("Speed").cast(pl.Float64, strict=False),
    )
    frame.write_parquet(project.directory / "data.parquet")
    project.document("init", "data.parquet", "--label", "Damage?", "--key", "Record No")
    checked = project.document("check", "rows", "data.parquet")
    assert (checked["rows"], checked["quarantined"]) == (600, 0)


def test_a_column_of_an_earlier_outcome_is_not_proposed_as_the_label(project: Project) -> None:
    """`repaid_prev_car`, known before the event, was taken for the label of a file that has none."""
    rows = [f"n{n},2026-01-{n:02}T00:00:00Z,{n}.5,{'true' if n % 2 else 'false'}" for n in range(1, 29)]
    for name, proposed in (("repaid_prev_car", "COLUMN"), ("repaid", "repaid")):
        (project.directory / "loans.csv").write_text("\n".join([f"id,at,amount,{name}", *rows]) + "\n")
        refused = run(project, "init", "loans.csv", "--key", "nothing", "--json")
        error = json.loads(refused.stdout)["error"]
        assert f"--label {proposed} " in error["next_command"]
        assert ("which column is the label?" in error["what"]) == (proposed == "COLUMN")


def test_everything_that_is_open_is_requested_at_once(project: Project) -> None:
    rows = ["id,When At,Price,kind,size", *(f"1,0{n}/02/2026,{n}.5,{'abc'[n % 3]},1" for n in range(1, 7))]
    (project.directory / "my data.csv").write_text("\n".join(rows) + "\n")
    refused = run(project, "init", "my data.csv", "--label", "kind", "--key", "nothing", "--json")
    error = json.loads(refused.stdout)["error"]
    for part in (
        "d/m/yyyy or m/d/yyyy: --dates",
        "3 values: several classes, not yet",
        "--key 'nothing' is not a column; there are id, When At (when_at), Price (price)",
    ):
        assert part in error["what"]
    assert (
        error["next_command"]
        == "holdfast init 'my data.csv' --label COLUMN --key COLUMN --event-time when_at"
    )
    number = run(
        project, "init", "my data.csv", "--label", "Price", "--key", "id", "--dates", "d/m/yyyy", "--json"
    )
    what = json.loads(number.stdout)["error"]["what"]
    assert "regression, not yet" in what
    assert "does not identify rows: 6 rows, 1 values" in what


@pytest.mark.parametrize(
    ("given", "options", "next_options"),
    [
        # A column that identifies rows; else two of them. What was named and cannot work is in no next command.
        ("airport", "--key airport", "--key no"),
        ("sky", "--event-time sky", "--event-time at"),
        ("label", "--label airport", "--label late"),
    ],
)
def test_a_next_command_names_no_column_that_cannot_work(
    project: Project, given: str, options: str, next_options: str
) -> None:
    rows = [
        f"{n},{'abc'[n % 3]},2026-01-{n:02}T00:00:00Z,{'xyz'[n % 3]},{'yes' if n % 2 else 'no'}"
        for n in range(1, 29)
    ]
    (project.directory / "d.csv").write_text("\n".join(["no,airport,at,sky,late", *rows]) + "\n")
    words = {"key": "no", "event-time": "at", "label": "late"}
    for option, value in [options.removeprefix("--").split()]:
        words[option] = value
    refused = run(
        project, "init", "d.csv", *(part for k, v in words.items() for part in (f"--{k}", v)), "--json"
    )
    command = json.loads(refused.stdout)["error"]["next_command"]
    assert next_options in command
    assert options not in command
    project.run(*shlex.split(command)[1:])


def test_two_columns_are_named_as_key_where_none_identifies_rows(project: Project) -> None:
    rows = [f"{n % 5},{'abcdefg'[n % 7]},2026-01-01T00:00:00Z,{'yes' if n % 2 else 'no'}" for n in range(35)]
    (project.directory / "d.csv").write_text("\n".join(["gate,airport,at,late", *rows]) + "\n")
    refused = run(
        project, "init", "d.csv", "--key", "airport", "--label", "late", "--event-time", "at", "--json"
    )
    command = json.loads(refused.stdout)["error"]["next_command"]
    assert "--key gate,airport" in command
    project.run(*shlex.split(command)[1:])


def test_the_next_commands_can_be_pasted(project: Project) -> None:
    written(
        export(when=lambda at: f"{at:%d.%m.%Y}", label=("yes", "no")), project.directory / "my data.csv", ";"
    )
    made = project.document("init", "my data.csv", "-p", "a place", "--label", "Damage?", "--name", "strikes")
    load, train, *_ = (shlex.split(each)[1:] for each in made["next"])
    assert "600 rows" in project.run(*load)
    assert train == ["train", "-p", "a place"]


def test_the_canary_of_few_rows_ends(project: Project) -> None:
    written(export(when=lambda at: f"{at:%d.%m.%Y}", label=("yes", "no")), project.directory / "d.csv", ";")
    project.run("init", "d.csv", "--label", "Damage?")
    source = (project.directory / "model.py").read_text()
    assert "Canary(steps=(50, 100), units_per_step=50, labels_per_step=20, timeout=" in source


def refusal_of(project: Project, *words: str) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(run(project, *words, "--json").stdout)["error"]
    return error


def test_a_file_that_is_not_parquet_is_refused(project: Project) -> None:
    (project.directory / "bad.parquet").write_bytes(b"id,at" * 9)
    error = refusal_of(project, "init", "bad.parquet", "--label", "late")
    assert error["code"] == "HF201"
    assert "bad.parquet cannot be read" in error["what"]


def test_a_label_of_words_in_parquet_is_refused(project: Project) -> None:
    frame = export(when=lambda at: f"{at:%Y-%m-%dT%H:%M:%S}", label=("yes", "no"))
    frame.with_columns(pl.col("When").str.to_datetime()).write_parquet(project.directory / "d.parquet")
    error = refusal_of(project, "init", "d.parquet", "--label", "Damage?", "--key", "Record No")
    assert error["code"] == "HF110"
    assert "write 'yes' as true and 'no' as false" in error["what"]


def test_units_of_parquet_are_loaded_and_merged_numbers_are_no_features(project: Project) -> None:
    frame = export(when=lambda at: f"{at:%Y-%m-%dT%H:%M:%S}", label=("1", "0")).drop("Cost")
    frame.with_columns(
        pl.col("When").str.to_datetime(),
        pl.col("Damage?").cast(pl.Int64),
        pl.col("Record No").cast(pl.Int64).add(20_000_000).alias("Article"),
        pl.col("Speed").cast(pl.Float64, strict=False).alias("Speed [km/h]"),
    ).drop("Speed").write_parquet(project.directory / "d.parquet")
    project.document("init", "d.parquet", "--label", "Damage?", "--key", "Record No")
    checked = project.document("check", "rows", "d.parquet")
    assert (checked["rows"], checked["quarantined"]) == (600, 0)
    source = (project.directory / "model.py").read_text()
    assert 'Number("speed", unit="km/h"' in source
    assert 'Passthrough("article")' not in source
    assert "# article has whole numbers above 2**24" in source


def test_missing_words_of_numbers_and_label_are_declared_for_texts(project: Project) -> None:
    frame = export(when=lambda at: f"{at:%d.%m.%Y}", label=("yes", "no")).with_columns(
        pl.when(pl.int_range(pl.len()) % 9 == 0)
        .then(pl.lit("NA"))
        .otherwise(pl.col("Damage?", "Speed", "Kind"))
        .name.keep()
    )
    written(frame, project.directory / "d.csv", ";")
    project.document("init", "d.csv", "--label", "Damage?", "--key", "Record No")
    checked = project.document("check", "rows", "d.csv")
    assert (checked["rows"], checked["quarantined"]) == (600, 0)
    source = (project.directory / "model.py").read_text()
    assert 'missing_words=("", "NA"),  # so in this file; as texts of kind too' in source


def test_an_event_time_of_an_hour_that_the_clock_shows_twice_is_quarantined(project: Project) -> None:
    rows = [f"{n},{'yn'[n % 2]},2025-10-{20 + n % 7:02d} 1{n % 10}:00:00" for n in range(300)]
    (project.directory / "rows.csv").write_text(
        "\n".join(["id,hit,at", *rows, "300,y,2025-10-26 02:30:00", ""])
    )
    project.run("init", "rows.csv", "--label", "hit", "--tz", "Europe/Amsterdam")
    checked = project.document("check", "rows", "rows.csv")
    assert (checked["rows"], checked["quarantined"]) == (301, 1)


def applications(days: int, *, known_after: int) -> tuple[list[str], list[str]]:
    """Rows of an export without labels, four a day, and the lines of their labels that are known by its end."""
    end = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=days)
    rows, labels = ["Loan No;Income;Applied"], ["Loan No;Paid?;Known"]
    for number in range(4 * days):
        at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=6 * number)
        rows.append(f"{number};{number * 37 % 100},5;{at:%d.%m.%Y}")
        if (known := at + timedelta(days=known_after - number % 5)) < end:
            labels.append(f"{number};{('ja', 'nein')[number % 3 == 0]};{known:%d.%m.%Y}")
    return rows, labels


def test_labels_in_a_file_of_their_own_are_declared_as_they_come(project: Project) -> None:
    rows, labels = applications(400, known_after=30)
    (project.directory / "loans.csv").write_text("\n".join(rows) + "\n")
    (project.directory / "paid.csv").write_text("\n".join(labels) + "\n")
    missed = run(project, "init", "loans.csv", "--label", "Paid?", "--key", "Loan No", "--json")
    assert "labels in a file of their own: --labels FILE" in json.loads(missed.stdout)["error"]["what"]
    made = project.document(
        "init", "loans.csv", "--label", "Paid?", "--key", "Loan No", "--labels", "paid.csv"
    )
    assert [shlex.split(each)[1:] for each in made["next"][:2]] == [
        ["ingest", "rows", "loans.csv"],
        ["ingest", "labels", "paid.csv"],
    ]
    for each in made["next"][:2]:
        project.run(*shlex.split(each)[1:])
    source = (project.directory / "model.py").read_text()
    assert 'delay="30d"' in source
    assert "labels_per_step=0" in source, "no step waits a month"
    trained = project.document("train")
    assert trained["rows_unlabelled"] == 1600 - (len(labels) - 1)
    assert trained["rows_trained"] > 800
    broken = [f"{line.split(';')[0]};perhaps;{line.split(';')[2]}" for line in labels[2:102]]
    (project.directory / "half.csv").write_text("\n".join([labels[0], "0;ja;01.03.2025", *broken]) + "\n")
    printed = run(project, "ingest", "labels", "half.csv", "--batch", "half", "--json")
    assert "invalid_rows" in printed.stdout, "a broken file of labels is reported as one of rows is"


def test_what_a_file_of_labels_leaves_open_is_requested_with_the_rest(project: Project) -> None:
    rows, labels = applications(20, known_after=5)
    (project.directory / "loans.csv").write_text("\n".join(rows) + "\n")
    named = [line.replace("Loan No", "Number") + ";1.1.2026" for line in labels]
    (project.directory / "paid.csv").write_text("\n".join(["Number;Paid?;Known;Sent", *named[1:]]) + "\n")
    refused = run(
        project, "init", "loans.csv", "--label", "Paid?", "--key", "Loan No", "--labels", "paid.csv", "--json"
    )
    what = json.loads(refused.stdout)["error"]["what"]
    assert "paid.csv has no column 'loan_no', by which a label finds its row" in what
    assert "which column is the known-at? known, sent are candidates" in what
    assert not (project.directory / "model.py").exists()


def test_the_delay_of_labels_is_found_in_rows_that_have_none_yet(project: Project) -> None:
    frame = export(when=lambda at: f"{at:%Y-%m-%dT%H:%M:%SZ}", label=("1", "0"))
    newest = pl.int_range(len(frame), eager=True) >= len(frame) - 48  # ten days, five hours apart
    frame = frame.with_columns(pl.when(newest).then(pl.lit("")).otherwise(pl.col("Damage?")).alias("Damage?"))
    written(frame, project.directory / "data.csv", ",")
    printed = project.run("init", "data.csv", "--label", "Damage?")
    assert (
        'the newest 10 days lack labels; load theirs as a feed of its own, Feed(..., labels_for="rows")'
        in printed
    )
    assert 'delay="10d"' in (project.directory / "model.py").read_text()


def test_rows_with_some_labels_and_a_file_of_later_ones(project: Project) -> None:
    rows, labels = applications(400, known_after=30)
    values = dict(line.split(";")[:2] for line in labels[1:1001])
    own = [f"{rows[0]};Paid?", *(f"{row};{values.get(row.split(';')[0], '')}" for row in rows[1:])]
    (project.directory / "loans.csv").write_text("\n".join(own) + "\n")
    (project.directory / "paid.csv").write_text("\n".join([labels[0], *labels[1001:]]) + "\n")
    made = project.document(
        "init", "loans.csv", "--label", "Paid?", "--key", "Loan No", "--labels", "paid.csv"
    )
    for each in made["next"][:2]:
        project.run(*shlex.split(each)[1:])
    assert project.document("train")["rows_unlabelled"] == 1600 - (len(labels) - 1)


def test_groups_of_digits_and_words_are_declared_as_a_load_reads_them(project: Project) -> None:
    """A column of 3.764,00 or of yes and no must not become a text that every new value is "other" to."""
    frame = export(when=lambda at: f"{at:%d.%m.%Y}", label=("yes", "no"), decimal=",").with_columns(
        pl.Series("Price", [f"{n % 900 + 1}.{n:03},50" for n in range(600)]),
        pl.Series("Insured", ["ja", "nein", ""] * 200),
        pl.Series("Night", ["1", "0", "0"] * 200),
    )
    written(frame, project.directory / "data.csv", ";")
    project.document("init", "data.csv", "--label", "Damage?", "--key", "Record No")
    source = (project.directory / "model.py").read_text()
    for line in ('Number("price"', 'Boolean("insured", missing=Keep())', 'Boolean("night")', 'thousands="."'):
        assert line in source
    checked = project.document("check", "rows", "data.csv")
    assert (checked["rows"], checked["quarantined"]) == (600, 0)
    suggested = project.document("contract", "suggest", "data.csv", "--feed", "rows")["python"]
    assert 'Boolean("insured"' in suggested
    assert 'Number("price"' in suggested


def test_a_number_of_two_readings_is_refused_with_both(project: Project) -> None:
    rows = "".join(f'{n},"{n}.{n:03}",2026-01-{n:02}T00:00:00Z,{n % 2}\n' for n in range(1, 20))
    (project.directory / "data.csv").write_text("id;price;at;late\n" + rows.replace(",", ";"))
    refused = json.loads(run(project, "init", "data.csv", "--label", "late", "--key", "id", "--json").stdout)
    assert (
        "'1.001' of 'price' is 1001 with --decimal , and 1.001 with --decimal ." in refused["error"]["what"]
    )
    assert run(project, "init", "data.csv", "--label", "late", "--key", "id", "--decimal", ",").status == 0
    assert project.document("check", "rows", "data.csv")["quarantined"] == 0


def test_the_interval_of_a_stale_feed_is_left_to_a_person(project: Project) -> None:
    """R14: old events do not show how often a feed delivers now; an interval of 1d would never be overdue, or always."""
    old = [f"{n},2024-01-{n % 28 + 1:02}T00:00:00Z,{n % 2}" for n in range(100)]
    (project.directory / "data.csv").write_text("\n".join(["id,at,late", *old, ""]))
    made = project.document("init", "data.csv", "--label", "late", "--key", "id")
    assert made["stale_days"] > 300
    assert '        # interval="1d",' in (project.directory / "model.py").read_text()
    assert project.document("check", "rows", "data.csv")["quarantined"] == 0


@pytest.mark.parametrize(
    ("days", "declared"),
    [
        (1, 'interval="1d",  # 12 files begin mostly 1 d apart'),
        (7, 'interval="7d",  # 12 files begin mostly 7 d apart'),
    ],
)
def test_the_interval_is_the_distance_of_files_and_not_of_events(
    project: Project, days: int, declared: str
) -> None:
    """`interval` is the time between loads: events every hour in files of a week do not come every day."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=12 * days + 1)
    (project.directory / "files").mkdir()
    for number in range(12):
        hours = range(number * days * 24 + 3 * (number == 5), (number + 1) * days * 24)
        lines = [f"{n},{start + timedelta(hours=n):%Y-%m-%dT%H:%M:%SZ},{n % 2}" for n in hours]
        (project.directory / "files" / f"f{number:02}.csv").write_text("\n".join(["id,at,late", *lines, ""]))
    project.document("init", "files", "--label", "late", "--key", "id")
    source = (project.directory / "model.py").read_text()
    assert declared in source
    assert f'grace="{"6h" if days == 1 else "1d"}"' in source
    done = project.document("ingest", "rows", "files")
    assert done["suspect"] == []
    assert not [
        each
        for batch in done["batches"]
        for each in batch["violations"]
        if each["check"] == "missing_batches"
    ]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_the_error_of_another_encoding_has_its_cure(project: Project, encoding: str) -> None:
    """Excel writes Windows-1252, and UTF-16 as "Unicode text": the next command converts the file as it stands."""
    rows = "".join(f"{n};Stra\u00dfe;{n}.1.2026;{n % 2}\n" for n in range(1, 20))
    (project.directory / "in").mkdir()
    file = project.directory / "in" / "my rows.csv"
    file.write_text("id;name;at;late\n" + rows, encoding=encoding)
    command = json.loads(
        run(project, "init", "in/my rows.csv", "--label", "late", "--key", "id", "--json").stdout
    )["error"]
    assert command["next_command"].startswith("iconv -f ")
    subprocess.run(command["next_command"], shell=True, check=True, cwd=project.directory)
    project.run("init", "in/my rows.utf8.csv", "--label", "late", "--key", "id")
    refused = json.loads(run(project, "ingest", "rows", "in/my rows.csv", "--json").stdout)["error"]
    assert refused["next_command"] == command["next_command"]
    assert refused["code"] == "HF201"


def test_a_column_may_be_named_as_a_person_writes_it(project: Project) -> None:
    written(
        export(when=lambda at: f"{at:%d.%m.%Y}", label=("yes", "no")), project.directory / "data.csv", ";"
    )
    refused = json.loads(
        run(project, "init", "data.csv", "--label", "Damage?", "--key", "order no", "--json").stdout
    )
    assert (
        "'order no' is not a column; there are Record No (record_no), When (when)" in refused["error"]["what"]
    )
    made = project.document(
        "init", "data.csv", "--label", "damage", "--key", "record no", "--event-time", "WHEN"
    )
    assert (made["label"], made["key"], made["event_time"]) == ("damage", ["record_no"], "when")


def test_too_little_history_leaves_the_gates_and_the_delay_open(project: Project) -> None:
    """A margin of 0.295 blocks nothing, and recent labels are the fast ones."""
    frame = export(when=lambda at: f"{at:%Y-%m-%d %H:%M}", label=("1", "0"), rows=33)
    written(frame, project.directory / "week.csv", ",")
    printed = project.run("init", "week.csv", "--label", "Damage?")
    assert "enough history? the gates hold out" in " ".join(printed.split())
    source = (project.directory / "model.py").read_text()
    assert "worse_than_champion_by" not in source
    assert "of the 50 that they need" in source
    assert 'holdout="2d"' in source, "a third of the days at most: the rest trains"


@pytest.mark.parametrize("separate", [True, False], ids=["a file of labels", "a column"])
def test_a_delay_that_recent_rows_cannot_show_is_requested(project: Project, separate: bool) -> None:
    rows, labels = applications(40, known_after=39)
    values = dict(line.split(";")[:2] for line in labels[1:])
    assert len(values) < 20, "few are known yet"
    own = [f"{rows[0]};Paid?", *(f"{row};{values.get(row.split(';')[0], '')}" for row in rows[1:])]
    (project.directory / "loans.csv").write_text("\n".join(rows if separate else own) + "\n")
    (project.directory / "paid.csv").write_text("\n".join(labels) + "\n")
    words = ("init", "loans.csv", "--label", "Paid?", "--key", "Loan No")
    made = project.document(*words, *(("--labels", "paid.csv") if separate else ()))
    assert not made["label_delay_measured"]
    assert "at least, correct it" in (project.directory / "model.py").read_text()


@pytest.mark.parametrize("named", ["weeks", "weeks/*.csv"])
def test_a_directory_or_a_pattern_is_read_as_a_load_reads_it(project: Project, named: str) -> None:
    frame = export(when=lambda at: f"{at:%Y-%m-%d %H:%M}", label=("1", "0"))
    (project.directory / "weeks").mkdir()
    for week in range(6):
        written(frame.slice(week * 100, 100), project.directory / "weeks" / f"w{week}.csv", ",")
    made = project.document("init", named, "--label", "Damage?")
    project.run(*shlex.split(made["next"][0])[1:])
    assert project.document("train")["rows_trained"] > 300
    (project.directory / "model.py").unlink()
    written(frame, project.directory / "weeks" / "other.csv", ";")
    assert "files with the separators ',' and ';'" in refusal_of(project, "init", named)["what"]
    assert refusal_of(project, "init", "none/*.csv")["code"] == "HF201"


def test_a_cumulative_export_of_labels_is_no_fault(project: Project) -> None:
    """Labels that were sent before are no fault; another value with the same key and time is one."""
    rows, labels = applications(60, known_after=9)
    (project.directory / "loans.csv").write_text("\n".join(rows) + "\n")
    (project.directory / "paid.csv").write_text("\n".join(labels[:100]) + "\n")
    project.run("init", "loans.csv", "--label", "Paid?", "--key", "Loan No", "--labels", "paid.csv")
    project.run("ingest", "rows", "loans.csv")
    project.run("ingest", "labels", "paid.csv")
    (project.directory / "all.csv").write_text("\n".join(labels[:102]) + "\n")
    printed = project.run("ingest", "labels", "all.csv")
    assert "2 rows, 99 sent again with the same values" in " ".join(printed.split())
    assert "quarantine" not in printed
    number, value, known = labels[1].split(";")
    other = f"{number};{'nein' if value == 'ja' else 'ja'};{known}"
    (project.directory / "other.csv").write_text("\n".join([labels[0], other, *labels[50:104]]) + "\n")
    (loaded,) = project.document("ingest", "labels", "other.csv")["batches"]
    assert loaded["reasons"] == {"loan_no+known|loaded": 1, "loan_no+known|repeated": 52}
    assert [each["check"] for each in loaded["violations"]] == ["duplicate_keys"]


def test_an_export_of_labels_with_nothing_new_changes_nothing(project: Project) -> None:
    rows, labels = applications(60, known_after=9)
    (project.directory / "loans.csv").write_text("\n".join(rows) + "\n")
    (project.directory / "paid.csv").write_text("\n".join(labels[:100]) + "\n")
    project.run("init", "loans.csv", "--label", "Paid?", "--key", "Loan No", "--labels", "paid.csv")
    project.run("ingest", "rows", "loans.csv")
    project.run("ingest", "labels", "paid.csv")
    (project.directory / "again.csv").write_text("\n".join([labels[0], *labels[99:0:-1]]) + "\n")
    assert project.document("check", "labels", "again.csv")["would_be"] == "nothing_new"
    assert "nothing new, 99 known with the same values" in " ".join(
        project.run("ingest", "labels", "again.csv").split()
    )
    done = project.document("ingest", "labels", "again.csv")
    assert (done["batches"][0]["state"], done["suspect"]) == ("nothing_new", [])
    (feed,) = project.document("feeds", "labels")["feeds"]
    assert (feed["totals"]["batches"], feed["open"]) == (1, [])
    broken = [*labels[:100], labels[1].replace("ja", "?").replace("nein", "?")]
    (project.directory / "broken.csv").write_text("\n".join(broken) + "\n")
    assert refusal_of(project, "ingest", "labels", "broken.csv")["code"] == "HF207", "its bad row is not lost"


def packed(data: bytes, codec: str) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, codec) as stream:
        stream.write(data)
    return bytes(out.getvalue())


def json_lines(frame: pl.DataFrame) -> bytes:
    """The export as a system writes it: numbers and truth values have their types, times are text."""
    typed = frame.with_columns(
        pl.col("Damage?") == "1", pl.col("Speed", "Cost").cast(pl.Float64, strict=False)
    )
    return typed.rename({"Damage?": "damage", "Record No": "no"}).write_ndjson().encode()


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv.zst", "rows.jsonl", "rows.jsonl.zst"])
def test_what_a_load_reads_init_reads(project: Project, name: str) -> None:
    frame = export(when=lambda at: f"{at:%Y-%m-%dT%H:%M:%SZ}", label=("1", "0"))
    data = json_lines(frame) if "json" in name else frame.write_csv().encode()
    codec = {".gz": "gzip", ".zst": "zstd"}.get(Path(name).suffix)
    (project.directory / name).write_bytes(packed(data, codec) if codec else data)
    label = "damage" if "json" in name else "Damage?"
    made = project.document("init", name, "--label", label)
    assert (made["data"], made["event_time"]) == (name, "when")
    project.run(*shlex.split(made["next"][0])[1:])
    assert project.document("train")["rows_trained"] > 300


@pytest.mark.process
def test_a_project_begins_with_objects_of_a_bucket(
    project: Project, bucket: Callable[[str, bytes], object]
) -> None:
    frame = export(when=lambda at: f"{at:%Y-%m-%d %H:%M}", label=("1", "0"))
    for part in range(2):
        bucket(f"begin/part{part}.csv.gz", packed(frame.slice(part * 300, 300).write_csv().encode(), "gzip"))
    made = project.document("init", "s3://deliveries/begin/", "--label", "Damage?")
    assert made["data"] == "s3://deliveries/begin/"
    assert "Suggested from s3://deliveries/begin/" in (project.directory / "model.py").read_text()
    project.run(*shlex.split(made["next"][0])[1:])
    assert project.document("train")["rows_trained"] > 300
    (project.directory / "model.py").unlink()
    refused = refusal_of(project, "init", "s3://deliveries/none.csv")
    assert (refused["code"], refused["state"]) == ("HF201", "nothing was written")


def test_files_of_several_kinds_are_refused_as_a_whole(project: Project) -> None:
    frame = export(when=lambda at: f"{at:%Y-%m-%d %H:%M}", label=("1", "0"))
    (project.directory / "in").mkdir()
    (project.directory / "in" / "a.csv").write_bytes(frame.write_csv().encode())
    (project.directory / "in" / "b.jsonl").write_bytes(json_lines(frame))
    refused = refusal_of(project, "init", "in")
    assert refused["code"] == "HF201"
    assert "several kinds, CSV and JSON lines" in refused["what"]
    assert not (project.directory / "model.py").exists()


def test_a_unit_in_the_words_of_a_header_is_declared(project: Project) -> None:
    frame = export(when=lambda at: f"{at:%Y-%m-%d %H:%M}", label=("1", "0"))
    written(
        frame.rename({"Speed": "Speed (IAS, mph)", "Cost": "Cost (min)"}), project.directory / "rows.csv", ";"
    )
    made = project.document("init", "rows.csv", "--label", "Damage?")
    source = (project.directory / "model.py").read_text()
    assert 'Number("speed_ias_mph", unit="mph"' in source
    assert 'Integer("cost_min", unit="1"' in source, "it may be a minimum"
    project.run(*shlex.split(made["next"][0])[1:])


def test_the_labels_that_are_held_out_are_counted(project: Project) -> None:
    """The average of a day is no count: the newest days here have fewer labels of the rarer class than those before."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    lines = [
        f"{n},{start + timedelta(hours=n):%Y-%m-%d %H:%M:%S},{int(n % (4 if n < 2_000 else 12) == 0)},{n % 7}"
        for n in range(3_000)
    ]
    (project.directory / "data.csv").write_text("\n".join(["id,at,late,size", *lines, ""]))
    made = project.document("init", "data.csv", "--label", "late", "--key", "id")
    source = (project.directory / "model.py").read_text()
    assert f"have {made['held_out_labels']} labels of the rarer class" in source
    project.run("ingest", "rows", "data.csv")
    held_out = project.document("train")["rows_held_out"]
    newest = [line.split(",") for line in lines[:3_000]][-held_out:]
    assert sum(row[2] == "1" for row in newest) == made["held_out_labels"]
