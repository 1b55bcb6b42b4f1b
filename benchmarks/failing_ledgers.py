"""Ledgers that can be made to fail, on SQLite and on PostgreSQL: killed, hung, and full where a small tmpfs can be mounted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.store.db.ledger import sqlite_url
from tests.support.postgres import Server as Postgres

TMPFS_BYTES = 48 << 20


@dataclass
class Ledger:
    """A kind of ledger, and how it is made to fail."""

    name: str
    url: str
    ways: tuple[str, ...]
    root: Path
    postgres: Postgres | None = None

    @contextmanager
    def failing(self, way: str) -> Iterator[None]:
        match way, self.postgres:
            case "healthy", _:
                yield
            case "killed", None:
                with self._moved():
                    yield
            case "hung", None:
                with self._locked():
                    yield
            case "full", None:
                with self._filled():
                    yield
            case "killed", Postgres() as server:
                server.kill()
                yield
                server.restart()
            case "hung", Postgres() as server:
                with stopped(server):
                    yield
            case _:
                raise ValueError(way)

    @contextmanager
    def _moved(self) -> Iterator[None]:
        away = self.root / "away"
        away.mkdir(exist_ok=True)
        for path in self.root.glob("ledger.db*"):
            path.rename(away / path.name)
        try:
            yield
        finally:
            for path in away.iterdir():
                path.rename(self.root / path.name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        program = (
            "import sqlite3,sys\nheld = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "held.execute('PRAGMA busy_timeout=30000')\nheld.execute('BEGIN EXCLUSIVE')\nprint('held', flush=True)\ninput()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", program, str(self.root / "ledger.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            holder.kill()
            holder.communicate()

    @contextmanager
    def _filled(self) -> Iterator[None]:
        filler = self.root / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def stopped(server: Postgres) -> Iterator[None]:
    """All processes of PostgreSQL are stopped, its backends too."""
    numbers = [server.postmaster, *_children(server.postmaster)]
    for number in numbers:
        os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        for number in numbers:
            os.kill(number, signal.SIGCONT)


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


@contextmanager
def sqlite_ledger(directory: Path) -> Iterator[Ledger]:
    """On a small tmpfs of its own where that can be mounted; else full disks are not drilled."""
    root = directory / "sqlite"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "none", str(root)]
    small = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    ways = ("healthy", "killed", "hung", *(["full"] if small else []))
    try:
        yield Ledger("sqlite", sqlite_url(root / "ledger.db"), ways, root)
    finally:
        if small:
            subprocess.run(["umount", "-l", str(root)], check=True)


@contextmanager
def postgres_ledger(directory: Path) -> Iterator[Ledger]:
    """A PostgreSQL of our own."""
    server = Postgres.start_new("fsync=off")
    root = directory / "postgresql"
    root.mkdir()
    try:
        yield Ledger("postgresql", server.url(), ("healthy", "killed", "hung"), root, server)
    finally:
        server.stop()


KINDS = {"sqlite": sqlite_ledger, "postgresql": postgres_ledger}
