"""A disk that is full or fails: a clear error, nothing of the load to be seen, and the next run loads (R1)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.verify import verify
from holdfast.store import Store
from tests.soak.delivery_history import Delivery, check, deliver
from tests.soak.fork_server import FEED

PROGRAM = "import json, sys; from tests.soak import fork_server; fork_server.load(json.loads(sys.argv[1]))"
FAULTS = [
    ("fsync", "EIO", 1),  # a file of rows
    ("fsync", "ENOSPC", 2),  # its name
    ("fdatasync", "EIO", 1),  # the ledger's commit
    ("rename", "ENOSPC", 1),  # the copy of the contract
]


def _load(
    root: Path, sent: list[Delivery], acks: Path, fault: str | None
) -> subprocess.CompletedProcess[str]:
    task = json.dumps(
        {"root": str(root), "acks": str(acks), "jobs": [[each.batch, str(each.path)] for each in sent]}
    )
    command = [sys.executable, "-c", PROGRAM, task]
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: it makes the faults")
    quiet = ["-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", f"trace={fault.partition(':')[0]}"]
    command = [strace, *quiet, "-e", f"inject={fault}", *command]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if "PTRACE" in ran.stderr or "Operation not permitted" in ran.stderr:
        pytest.skip("strace may not trace here (ptrace is forbidden)")
    return ran


@pytest.mark.parametrize(("call", "error", "first"), FAULTS)
def test_an_error_of_the_disk_loads_nothing_by_half(
    call: str, error: str, first: int, tmp_path: Path
) -> None:
    """From the `first` call on every one fails; then none does."""
    root, acks = tmp_path / "store", tmp_path / "acks"
    sent = [deliver(tmp_path, number) for number in range(3)]
    Store.open(root).ledger.close()
    failed = _load(root, sent, acks, f"{call}:error={error}:when={first}+")
    reported = acks.read_text().splitlines() if acks.exists() else []
    assert failed.returncode in (0, 1)
    assert all(line.split()[0] in ("ACK", "HF302", "HF307", "HF205") for line in reported), reported
    if failed.returncode == 1:  # the store could not even be opened, and reported it
        assert "HF3" in failed.stderr
    store = Store.open(root)
    acknowledged = [line for line in reported if line.startswith("ACK ")]
    assert not check(store, sent, acknowledged)
    for each in sent:
        state = ingest(store, FEED, each.batch, each.path, now_us=1).state
        acknowledged.append(f"ACK {each.batch} {each.content} {state}")
    assert not check(store, sent, acknowledged)
    assert verify(store).findings == ()


def test_a_full_disk_takes_what_it_can_and_reports_it(tmp_path: Path) -> None:
    """A file system of 6 MB in a name space of its own, full, then with room again."""
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("name spaces cannot be made here")
    mounted = tmp_path / "small"
    mounted.mkdir()
    script = f"mount -t tmpfs -o size=6m tmpfs {mounted} && exec {sys.executable} -m tests.durability.full_disk {mounted}"
    ran = subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount" in ran.stderr and ran.returncode:
        pytest.skip("nothing can be mounted here")
    assert ran.returncode == 0, ran.stderr
    assert "broken False" in ran.stdout, ran.stdout
    assert "loaded 40" in ran.stdout
    assert "HF30" in ran.stdout
