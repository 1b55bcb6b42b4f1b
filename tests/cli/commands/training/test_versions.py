"""`holdfast versions requirements`: the environment of a version, as a file for pip and as a check."""

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
