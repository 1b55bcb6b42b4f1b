"""`holdfast train` and `holdfast versions requirements`, as a person types them."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement

from tests.support.project import Project


def test_the_requirements_of_a_version_are_written_and_checked(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("init", "--name", "parcels")
    project.run("ingest", "rows", "parcels.csv")
    version = project.document("train")["version"]
    printed = project.run("versions", "requirements", version)
    project.run("versions", "requirements", version, "--out", "requirements.txt")
    written = (tmp_path / "requirements.txt").read_text()
    assert written.strip() == printed.strip()
    found = [Requirement(line).name for line in written.splitlines() if not line.startswith("#")]
    assert {"lightgbm", "onnxruntime", "scikit-learn"} <= set(found)
    assert "this environment is that of" in project.run("versions", "requirements", version, "--check")
    document = project.document("versions", "requirements", version, "--check")
    assert document["differences"] == {}


def test_a_repeated_training_names_the_version_that_it_repeats(tmp_path: Path) -> None:
    """HF403 named `holdfast train`, which printed "ok" for the same version, in a circle."""
    project = Project(tmp_path)
    project.run("init", "--name", "parcels")
    project.run("ingest", "rows", "parcels.csv")
    first = project.document("train")
    assert first["is_new"]
    again = project.run("train")
    assert again.startswith(
        f"no new version: the training rows, declaration and seed are those of {first['version']}"
    )
    assert f"next: holdfast qualify {first['version']}" in again
    project.run("qualify")
    again = project.run("train")
    assert (
        f"{first['version']} is qualified; newer rows give another version; next: holdfast ingest rows FILE"
        in again
    )
    document = project.document("train")
    assert (document["version"], document["is_new"]) == (first["version"], False)
    assert project.document("train", "--seed", "1")["is_new"]
