"""No text from outside moves a terminal's cursor, hides anything, turns the direction or begins a line of its own.

The ledger here is one of an earlier release, and each free text in it was replaced by a hostile one: what commands print is
made visible when it is printed, not only when it is written. The data of `--json` stay exact.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import tarfile
import unicodedata
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import String, Text, update

import holdfast.cli
from holdfast.cli.command_table import COMMANDS
from holdfast.cli.output import Output, escape
from holdfast.formatting import LONGEST_TEXT, visible
from holdfast.records import BatchId, Level, Severity, Violation
from holdfast.serve.operator_log import TextFormatter
from holdfast.store import Store
from holdfast.store.db import events, schema
from holdfast.store.db.schema import METADATA
from holdfast.store.feeds import admissions
from holdfast.store.telemetry import problems, quarantined_labels
from holdfast.store.telemetry.problems import NewProblem
from holdfast.store.telemetry.quarantined_labels import QuarantinedLabel
from tests.golden.write import GOLDEN
from tests.support.project import Finished, Project, run_here

MARK: Final = "EVIL"
ENDS: Final = ("\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
HOSTILE: Final = (
    "".join(f"{end}{MARK} is well " for end in ENDS)
    + "\x1b]0;pwn\x07\x1b[2J\x1b[31m\x9b2J\x00\x08\x7f"
    + "\u202etxt.exe\u202c\u2066a\u2069\u200e\u200f\u061c\u200b\ufeff[bold]b[/bold][/]"
)
NEWEST: Final = max(
    (each for each in GOLDEN.iterdir() if each.name.isdigit()), key=lambda each: int(each.name)
)
VERSION: Final = next(iter(json.loads((NEWEST / "expected.json").read_text())["versions"]))
FORBIDDEN: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)
NAMED: Final = {
    "accepted_by", "actor", "check_name", "gate", "holder", "labelled_by", "learner", "webhook",
}  # fmt: skip
"""Free texts in columns of a bounded length."""

READS: Final[dict[str, tuple[str, ...]]] = {
    "accept": ("accept rows hostile --reason {hostile}", "accept rows {hostile} --reason x"),
    "audit": ("audit",),
    "backout": (
        "backout rows hostile",
        "backout rows hostile --apply --reason {hostile}",
        "backout rows {hostile}",
    ),
    "backup": ("backup {hostile}",),
    "check": ("check", "check rows {file}", "check rows {missing}"),
    "compact": ("compact",),
    "contract": (
        "contract history",
        "contract show rows",
        "contract show {hostile}",
        "contract suggest {file} --name rows",
    ),
    "declaration": ("declaration history", "declaration show {hostile}"),
    "drill": ("drill",),
    "events": ("events",),
    "explain": ("explain", "explain 1"),
    "feedback": ("feedback {hostile} true",),
    "feeds": ("feeds", "feeds rows", "feeds {hostile}"),
    "ingest": (
        "ingest rows {file} --batch hostile",
        "ingest rows {file}",
        "ingest rows {missing}",
        "ingest {hostile} x",
    ),
    "init": ("init {file} --name other",),
    "labels": (
        "labels quarantined",
        "labels quarantined --source {hostile}",
        "labels drop --source {hostile}",
    ),
    "lineage": ("lineage rows/hostile", "lineage {version} --upstream", "lineage {hostile}"),
    "policy": ("policy",),
    "qualify": ("qualify {hostile}",),
    "quarantine": ("quarantine rows", "quarantine rows hostile", "quarantine {hostile}"),
    "rebuild-ledger": ("rebuild-ledger",),
    "replay": ("replay {hostile}",),
    "restore": ("restore {hostile}",),
    "rollback": ("rollback --reason {hostile}", "rollback --to {hostile}"),
    "rollout": (
        "rollout status",
        "rollout history",
        "rollout start {hostile}",
        "rollout pause --reason {hostile}",
        "rollout label 1 good --reason {hostile}",
    ),
    "runtime": ("runtime list", "runtime register {hostile}"),
    "servers": ("servers list --all", "servers forget {hostile}", "servers separate {hostile}"),
    "serving-config": ("serving-config get",),
    "snapshot": ("snapshot list", "snapshot show {hostile}"),
    "status": ("status",),
    "train": ("train --snapshot {hostile}",),
    "vacuum": ("vacuum",),
    "verify": ("verify",),
    "versions": ("versions requirements {version}",),
}
PROCESSES: Final = {"control", "demo", "page", "serve", "up"}
"""They print addresses and log; `TextFormatter` writes their logs."""


def clean(text: str) -> None:
    """Fail if a text from outside moved the cursor, hid, or began a line."""
    found = FORBIDDEN.search(text)
    assert found is None, f"{found[0]!r} in {text[max(0, found.start() - 60) : found.end() + 30]!r}"
    started = [line for line in text.split("\n") if line.lstrip().startswith(MARK)]
    assert started == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project that all commands are run in, one after the other."""
    return _make(tmp_path_factory.mktemp("hostile"))


