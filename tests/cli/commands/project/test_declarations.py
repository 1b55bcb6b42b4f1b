"""`holdfast declaration`: what was declared when, as events, a comparison and a way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import Project

HEAD = "parcel,handed_in,town,weight_kg,express,late\n"
VOLUME, LOWER = "rows=Volume(", "rows=Volume(at_least=3, "


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The project of `holdfast init` with one loaded day."""
    made = Project(tmp_path)
    made.run("init", "--name", "parcels")
    ingest(made, 1)
    return made


def ingest(project: Project, day: int) -> None:
    """Load the rows of one day."""
    name = f"day-{day}.csv"
    rows = [f"p{day}{n},2026-01-0{day}T0{n}:00:00Z,oslo,1.5,true,false\n" for n in range(6)]
    (project.directory / name).write_text(HEAD + "".join(rows))
    project.run("ingest", "rows", name)


def edit(project: Project, old: str, new: str) -> bytes:
    """Edit the model file; return what it was."""
    file = project.directory / "model.py"
    before = file.read_bytes()
    assert old in before.decode()
    file.write_bytes(before.replace(old.encode(), new.encode()))
    return before


def declarations(project: Project, name: str) -> list[dict[str, Any]]:
    """The recorded declarations of a feed or model."""
    return list(project.document("declaration", "history", name)["declarations"])


def changes(project: Project) -> list[dict[str, Any]]:
    """The events that report a changed declaration."""
    found = [json.loads(line) for line in project.run("events", "--json").splitlines()]
    return [each for each in found if each["kind"] == "declaration.changed"]


def test_an_edit_of_the_model_file_is_an_event_with_its_field(project: Project) -> None:
    assert changes(project) == []  # the first declaration is no change
    edit(project, VOLUME, LOWER)
    project.run("status")  # a command that only reads records nothing
    assert changes(project) == []
    ingest(project, 2)
    ingest(project, 3)
    (event,) = changes(project)
    assert event["subject"] == "parcels"
    assert "feeds[rows].expects.rows.at_least" in event["explanation"]


def test_each_load_is_counted_for_the_declaration_of_its_feed_that_judged_it(project: Project) -> None:
    before = edit(project, VOLUME, LOWER)
    ingest(project, 2)
    ingest(project, 3)
    (project.directory / "model.py").write_bytes(before)
    ingest(project, 4)
    found = declarations(project, "rows")
    assert [each["loads"] for each in found] == [1, 2, 1]
    assert found[0]["digest"] == found[2]["digest"] != found[1]["digest"]


def test_an_earlier_declaration_is_restored_to_the_byte(project: Project) -> None:
    first = declarations(project, "parcels")[0]["declaration"]
    (project.directory / "bounds.py").write_text("AT_LEAST = 3\n")
    before = edit(project, VOLUME, "rows=Volume(at_least=bounds.AT_LEAST, ")
    edit(project, "from holdfast import", "import bounds\nfrom holdfast import")
    edited = (project.directory / "model.py").read_bytes()
    ingest(project, 2)
    second = declarations(project, "parcels")[-1]
    assert second["files"] == ["bounds.py", "model.py"]
    (shown,) = project.document("declaration", "diff", str(first))["changes"]
    assert shown["field"] == "feeds[rows].expects.rows.at_least"

    done = project.document("declaration", "restore", str(first), "--reason", "it refuses too much")
    assert (project.directory / "model.py").read_bytes() == before
    assert (project.directory / "model.py.replaced").read_bytes() == edited
    assert done["written"] == ["model.py"]
    ingest(project, 3)
    assert declarations(project, "parcels")[-1]["digest"] == declarations(project, "parcels")[0]["digest"]

    (project.directory / "bounds.py").unlink()
    project.run("declaration", "restore", str(second["declaration"]), "--reason", "and back")
    assert (project.directory / "bounds.py").read_text() == "AT_LEAST = 3\n"
    assert (project.directory / "model.py").read_bytes() == edited


def test_a_comment_is_a_change_of_text_alone(project: Project) -> None:
    edit(project, "from holdfast import", "# a comment\nfrom holdfast import")
    ingest(project, 2)
    (event,) = changes(project)
    assert "no field changed; text of model.py changed" in event["explanation"]
    assert len(declarations(project, "rows")) == 1


def test_the_declaration_of_a_feed_has_no_files_to_restore(project: Project) -> None:
    feed = declarations(project, "rows")[0]["declaration"]
    error = project.refused("declaration", "restore", str(feed), "--reason", "why", expect=2)
    assert "HF101" in error
