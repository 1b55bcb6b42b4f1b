"""`compact`, `vacuum`, `backup`, `restore`, `rebuild-ledger` and `verify --repair`, as a person types them, right and wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.errors import HoldfastError, InputError, IntegrityError, NotFoundError
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db import schema
from holdfast.store.files import data_files


class Shell:
    """Runs commands in one project, in this process."""

    def __init__(self, directory: Path) -> None:
        load_commands("")
        self.directory = directory

    @property
    def root(self) -> Path:
        return self.directory / ".holdfast"

    def __call__(self, name: str, *arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(app, [name, *arguments, "--project", str(self.directory)])
        if isinstance(done.exception, HoldfastError):
            raise done.exception
        assert done.exit_code == status, (done.output, done.exception)
        return done.output

    def json(self, name: str, *arguments: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self(name, *arguments, "--json"))
        return document

    def rows(self) -> int:
        return int(self.json("verify")["rows"])


def _process(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "holdfast", *arguments, "--project", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of `holdfast init`, its example in four batches, and a version that was trained on the first three."""
    directory = tmp_path_factory.mktemp("parcels")
    shell = Shell(directory)
    shell("init", "--name", "parcels")
    header, *rows = (directory / "parcels.csv").read_text().splitlines()
    quarter = len(rows) // 4
    for number in range(4):
        path = directory / f"part-{number}.csv"
        path.write_text("\n".join([header, *rows[number * quarter : (number + 1) * quarter]]) + "\n")
        shell("ingest", "rows", str(path), "--batch", f"part-{number}")
        if number == 2:
            shell("train")
    return directory


@pytest.fixture
def shell(trained: Path, tmp_path: Path) -> Shell:
    """A copy of the project for one test."""
    return Shell(Path(shutil.copytree(trained, tmp_path / "parcels")))


def test_what_a_vacuum_shows_is_what_it_does_and_nothing_pinned_goes(shell: Shell) -> None:
    """R8: the version's snapshot is read, row for row, after a compaction and a vacuum that keeps as little as it can."""
    store = Store.open(shell.root)
    (snapshot,) = {each.snapshot for each in _versions(store)}
    before = data_files.read_rows(store, snapshot, "rows")
    put_together = shell.json("compact")["tables"]
    assert {each["table"]: each["files_after"] for each in put_together}["rows"] == 1
    requested = ("--keep", "0s", "--keep-last", "0")
    shown = shell.json("vacuum", *requested)
    assert (shown["applied"], list(shown["pinned"])) == (False, [snapshot])
    assert all((shell.root / path).exists() for path in shown["files"])
    done = shell.json("vacuum", *requested, "--apply")
    assert done["files"] == shown["files"]
    assert (
        len(done["files"]) >= 1
    )  # part 3 is in no snapshot; its single file goes, those of the snapshot stay
    assert not any((shell.root / path).exists() for path in done["files"])
    assert data_files.read_rows(store, snapshot, "rows").equals(before)
    assert shell.json("vacuum", *requested)["files"] == []
    assert shell.json("verify")["clean"]


def _versions(store: Store) -> list[Any]:
    with store.ledger.read() as connection:
        return list(connection.execute(select(schema.versions)))


def test_a_reader_whose_rows_are_vacuumed_is_informed_of_the_vacuum(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R8: it has looked its files up, and a vacuum comes before it opens them."""
    store = Store.open(shell.root)
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
    shell("compact")
    read = data_files.read

    def late(*arguments: Any, **more: Any) -> Any:
        shell("vacuum", "--keep", "0s", "--keep-last", "0", "--apply")
        return read(*arguments, **more)

    monkeypatch.setattr(data_files, "read", late)
    with pytest.raises(NotFoundError, match=r"HF315: a vacuum removed \d+ files of version \d+ while"):
        data_files.read_rows(store, version, "rows")


def test_a_missing_file_is_no_vacuum(shell: Shell) -> None:
    store = Store.open(shell.root)
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
        victim = data_files.entries(connection, "rows", version)[0]
    (shell.root / victim.path).unlink()
    with pytest.raises(IntegrityError, match=r"HF301.*is missing"):
        data_files.read_rows(store, version, "rows")


@pytest.mark.process
def test_backup_and_restore_as_processes(shell: Shell, tmp_path: Path) -> None:
    """The backup is taken, the store is lost, and comes back; restored once more over it, it is refused."""
    kept, rows = tmp_path / "kept", shell.rows()
    taken = _process(shell.directory, "backup", str(kept))
    assert (taken.returncode, "backup" in taken.stdout) == (0, True), taken.stderr
    refused = _process(shell.directory, "restore", str(kept))
    assert refused.returncode == 2
    assert "HF306" in refused.stderr + refused.stdout
    assert "is not empty" in refused.stderr + refused.stdout
    assert shell.rows() == rows
    shutil.rmtree(shell.root)
    back = _process(shell.directory, "restore", str(kept))
    assert (back.returncode, "is restored" in back.stdout) == (0, True), back.stderr
    assert shell.rows() == rows


@pytest.mark.process
def test_a_backup_goes_neither_into_the_store_nor_onto_a_disk_without_room(
    shell: Shell, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"HF306.*is inside the store"):
        shell("backup", str(shell.root / "kept"))
    assert not (shell.root / "kept").exists()
    with pytest.raises(InputError, match=r"HF306.*is inside the store"):
        shell("backup", str(shell.root))
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("name spaces cannot be made here")
    small = tmp_path / "small"
    small.mkdir()
    command = f"{sys.executable} -m holdfast backup {small}/kept --project {shell.directory}"
    script = f"mount -t tmpfs -o size=100k tmpfs {small} && exec {command}"
    ran = subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount" in ran.stderr and "HF" not in ran.stderr:
        pytest.skip("nothing can be mounted here")
    assert ran.returncode == 75
    reported = " ".join((ran.stderr + ran.stdout).split())
    assert "HF306" in reported
    assert "No space left" in reported
    assert "Traceback" not in reported


def test_a_lost_ledger_is_made_again_and_the_model_trains_on(shell: Shell) -> None:
    """The whole way back by hand: rebuild-ledger, verify, accept, train. The snapshot comes back with the declaration."""
    rows, versions = shell.rows(), {each.version for each in _versions(Store.open(shell.root))}
    for path in shell.root.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(IntegrityError, match=r"HF309.*lost.*rebuild-ledger"):
        shell("status")
    done = shell.json("rebuild-ledger")
    assert (done["batches"], done["not_rebuilt"], len(done["snapshots"])) == (4, [], 1)
    assert set(done["versions"]) == versions
    assert shell.json("verify")["clean"]
    assert shell.rows() == rows
    with pytest.raises(HoldfastError, match=r"HF208.*rows/part-0"):
        shell("train")
    shell("accept", "rows", "--all", "--reason", "compared with the sender's own books")
    assert "v" in shell("train")
    with pytest.raises(InputError, match=r"HF306.*the ledger is not lost"):
        shell("rebuild-ledger")
    assert shell.rows() == rows


def test_verify_repair_repairs_from_a_backup_and_reports_what_it_cannot(shell: Shell, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shell("backup", str(kept))
    victim = sorted((shell.root / "rows").iterdir())[0]
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "HF301" in shell("verify", status=1)
    assert "HF305" in shell("verify", "--repair", status=1)
    repaired = shell("verify", "--repair", "--backup", str(kept))
    assert "restored" in repaired
    assert victim.read_bytes() == data
    with pytest.raises(InputError, match="HF101"):
        shell("verify", "--repair", "--quick")
