"""The fsync lint: at each acknowledgement, nothing that a program wrote may still be only in memory (R1, P2).

strace writes down every system call of a real program. The lint follows them: a written file is unsafe until it is
synced, and the name of a new file until its directory is. Whatever is unsafe at an acknowledgement (a line that begins
with "ACK " on standard output) is a finding.

    python -m tests.durability.fsync_lint ROOT PROGRAM ARGUMENT...

lints any program, which keeps what it acknowledges under ROOT.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


class NoTraceError(Exception):
    """System calls cannot be traced here."""


CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,ftruncate,fallocate,rename,renameat,renameat2,link,linkat,"
    "unlink,unlinkat,mkdir,mkdirat,fsync,fdatasync"
)
NEVER_DURABLE = re.compile(r"-shm$")  # SQLite makes its shared-memory index anew after a crash


@dataclass
class Unsafe:
    """What a power failure could take: data that was not synced, and names by the directory not synced."""

    root: str
    data: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    safe_names: set[str] = field(default_factory=set)

    def see(self, call: str, arguments: str) -> None:
        paths = [path for path in re.findall(r'"([^"]*)"', arguments) if self._ours(path)]
        opened = re.match(r"\d+<([^>]*)>", arguments)
        target = (
            opened[1]
            if opened and (self._ours(opened[1]) or opened[1] == str(Path(self.root).parent))
            else None
        )
        match call:
            case "write" | "pwrite64" | "writev" | "pwritev" | "ftruncate" | "fallocate" if target:
                self.data.add(target)
            case "fsync" | "fdatasync" if target:
                self.data.discard(target)
                if call == "fsync":
                    settled = {name for name in self.names if str(Path(name).parent) == target}
                    self.names -= settled
                    self.safe_names |= settled
            case "openat" | "open" | "creat" if paths and (call == "creat" or "O_CREAT" in arguments):
                self._named(paths[-1])
            case "mkdir" | "mkdirat" if paths:
                self._named(paths[-1])
            case "rename" | "renameat" | "renameat2" | "link" | "linkat" if len(paths) == 2:
                self.safe_names.discard(paths[1])
                self._named(paths[1])
                if paths[0] in self.data:
                    self.data.add(paths[1])
                if call.startswith("rename"):
                    self._gone(paths[0])
            case "unlink" | "unlinkat" if paths:
                self._gone(paths[-1])

    def _ours(self, path: str) -> bool:
        return path.startswith(self.root) and NEVER_DURABLE.search(path) is None

    def _named(self, path: str) -> None:
        if path not in self.safe_names:
            self.names.add(path)

    def _gone(self, path: str) -> None:
        for known in (self.data, self.names, self.safe_names):
            known.discard(path)


def _calls(trace: Path) -> Iterator[tuple[str, str]]:
    """(name, arguments) of every call that succeeded, in the order in which they ended."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        process, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[process] = rest.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>", rest)
        if resumed:
            rest = begun.pop(process, "") + rest[resumed.end() :]
        ended = re.match(r"(\w+)\((.*)\)\s+= (\d+)", rest)
        if ended:
            yield ended[1], ended[2]


def lint(trace: Path, root: Path) -> list[tuple[set[str], set[str]]]:
    """For each acknowledgement the data and the names that were unsafe when it was given."""
    unsafe, found = Unsafe(str(root)), []
    for call, arguments in _calls(trace):
        if call == "write" and arguments.startswith("1<") and '"ACK ' in arguments:
            found.append((set(unsafe.data), set(unsafe.names)))
        else:
            unsafe.see(call, arguments)
    return found


def traced(command: list[str], trace: Path) -> str:
    strace = shutil.which("strace")
    if strace is None:
        raise NoTraceError("strace is not installed: the fsync lint needs to see system calls")
    options = ["-f", "-y", "-qq", "-s", "64", "--seccomp-bpf", "-o", str(trace), "-e", f"trace={CALLS}"]
    ran = subprocess.run(
        [strace, *options, *command], capture_output=True, text=True, timeout=300, check=False
    )
    if "PTRACE" in ran.stderr or "Operation not permitted" in ran.stderr:
        raise NoTraceError("strace may not trace here (ptrace is forbidden)")
    if ran.returncode != 0:
        raise AssertionError(f"{command} ended with {ran.returncode}: {ran.stderr}")
    return ran.stdout


def main() -> int:
    root, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        traced(command, trace)
        found = lint(trace, Path(root).resolve())
    for number, (data, names) in enumerate(found, start=1):
        sys.stdout.write(
            f"acknowledgement {number}: " + ("durable" if not data | names else f"{data=} {names=}") + "\n"
        )
    return int(not found or any(data or names for data, names in found))


if __name__ == "__main__":
    sys.exit(main())
