"""A user's loans by commands alone: files without labels, labels weeks later in a file of their own, and their back-out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.project import Project

START = datetime(2024, 1, 1, tzinfo=UTC)
A_WEEK = 70
OUTCOMES = """outcomes = Feed(
    "outcomes",
    Contract(
        Text("id"), Boolean("repaid"), Timestamp("known_at", tz="UTC"), key=("id", "known_at"), event_time="known_at"
    ),
    labels_for="rows",
)

model = Model("""


def loan_time(number: int, *, later: timedelta = timedelta(0)) -> str:
    return f"{START + timedelta(weeks=1) * number / A_WEEK + later:%Y-%m-%dT%H:%M:%SZ}"


def repaid(number: int) -> str:
    return "true" if number * 37 % 100 < 30 + number % 11 else "false"


def loans(weeks: range, *, labelled: bool) -> str:
    numbers = range(weeks.start * A_WEEK, weeks.stop * A_WEEK)
    lines = [f"l{number},{number * 37 % 100}.5,{loan_time(number)}" for number in numbers]
    if labelled:
        lines = [f"{line},{repaid(number)}" for line, number in zip(lines, numbers, strict=True)]
    return "\n".join(["id,income,at" + ",repaid" * labelled, *lines, ""])


def test_loans_whose_labels_come_weeks_later(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (tmp_path / "loans.csv").write_text(loans(range(6), labelled=True))
    (tmp_path / "week6.csv").write_text(loans(range(6, 7), labelled=False))
    known = [
        f"l{number},{repaid(number)},{loan_time(number, later=timedelta(days=20))}"
        for number in range(6 * A_WEEK, 7 * A_WEEK)
    ]
    (tmp_path / "labels6.csv").write_text("\n".join(["id,repaid,known_at", *known, ""]))
    project.run(
        *["init", "loans.csv", "--label", "repaid", "--key", "id", "--event-time", "at", "--tz", "UTC"]
    )
    project.run("ingest", "rows", "loans.csv")
    assert 'missing="keep"' in project.refused("ingest", "rows", "week6.csv", expect=2), (
        "the error names the way"
    )

    declared = (tmp_path / "model.py").read_text()
    for old, new in (
        ('delay="1d"', 'delay="1d", missing="keep"'),
        ("from holdfast import (", "from holdfast import (\n    Boolean,"),
        ("feeds=(rows,)", "feeds=(rows, outcomes)"),
        ("model = Model(", OUTCOMES),
    ):
        assert declared.count(old) == 1, old
        declared = declared.replace(old, new)
    (tmp_path / "model.py").write_text(declared)
    (loaded,) = project.document("ingest", "rows", "week6.csv")["batches"]
    assert (loaded["rows_loaded"], loaded["violations"]) == (A_WEEK, [])
    assert project.document("train")["rows_unlabelled"] == A_WEEK
    project.run("ingest", "outcomes", "labels6.csv")
    trained = project.document("train")
    assert trained["rows_unlabelled"] == 0
    backed_out = project.document("backout", "outcomes", "labels6", "--apply", "--reason", "a wrong month")
    assert trained["version"] in str(backed_out)
    assert project.document("train")["rows_unlabelled"] == A_WEEK
