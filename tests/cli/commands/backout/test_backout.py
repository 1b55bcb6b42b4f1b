"""`holdfast backout` and `holdfast lineage`, as a person types them, on a new user's project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.errors import HoldfastError, InputError, NotFoundError, RefusedError


class Shell:
    """Runs commands in one project, in this process."""

    def __init__(self, directory: Path) -> None:
        load_commands("")
        self.directory = directory

    def __call__(self, name: str, *arguments: str) -> str:
        done = CliRunner().invoke(app, [name, *arguments, "--project", str(self.directory)])
        if isinstance(done.exception, HoldfastError):
            raise done.exception
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    def json(self, name: str, *arguments: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self(name, *arguments, "--json"))
        return document


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The project of `holdfast init`, its example in two batches, and a version that was trained on both."""
    directory = tmp_path_factory.mktemp("parcels")
    shell = Shell(directory)
    shell("init", "--name", "parcels")
    header, *rows = (directory / "parcels.csv").read_text().splitlines()
    half = len(rows) // 2
    for name, part in (("first", rows[:half]), ("second", rows[half:])):
        path = directory / f"{name}.csv"
        path.write_text("\n".join([header, *part]) + "\n")
        shell("ingest", "rows", str(path), "--batch", name)
    shell("train")
    return shell


def test_a_plan_is_shown_and_then_done(shell: Shell) -> None:
    """R6, R7, R10, R11: the same steps, first shown, then done; the second time reports it."""
    trained = shell.json("lineage", "rows/second")
    versions = [node["name"] for node in trained["nodes"] if node["kind"] == "version"]
    assert len(versions) == 2  # the candidate and its heuristic
    shown = shell("backout", "rows", "second", "--cost-per-prediction", "0.5")
    assert "nothing was changed" in shown
    assert "remove rows/second (load 0)" in shown
    assert all(version in shown for version in versions)
    assert "--apply --reason" in shown
    plan = shell.json("backout", "rows", "second")
    with pytest.raises(InputError, match=r"HF101.*--reason"):
        shell("backout", "rows", "second", "--apply")
    with pytest.raises(InputError, match=r"HF101.*--rebuild requires --apply"):
        shell("backout", "rows", "second", "--rebuild")
    done = shell.json("backout", "rows", "second", "--apply", "--reason", "the scales were wrong")
    assert (done["state"], done["reason"]) == ("backed_out", "the scales were wrong")
    assert done["steps"] == plan["steps"]
    assert done["impact"]["versions"] == 2
    again = shell("backout", "rows", "second", "--apply", "--reason", "once more")
    assert "was backed out before" in again
    assert "the scales were wrong" in again
    with pytest.raises(NotFoundError, match="HF211"):
        shell("backout", "rows", "second")

    walked = shell.json("lineage", "rows/second")
    assert [node["kind"] for node in walked["nodes"]] == ["batch", "snapshot", "version", "version"]
    assert all(node["tainted"] for node in walked["nodes"])
    tree = shell("lineage", versions[0], "--upstream")
    assert "batch rows/second@0 (backed out)" in tree
    assert "batch rows/first@0" in tree
    assert f"version {versions[0]} (tainted)" in tree
    table = shell("status").splitlines()
    assert all(any(version in line and ", tainted" in line for line in table) for version in versions)
    with pytest.raises(RefusedError, match=r"HF406.*rows/second"):
        shell("qualify", versions[0])
    snapshot = next(node["name"] for node in walked["nodes"] if node["kind"] == "snapshot")
    with pytest.raises(RefusedError, match=r"HF406.*snapshot"):
        shell("train", "--snapshot", snapshot)


@pytest.mark.process
def test_the_corrected_batch_is_loaded_under_the_same_id_and_built_again(shell: Shell) -> None:
    """R6, R9: and a back-out of the other half builds again what it taints, in the same command."""
    loaded = shell.json("ingest", "rows", str(shell.directory / "second.csv"), "--batch", "second")
    assert loaded["batches"][0]["epoch"] == 1
    shell("train")
    done = shell.json("backout", "rows", "first", "--apply", "--reason", "half of it was late", "--rebuild")
    rebuilt = done["rebuilt"]
    assert rebuilt["state"] in ("qualified", "registered", "refused")
    assert (rebuilt["rollout_id"] is not None) == (rebuilt["state"] == "qualified")
    above = shell.json("lineage", rebuilt["version"], "--upstream")
    assert [node["name"] for node in above["nodes"] if node["kind"] == "batch"] == ["rows/second@1"]


def test_a_feed_that_is_no_longer_declared_can_be_backed_out(tmp_path: Path) -> None:
    """R6: the ledger knows the batch, whatever the model declares by now; a name that was never used is reported."""
    shell = Shell(tmp_path)
    shell("init", "--name", "parcels")
    shell("ingest", "rows", str(tmp_path / "parcels.csv"), "--batch", "first")
    model = tmp_path / "model.py"
    model.write_text(model.read_text().replace('"rows"', '"lines"'))
    with pytest.raises(NotFoundError, match=r"HF303.*there is no feed 'row'"):
        shell("backout", "row", "first")
    assert "remove rows/first (load 0)" in shell("backout", "rows", "first")
    done = shell.json("backout", "rows", "first", "--apply", "--reason", "the sender is gone")
    assert done["state"] == "backed_out"
