"""R25, "map": what `check` and `ingest` print of aliases, and how their changes are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.cli import app

MODEL = """
from holdfast import (
    Category, Contract, Feed, GroupMean, Integer, Label, LogisticRegression, Model, Number, Ordinal, Passthrough, Timestamp,
)

columns = (
    Integer("id"), Timestamp("at", tz="UTC"), Number("size", unit="1"),
    Category("town", values=("New York", "Oslo"), unseen="reject", aliases=ALIASES),
)
whole = Contract(*columns, key="id", event_time="at", label=Label("late", delay="1h"))
rows = Feed("trips", whole)
model = Model(
    "site", examples=rows, feeds=(rows,), contract=whole, features=(Passthrough("size"),), learner=LogisticRegression(),
    heuristic=GroupMean(by=(Ordinal("town"),)),
)
"""
ALIASES = {"NYC": "New York", "[red]ny\x1b": "New York", **{f"o{number}": "Oslo" for number in range(6)}}


class Project:
    """A project in the working directory, and the command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def declare(self, aliases: dict[str, str]) -> None:
        Path("model.py").write_text(MODEL.replace("ALIASES", repr(aliases)))

    def run(self, *arguments: str) -> tuple[int, str]:
        self._monkeypatch.setattr("sys.argv", ["holdfast", *arguments])
        with pytest.raises(SystemExit) as ended:
            app.main()
        shown = self._capsys.readouterr()
        return int(ended.value.code or 0), shown.out + shown.err


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Project(monkeypatch, capsys)


def write(name: str, towns: list[str], first: int = 0) -> None:
    rows = [f"{first + n},2026-01-02T00:00:{n:02}Z,1,{town},true" for n, town in enumerate(towns)]
    Path(name).write_text("\n".join(["id,at,size,town,late", *rows]) + "\n")


def test_values_that_were_aliases_are_counted_for_each(project: Project) -> None:
    project.declare(ALIASES)
    write("d1.csv", ["NYC", "NYC", "New York", "[red]ny\x1b", *(f"o{number}" for number in range(6))])
    counts = {"NYC": 2, "[red]ny\x1b": 1, **{f"o{number}": 1 for number in range(6)}}
    for arguments in (["check", "trips", "d1.csv"], ["ingest", "trips", "d1.csv"]):
        if arguments[0] == "check":
            status, text = project.run(*arguments, "--json")
            assert (status, json.loads(text)["aliases"]) == (0, {"town": counts})
        status, text = project.run(*arguments)
        assert status == 0
        assert "town: read 2 'NYC' as 'New York', 1 '[red]ny\\x1b' as 'New York', 1 'o0' as 'Oslo'" in text
        assert "and 3 other aliases" in text
    write("d2.csv", ["NYC"], first=90)
    status, text = project.run("ingest", "trips", "d2.csv", "--json")
    assert [each["aliases"] for each in json.loads(text)["batches"]] == [{"town": {"NYC": 1}}]


def test_changes_of_aliases_are_reported_and_a_new_meaning_refused(project: Project) -> None:
    project.declare({"NYC": "New York"})
    write("d1.csv", ["NYC", "Oslo"])
    assert project.run("ingest", "trips", "d1.csv")[0] == 0
    # One more alias goes through.
    project.declare({"NYC": "New York", "OSL": "Oslo"})
    write("d2.csv", ["OSL", "NYC"], first=10)
    assert project.run("ingest", "trips", "d2.csv")[0] == 0
    status, text = project.run("declaration", "diff", "1")
    assert status == 0
    assert "aliases[OSL]" in text
    # Another meaning does not: the loaded rows were read by the old one.
    project.declare({"NYC": "Oslo", "OSL": "Oslo"})
    write("d3.csv", ["NYC"], first=20)
    status, text = project.run("ingest", "trips", "d3.csv")
    assert status == 1
    assert "HF210" in text
    assert "alias stands for another word" in text


def test_a_word_that_the_values_do_not_list_is_reported_by_check_ingest_status_and_events(
    project: Project,
) -> None:
    """R25: it was accepted as any other word, and reported nowhere."""
    project.declare({})
    Path("model.py").write_text(Path("model.py").read_text().replace('unseen="reject"', 'unseen="other"'))
    write("d1.csv", ["Oslo"] * 50 + ["Par\x1b[2Jis"] * 5)
    reported = 'unseen_words town: town: "Par\\u001b[2Jis" (9.1%) of the rows, and its values do not list it'
    for arguments in (
        ["check", "trips", "d1.csv"],
        ["ingest", "trips", "d1.csv"],
        ["status"],
        ["feeds", "trips"],
    ):
        status, text = project.run(*arguments)
        assert status == 0, text
        assert '"Par\\u001b[2Jis"' in text, arguments
        assert "\x1b" not in text
        if arguments[0] in ("check", "ingest"):
            assert reported in text
    status, text = project.run("check", "trips", "d1.csv", "--json")
    assert json.loads(text)["would_be"] == "already_loaded"
