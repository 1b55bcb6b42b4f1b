"""What a store holds is of the user that made it: no other user of the machine reads it, or holds a lock of it (B8)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from holdfast.errors import UnavailableError
from holdfast.feedback import LabelRules
from holdfast.store.durability import access
from holdfast.store.serving import label_rules
from tests.support.project import Finished, Project, run_here

OTHER_USER = 65534
GROUP = 4711
needs_root = pytest.mark.skipif(
    os.getuid() != 0, reason="acting as a second user takes the rights of root (setuid)"
)


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """Begin each test with a umask that takes nothing away, and end it with that of before."""
    before = os.umask(0)
    yield
    access.declare(group=False)
    os.umask(before)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own are closed to others."""
    made = Path(tempfile.mkdtemp(prefix="holdfast-private-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def run(project: Project, *arguments: str, **settings: str) -> Finished:
    return run_here(arguments, project.directory, project.environment | settings)


def make(directory: Path, **settings: str) -> Project:
    """A project with a load, a refused delivery, a snapshot and a backup, each by its command."""
    project = Project(directory)
    assert run(project, "init", "--name", "parcels", **settings).status == 0
    (directory / "none.csv").write_text("parcel\n1\n")
    ended = [
        run(project, *command, **settings).status
        for command in (
            ("ingest", "rows", "parcels.csv"),
            ("ingest", "rows", "none.csv"),
            ("snapshot", "create"),
            ("backup", "copy"),
        )
    ]
    assert ended == [0, 2, 0, 0]
    return project


def modes(root: Path) -> dict[str, set[str]]:
    """The modes of the files and of the directories of a store."""
    found: dict[str, set[str]] = {"files": set(), "directories": {oct(stat.S_IMODE(root.stat().st_mode))}}
    for path in root.rglob("*"):
        kind = "directories" if path.is_dir() else "files"
        found[kind].add(oct(stat.S_IMODE(path.stat().st_mode)))
    return found


def as_other_user(act: Callable[[], object], groups: Sequence[int] = ()) -> str:
    """Call `act` as another user, of these groups; return the name of the error that it raised, or "done"."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups(list(groups))
            os.setgid(OTHER_USER)
            os.setuid(OTHER_USER)
            act()
            os.write(writer, b"done")
        except BaseException as error:
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as result:
        return result.read()


def hold(path: Path) -> None:
    """Hold the lock of a file, for which the right to read it is enough."""
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_every_file_is_of_its_owner_alone_whatever_the_umask(directory: Path, umask: int) -> None:
    os.umask(umask)
    project = make(directory)
    private = {"files": {"0o600"}, "directories": {"0o700"}}
    assert modes(project.directory / ".holdfast") == private
    assert modes(project.directory / "copy") == private, "a backup holds what the store holds"


def test_a_declared_group_shares_the_store_and_no_other_user(directory: Path) -> None:
    os.umask(0o022)
    project = make(directory, HOLDFAST_ACCESS="group")
    found = modes(project.directory / ".holdfast")
    assert found == {"files": {"0o660"}, "directories": {"0o2770"}}
    assert "warning" not in run(project, "status", HOLDFAST_ACCESS="group").stderr


def test_a_root_that_is_switched_to_a_group_is_shared_whole(directory: Path) -> None:
    """Files and directories of before were still of their owner alone, and new files in them of its first group."""
    os.umask(0o077)
    project = make(directory)
    root = project.directory / ".holdfast"
    (root / "serve" / "parcels").mkdir(parents=True)
    label_rules.save(root / "serve" / "parcels", LabelRules("first", bytes(32)))
    assert modes(root) == {"files": {"0o600"}, "directories": {"0o700"}}
    assert run(project, "status", HOLDFAST_ACCESS="group").stderr == ""
    assert modes(root) == {"files": {"0o660"}, "directories": {"0o2770"}}
    assert run(project, "ingest", "rows", "parcels.csv", "--batch", "b2", HOLDFAST_ACCESS="group").status in (
        0,
        1,
    )
    assert modes(root) == {"files": {"0o660"}, "directories": {"0o2770"}}


@needs_root
def test_a_second_server_user_of_the_group_reads_the_secret_and_no_other_does(directory: Path) -> None:
    project = make(directory, HOLDFAST_ACCESS="group")
    root, kept = project.directory / ".holdfast", project.directory / ".holdfast" / "serve" / "parcels"
    access.declare(group=True)
    label_rules.save(kept, LabelRules("first", bytes(range(32))))
    for path in (root, *root.rglob("*")):
        os.chown(path, -1, GROUP)

    def read_secret() -> None:
        assert label_rules.kept_secret(root) == bytes(range(32))
        label_rules.save(kept, LabelRules("latest", bytes(range(32))))

    assert as_other_user(read_secret) == "PermissionError"
    assert as_other_user(read_secret, [GROUP]) == "done"
    assert label_rules.load(kept) == LabelRules("latest", bytes(range(32)))


@needs_root
def test_a_secret_that_cannot_be_read_is_not_replaced_by_a_new_one(directory: Path) -> None:
    """The ids of all predictions so far would be invalid, without a word."""
    root, kept = directory / ".holdfast", directory / ".holdfast" / "serve" / "parcels"
    kept.mkdir(parents=True)
    for path in (root, root / "serve", kept):
        path.chmod(0o755)
    label_rules.save(kept, LabelRules("first", bytes(range(32))))

    def look() -> None:
        with pytest.raises(UnavailableError, match=r"HF316: .*labels.json has the secret .*cannot be read"):
            label_rules.kept_secret(root)

    assert as_other_user(look) == "done"


def test_a_root_that_others_may_use_is_a_warning_with_the_command_that_ends_it(directory: Path) -> None:
    """A store of an earlier release goes on: its owner decides when to close it."""
    project = make(directory)
    root = project.directory / ".holdfast"
    root.chmod(0o755)
    warned = run(project, "status", "--json")
    assert warned.status == 0
    assert json.loads(warned.stdout)["model"] == "parcels"
    assert "(mode 0755)" in warned.stderr
    assert f"next: chmod -R go-rwx {root}" in " ".join(warned.stderr.split())
    root.chmod(0o700)
    assert run(project, "status").stderr == ""


@needs_root
def test_another_user_reads_nothing_and_holds_up_nothing(directory: Path) -> None:
    project = make(directory)
    root = project.directory / ".holdfast"
    paths = [root, *root.rglob("*")]
    assert {as_other_user(lambda path=path: os.open(path, os.O_RDONLY)) for path in paths} == {
        "PermissionError"
    }
    assert as_other_user(lambda: os.listdir(root)) == "PermissionError"
    assert as_other_user(lambda: hold(root / "ledger.db-lock")) == "PermissionError"
    assert as_other_user(lambda: (root / "rows" / "x.parquet").touch()) == "PermissionError"


@needs_root
def test_another_user_locks_nothing_in_a_root_that_is_open(directory: Path) -> None:
    """The root of an earlier release was 0755: the files that are made in it now are closed all the same."""
    root = directory / ".holdfast"
    root.mkdir(mode=0o755)
    project = make(directory)
    locks = [path for path in root.rglob("*") if path.is_file()]
    assert root / "ledger.db-lock" in locks
    assert {as_other_user(lambda path=path: hold(path)) for path in locks} == {"PermissionError"}
    assert run(project, "status").status == 0


def test_loads_in_other_processes_make_files_of_the_declared_modes(directory: Path) -> None:
    """A worker is a process of its own: it has neither the settings nor the umask of the command."""
    project = Project(directory)
    settings = {"HOLDFAST_ACCESS": "group", "HOLDFAST_EXECUTOR": "processes"}
    assert run(project, "init", "--name", "parcels", **settings).status == 0
    header, *rows = (directory / "parcels.csv").read_text().splitlines()
    for name, some in (("a.csv", rows[::2]), ("b.csv", rows[1::2])):
        (directory / name).write_text("\n".join([header, *some]) + "\n")
    assert run(project, "ingest", "rows", "a.csv", "b.csv", **settings).status == 0
    assert modes(directory / ".holdfast" / "rows")["files"] == {"0o660"}
