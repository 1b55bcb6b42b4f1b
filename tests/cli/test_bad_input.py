"""Bad input at the command line: a clear error with code, state and next command; never a traceback, never a lost row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.cli.command_table import COMMANDS
from holdfast.errors import HoldfastError

load_commands("")

HEAD = "parcel,handed_in,town,weight_kg,express,late\n"
GOOD = "p1,2026-01-01T00:00:00Z,oslo,1.5,true,false\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project, made once."""
    directory = tmp_path_factory.mktemp("template") / "parcels"
    assert CliRunner().invoke(app, ["init", "--name", "parcels", "--project", str(directory)]).exit_code == 0
    return directory


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy of the project, to do anything with."""
    return Path(shutil.copytree(template, tmp_path / "parcels"))


def run(project: Path, *arguments: str) -> dict:
    """What a command printed as JSON, or the error that it raised."""
    done = CliRunner().invoke(app, [*arguments, "--project", str(project), "--json"])
    if isinstance(done.exception, HoldfastError):
        return done.exception.as_dict()
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "HF201"),
        (b"", "HF201"),
        (b"\x00\x01\x02\xff" * 40, "HF201"),
        (b"parcel,town\np1,oslo\n", "HF202"),
        (HEAD.replace("town", "city").encode() + GOOD.encode(), "HF202"),
        (
            HEAD.replace("late", "late,extra").encode() + GOOD.replace("false\n", "false,1\n").encode(),
            "HF202",
        ),
        (HEAD.encode(), "HF204"),
        (HEAD.encode() + b"p1,yesterday,oslo,1.5,true,false\n", "HF204"),
    ],
    ids=["absent", "empty", "binary", "columns missing", "renamed", "extra", "no row", "no valid row"],
)
def test_a_file_that_cannot_be_used(project: Path, content: bytes | None, code: str) -> None:
    file = project / "delivery.csv"
    if content is not None:
        file.write_bytes(content)
    reported = run(project, "ingest", "rows", str(file))
    assert reported["code"] == code, reported
    assert reported["what"]
    assert reported["state"]
    assert run(project, "verify")["findings"] == []


def test_a_unit_that_no_double_converts_is_refused(project: Path) -> None:
    """A sender writes the unit, also the one in the metadata of a Parquet field."""
    lines = [GOOD.replace("p1", f"p{number}") for number in range(3)]
    frame = pl.read_csv((HEAD + "".join(lines)).encode(), try_parse_dates=True)
    table = frame.to_arrow()
    place = table.schema.get_field_index("weight_kg")
    stated = table.schema.field(place).with_metadata({"unit": "Ym^9*Ym^9/m^9/m^8"})
    file = project / "delivery.parquet"
    pq.write_table(table.cast(table.schema.set(place, stated)), file)
    for command in ("check", "ingest"):
        reported = run(project, command, "rows", str(file))
        assert reported["code"] == "HF202", reported
        assert "'Ym^9*Ym^9/m^9/m^8', which does not convert" in reported["what"]


BAD = ("heavy", '"1,5"', "9" * 30 + "x" + "9" * 30, "heavy")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("p2,2026-01-01T00:00:00Z,oslo,NaN,true,false", "weight_kg|not_finite"),
        ("p2,2026-01-01T00:00:00Z,oslo,-3,true,false", "weight_kg|range"),
        ("p2,2026-01-01T00:00:00Z,oslo,heavy,true,false", "weight_kg|type"),
        ("p2,2026-01-01 00:00:00,oslo,1,true,false", "handed_in|zone"),
        ("p2,2026-01-01T00:00:00Z,,1,true,false", "town|missing"),
        ("p1,2026-01-01T00:00:00Z,oslo,1,true,false", "parcel|duplicate"),
        ("p\x00,2026-01-01T00:00:00Z,oslo,1,true,false", "parcel|nul"),
    ],
)
def test_a_bad_row_goes_to_quarantine_and_the_good_one_is_loaded(
    project: Path, row: str, reason: str
) -> None:
    (project / "delivery.csv").write_text(HEAD + GOOD + row + "\n")
    (batch,) = run(project, "ingest", "rows", str(project / "delivery.csv"))["batches"]
    assert (batch["rows_loaded"], batch["rows_quarantined"]) == (1, 1)
    assert batch["reasons"] == {reason: 1}


def test_the_values_that_no_row_is_valid_for_are_shown(project: Path) -> None:
    """By `check` and by the refusal itself: bounded, and on one line; the quarantine states why it is empty."""
    rows = "".join(f"p{n},2026-01-0{n}T00:00:00Z,oslo,{value},true,false\n" for n, value in enumerate(BAD, 1))
    (project / "delivery.csv").write_text(HEAD + rows)
    checked = run(project, "check", "rows", str(project / "delivery.csv"))
    shown = ['"heavy"', '"1,5"', f'"{"9" * 30}x{"9" * 9}..."']
    assert checked["offending"] == {"weight_kg|type": shown}
    refused = run(project, "ingest", "rows", str(project / "delivery.csv"))
    assert f"4 weight_kg|type (such as {' and '.join(shown)})" in refused["what"]
    assert run(project, "quarantine", "rows")["refused"] == ["delivery"]
    assert run(project, "quarantine", "rows", "delivery")["refused"] == ["delivery"]


def test_four_byte_text_is_only_an_unknown_category(project: Path) -> None:
    (project / "delivery.csv").write_text(HEAD + GOOD.replace("oslo", "\N{AIRPLANE DEPARTURE}"))
    (batch,) = run(project, "ingest", "rows", str(project / "delivery.csv"))["batches"]
    assert (batch["rows_loaded"], batch["rows_quarantined"]) == (1, 0)


def test_the_same_id_with_other_content_is_refused(project: Path) -> None:
    file = project / "delivery.csv"
    file.write_text(HEAD + GOOD)
    run(project, "ingest", "rows", str(file))
    file.write_text(HEAD + GOOD.replace("1.5", "2.5"))
    reported = run(project, "ingest", "rows", str(file))
    assert reported["code"] == "HF203"
    assert "unchanged" in reported["state"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["ingest", "nothing", "parcels.csv"], "HF303"),
        (["train"], "HF410"),
        (["qualify"], "HF303"),
        (["qualify", "v9-00000000"], "HF303"),
        (["rollout", "start"], "HF303"),
        (["rollback"], "HF303"),
        (["feedback", "s-1-1", "maybe"], "HF101"),
        (["feedback", "s1-1-1"], "HF101"),
        (["feedback", "--key", "nowhere=1", "true"], "HF101"),
        (["feedback", "--key", "parcel=1", "s1-1-1", "true"], "HF101"),
        (["train", "--file", "absent.py"], "HF102"),
    ],
)
def test_a_command_that_has_nothing_to_work_on_reports_what_to_do(
    project: Path, arguments: list[str], code: str
) -> None:
    reported = run(project, *arguments)
    assert reported["code"] == code
    assert reported["next_command"] or reported["state"]


def test_a_model_file_that_cannot_be_run_names_the_line(project: Path) -> None:
    (project / "model.py").write_text("import holdfast\n\nmodel = holdfast.Model(1 / 0)\n")
    reported = run(project, "check")
    assert reported["code"] == "HF102"
    assert "line 3" in reported["what"]
    (project / "model.py").write_text("x = 1\n")
    assert "declares no" in run(project, "check")["what"]


def test_every_command_is_found_in_the_module_that_is_named_for_it() -> None:
    registered = {command.name for command in app.registered_commands}
    groups = {group.typer_instance.info.name for group in app.registered_groups if group.typer_instance}
    assert registered | groups == set(COMMANDS)