def _make(directory: Path) -> Project:
    """A project of an earlier release, whose ledger is then filled with hostile texts, and a hostile delivery."""
    with tarfile.open(NEWEST / "project.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    project = Project(directory / "parcels")
    _fill(Store.open(project.directory / ".holdfast"))
    header, *rows = (project.directory / "parcels.csv").read_text().splitlines()
    names = header.split(",")
    cells = dict(zip(names, rows[0].split(","), strict=True)) | {names[0]: "h1", "town": f'"{HOSTILE}"'}
    wrong = dict(zip(names, rows[1].split(","), strict=True)) | {names[0]: "h2", "handed_in": f'"{HOSTILE}"'}
    lines = [header, ",".join(cells.values()), ",".join(wrong.values())]
    path = project.directory / f"file{HOSTILE.replace('/', '').replace(chr(0), '')}.csv"
    path.write_text("\n".join(lines) + "\n")
    (project.directory / "wide.csv").write_text(f'{header},"{HOSTILE}"\n{rows[0]},1\n')
    return project


def _fill(store: Store) -> None:
    now_us = 1_800_000_000_000_000
    with store.ledger.write() as connection:
        found = [Violation("volume", "town", Level.CRITICAL, "few rows")]
        admissions.refuse(connection, BatchId("rows", "hostile"), found, contract_hash="c", now_us=now_us)
        broken = NewProblem("parcels", "feed_refusing", "rows/hostile", Severity.ERROR, "why", "next")
        problems.find(connection, broken, now_us=now_us)
        held = QuarantinedLabel(None, f'{{"parcel":"{HOSTILE}"}}', 1.0, HOSTILE, now_us, "why")
        quarantined_labels.add(connection, "parcels", [held])
    with store.ledger.write() as connection:
        for table in METADATA.sorted_tables:
            for column in table.c:
                is_text = isinstance(column.type, Text) and not column.name.endswith("_json")
                is_named = isinstance(column.type, String) and column.name in NAMED
                if (is_text or is_named) and not column.primary_key:
                    connection.execute(update(table).values({column.name: column + HOSTILE}))
        loaded = schema.events.c.kind == "batch.published"
        subject = schema.events.c.subject + HOSTILE
        connection.execute(update(schema.events).where(loaded).values(subject=subject))
    store.ledger.close()


def run(project: Project, line: str) -> Finished:
    (path,) = project.directory.glob("file*.csv")
    hostile = HOSTILE.replace("\x00", "")  # no argument of a process can have one
    given = {
        "hostile": hostile,
        "file": str(path),
        "missing": f"no{hostile}.csv",
        "version": VERSION,
    }
    arguments = tuple(part.format(**given) if part.startswith("{") else part for part in shlex.split(line))
    return run_here(
        arguments, project.directory, project.environment | {"HOLDFAST_ACTOR": "ann", "USER": hostile}
    )


def test_every_command_is_driven() -> None:
    assert READS.keys() | PROCESSES == COMMANDS.keys()
    assert not READS.keys() & PROCESSES


@pytest.mark.parametrize("line", [each for lines in READS.values() for each in lines])
def test_what_a_command_prints_is_visible_and_begins_no_line(project: Project, line: str) -> None:
    finished = run(project, line)
    clean(finished.stdout)
    clean(finished.stderr)
    assert "HF901" not in finished.stderr


def test_the_texts_are_shown(tmp_path: Path) -> None:
    """What is not there at all cannot begin a line: the other tests prove nothing without this one."""
    project = _make(tmp_path)
    shown = {
        line: run(project, line).stdout
        for line in ("events", "status", "feeds rows", "explain 1", "labels quarantined")
    }
    assert {line: "\\x1b]0;pwn\\x07" in text for line, text in shown.items()} == dict.fromkeys(shown, True)
    assert "\\x1b]0;pwn" in run(project, "check rows {file}").stdout
    assert "\\u2029" in run(project, "check rows wide.csv").stderr


def test_the_data_of_json_stay_exact(project: Project) -> None:
    text = run(project, "events --json").stdout
    found = [json.loads(line) for line in text.split("\n") if line]
    assert any(HOSTILE in each["explanation"] for each in found)
    clean(text)


def test_an_event_is_written_visible_and_found_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for _ in range(2):
        with store.ledger.write() as connection:
            events.append_once(
                connection, at_us=1, kind="a.b", subject=f"v1/town={HOSTILE}", explanation=HOSTILE
            )
    with store.ledger.read() as connection:
        (event,) = events.newest(connection)
        about = {"subject": f"v1/town={HOSTILE}", "kind": "a.b"}
        assert events.is_reported(connection, explanation=HOSTILE, **about)
    clean(event.explanation + event.subject)


def test_a_log_has_a_text_from_outside_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("holdfast.serve").exception("request of %s", HOSTILE)
    lines = TextFormatter().format(caplog.records[-1])
    clean(lines)
    first, *rest = lines.split("\n")
    assert "request of" in first
    assert all(line.startswith("  | ") for line in rest)


@given(st.text(st.characters(categories=("Cc", "Cf", "Zl", "Zp", "Cs", "Lu", "Nd"))))
def test_any_text_is_visible_and_short(text: str) -> None:
    shown = visible(text)
    assert FORBIDDEN.search(shown) is None
    assert "\n" not in shown
    assert len(shown) <= LONGEST_TEXT
    assert not any(unicodedata.category(each) in ("Cc", "Zl", "Zp", "Cs") for each in shown)
    shown.encode()


def test_a_long_text_is_shortened() -> None:
    assert len(visible("\x1b" * 10**6)) == LONGEST_TEXT
    assert visible("x" * 10, 4) == "xxx…"


def test_output_shows_what_a_command_forgot_to_escape(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).print(f"batch {HOSTILE.replace(chr(10), ' ').replace('[', '(')}")
    clean(capsys.readouterr().out)
    assert escape("[red]a") == "\\[red]a"


def test_commands_escape_by_one_function() -> None:
    """`rich.markup.escape` leaves control characters as they are."""
    root = Path(holdfast.cli.__file__).parent
    found = [path.name for path in root.rglob("*.py") if "rich.markup" in path.read_text()]
    assert found == ["output.py"]
