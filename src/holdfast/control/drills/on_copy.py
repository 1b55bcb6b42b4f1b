"""Drills on a temporary copy of the store: a restore, and a ledger that fails under a server.

No user and no row of the store is affected. The next drill removes what a killed one left behind.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from holdfast.control.drills.live import Workspace
from holdfast.control.drills.server import NOTICE_SECONDS, START_SECONDS, Child
from holdfast.control.maintenance import backup
from holdfast.control.maintenance.verify import verify
from holdfast.errors import UnavailableError
from holdfast.formatting import counted
from holdfast.records import Verdict
from holdfast.rollout.model.drills import DrillResult
from holdfast.store import Store
from holdfast.store.db.ledger import sqlite_url
from holdfast.store.files import blobs
from holdfast.store.maintenance import backup as backups
from holdfast.store.rollout import drills, traffic_plans

REQUESTS: Final = 100
"""How many requests a server without its ledger must serve."""
ROOM: Final = 3
"""Free space that a copy requires, in times of its size: the disk also holds the prediction log,
and a drill must not fill it."""


def restore(workspace: Workspace, _drill: int) -> DrillResult:
    """Back up, restore next to the store, compare counts and digests, remove both."""
    with scratch(workspace.store) as home:
        if narrow := no_room(home, [workspace.store.root]):
            return narrow
        began = time.monotonic()
        taken = backup.backup(workspace.store, home / "backup", now_us=workspace.clock_us())
        restored = backup.restore(home / "backup", home / "root")
        measured_duration_us = round((time.monotonic() - began) * 1e6)
        named = backups.read(home / "backup", taken.name)
        # `restore` compared every row with the backup's; what it then closed and renamed opens as it was closed.
        store = Store.open(home / "root")
        try:
            opened = verify(store, quick=True)
        finally:
            store.ledger.close()
    same = ("rows", "ledger_rows", "files", "bytes", "table_version")
    other = [name for name in same if getattr(taken, name) != getattr(restored, name)]
    evidence = asdict(restored) | {"ledger": named.ledger, "backup_seconds": round(taken.seconds, 3)}
    if other or opened.findings or not opened.checksums_verified:
        words = f"the restored store differs in {', '.join(other) or 'its ledger'}"
        return DrillResult(Verdict.FAIL, words, None, evidence)
    words = (
        f"{counted(restored.rows, 'row')} in {counted(restored.files, 'file')} and "
        f"{counted(restored.ledger_rows, 'row')} of the ledger were restored "
        f"intact in {measured_duration_us / 1e6:.1f} s"
    )
    return DrillResult(Verdict.PASS, words, measured_duration_us, evidence)


def dead_database(workspace: Workspace, _drill: int) -> DrillResult:
    """Destroy the ledger of a running server, kill the server, and start it again without one."""
    with scratch(workspace.store) as home:
        if narrow := no_room(home, copied(workspace.store)):
            return narrow
        store = copy(workspace.store, home / "root")
        with store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, workspace.model.name)
        store.ledger.close()
        if plan is None:
            return DrillResult(Verdict.INCONCLUSIVE, "no version serves yet")
        with Child(workspace, home / "root") as child:
            child.wait(lambda status: status["plan"] == plan.plan_id and status["ready"], START_SECONDS)
            followed = home / "root" / "serve" / workspace.model.name / "plan.json"
            child.wait(lambda _status: followed.exists(), START_SECONDS)
            _destroy(home / "root")
            began = time.monotonic()
            noticed = child.wait(lambda status: bool(status["ledger_error"]), NOTICE_SECONDS)
            failed = child.failed(REQUESTS)
        for left in (home / "root").glob("ledger.db*"):
            left.unlink(missing_ok=True)
        with Child(workspace, home / "root") as child:
            child.wait(lambda status: bool(status["ready"]), START_SECONDS)
            failed_again = child.failed(REQUESTS)
            measured_duration_us = round((time.monotonic() - began) * 1e6)
    evidence = {
        "requests": 2 * REQUESTS,
        "failed": failed,
        "failed_after_restart": failed_again,
        "ledger_error": noticed["ledger_error"],
        "plan": plan.plan_id,
    }
    words = f"{failed} of {REQUESTS} requests failed without the ledger, {failed_again} of {REQUESTS} after kill -9"
    verdict = Verdict.FAIL if failed or failed_again else Verdict.PASS
    return DrillResult(verdict, words, measured_duration_us, evidence)


# --- the copy ---------------------------------------------------------------------------------------------------------


@contextmanager
def scratch(store: Store) -> Iterator[Path]:
    """Create a directory next to the store's and remove it afterwards, with those that killed drills left there."""
    prefix = f"{store.root.name}.drill-"
    for left in store.root.parent.glob(f"{prefix}*"):
        if not _is_alive(left.name.removeprefix(prefix).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    home = store.root.parent / f"{prefix}{os.getpid()}-{threading.get_ident()}"
    try:
        home.mkdir(parents=True)
    except OSError as error:
        raise UnavailableError(
            "HF306",
            f"copying the store to {home} failed: {error.strerror}",
            state="nothing was drilled",
            next_command="free space there, then the same drill again",
        ) from error
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def no_room(home: Path, copied_from: Iterable[Path]) -> DrillResult | None:
    """Return why nothing can be copied to `home`; None if there is enough free space."""
    need_bytes = ROOM * sum(_size_bytes(path) for path in copied_from)
    free_bytes = shutil.disk_usage(home).free
    if free_bytes >= need_bytes:
        return None
    words = f"not drilled: {need_bytes:,} bytes of free space are needed at {home.parent}, and {free_bytes:,} are free"
    return DrillResult(
        Verdict.INCONCLUSIVE, words, None, {"wanted_bytes": need_bytes, "free_bytes": free_bytes}
    )


def copied(store: Store) -> list[Path]:
    """Return the paths that `copy` copies of a store's directory."""
    return [blobs.path_of(store.root, "0" * 64).parents[1], *store.root.glob("ledger.db*")]


def _size_bytes(path: Path) -> int:
    """Return the size of a file or of all files in a directory. What disappears meanwhile counts as 0."""
    inside = (Path(directory, name) for directory, _, names in os.walk(path) for name in names)
    total = 0
    for each in (path, *inside):
        with suppress(FileNotFoundError):
            total += each.lstat().st_size if each.is_file() else 0
    return total


def copy(store: Store, root: Path) -> Store:
    """Create a store at `root` with the ledger and the versions of `store`, none of its rows' files, servers or requests."""
    made = Store.open(root, sqlite_url(root / "ledger.db"), recovering=True)
    with store.ledger.read() as source, made.ledger.write() as connection:
        backups.fill(connection, backups.dump(source, without=drills.NOT_COPIED))
    blobs_of = blobs.path_of(store.root, "0" * 64).parents[1]
    shutil.copytree(blobs_of, root / blobs_of.relative_to(store.root), dirs_exist_ok=True)
    return made


def _destroy(root: Path) -> None:
    """Overwrite the ledger of the copy, so that it is no database any more.

    The write-ahead log may disappear meanwhile: SQLite removes it when the server's last connection closes.
    """
    for path in root.glob("ledger.db*"):
        with suppress(FileNotFoundError), path.open("r+b") as file:
            file.write(b"\xff" * max(4096, os.fstat(file.fileno()).st_size))


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
